"""The record of a Bernoulli decoder held against data, and of the calibration of its probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evidence.measured import Measured
from evidence.sharpness import Sharpness, interrupted, percent

WORTHWHILE = 0.05  # nats per datum
WORTHWHILE_SHARE = 0.01  # of the distortion


@dataclass(frozen=True)
class Bins:
    """Predicted probabilities in equal bins from 0 to 1, sums over dimensions of each datum, means over draws.

    Attributes:
        count: how many predictions fall into the bin, shape (num_data, num_bins).
        predicted: sum of these probabilities.
        seen: how many of the pixels they are of were 1.
    """

    count: Tensor
    predicted: Tensor
    seen: Tensor

    @property
    def probability(self) -> Tensor:
        """Mean prediction, shape (num_bins,); NaN for an empty bin."""
        return self.predicted.sum(0) / self.count.sum(0)

    @property
    def frequency(self) -> Tensor:
        """How often the pixels were 1, shape (num_bins,); NaN for an empty bin."""
        return self.seen.sum(0) / self.count.sum(0)

    @property
    def differences(self) -> list[Measured]:
        """Frequency less prediction, bin by bin; NaN for an empty one."""
        pairs = zip((self.seen - self.predicted).T, self.count.T, strict=True)
        return [Measured.ratio(above, below) for above, below in pairs]

    @property
    def error(self) -> Measured:
        """The expected calibration error: mean of |frequency - prediction| over all predictions."""
        off = self.seen - self.predicted
        return Measured.ratio((off * off.sum(0).sign()).sum(1), self.count.sum(1))

    def __str__(self) -> str:
        pairs = zip(self.probability.tolist(), self.frequency.tolist(), self.count.sum(0).tolist(), strict=True)
        return "   ".join(f"{p:.2f}: {f:.2f}" for p, f, count in pairs if count)


@dataclass(frozen=True)
class BernoulliDecoder:
    """A Bernoulli decoder held against data; means over data, errors over data and draws.

    Attributes:
        distortion: -E_q log p(x | z), nats per datum.
        entropy: E_q of the entropy of p(x | z), nats per datum: what the distortion would be were predictions right.
        overconfidence: distortion - entropy, nats per datum; 0 if calibrated.
        unsure: share of the pixels predicted between 0.1 and 0.9.
        bins: predicted probability against frequency.
        sharpness: power of the means.
        num_data: how many data the means are over.
        complete: False after Ctrl-C.
    """

    distortion: Measured
    entropy: Measured
    overconfidence: Measured
    unsure: Measured
    bins: Bins
    sharpness: Sharpness
    num_data: int
    complete: bool = True

    @property
    def verdict(self) -> str:
        """Whether probabilities are calibrated, in a few words."""
        least = max(WORTHWHILE, WORTHWHILE_SHARE * abs(self.distortion.value))
        if self.overconfidence.value > least and self.overconfidence.above(0.0):
            return "overconfident: pixels are missed more often than predicted"
        if self.overconfidence.value < -least and self.overconfidence.below(0.0):
            return "underconfident: pixels are greyer than the data ask for"
        return "as sure of itself as it may be"

    @property
    def next_step(self) -> str:
        """What to try next, in plain words."""
        if self.verdict.startswith("over"):
            return "early stopping by a validation bound, dropout or a smaller decoder"
        if self.verdict.startswith("under"):
            return "longer training, or a larger decoder"
        return "to sharper pictures by more latents, a richer posterior or a larger net: probabilities are right"

    def __str__(self) -> str:
        return "\n".join(
            [
                f"decoder: {self.verdict}   ({self.num_data} data{interrupted(self.complete)})",
                f"distortion {self.distortion} nats, {self.overconfidence} above the entropy of its predictions   "
                f"{percent(self.unsure)} of the pixels between 0.1 and 0.9",
                f"calibration error {self.bins.error}   predicted: seen   {self.bins}",
                str(self.sharpness),
                f"next: {self.next_step}",
            ]
        )
