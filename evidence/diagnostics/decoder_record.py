"""The records of a Bernoulli and of a Gaussian decoder held against data: calibration, and the power of their means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dlvm.evidence.mean import Measured

WORTHWHILE = 0.05  # nats per datum
WORTHWHILE_SHARE = 0.01  # of the distortion


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


@dataclass(frozen=True)
class GaussianDecoder:
    """A Gaussian decoder held against data; means over data, errors over data and draws.

    Attributes:
        distortion: -E_q log p(x | z), nats per datum.
        mse: E_q (x - E[x | z])^2, mean over dimensions.
        score_variance: mean square of (x - E[x | z]) / scale; 1 if the scale is right.
        scale, scale_per_dim: root mean square of the model's scale over data, and shape (x_dim,).
        best_scale, best_scale_per_dim: the best constant scale at these means, root of the mean squared residual.
        score_variance_per_dim: shape (x_dim,).
        gain: nats per datum that the best constant scale would add to the ELBO; negative where the model's, which
            depends on z, is better than any constant.
        gain_per_dim: the same for one constant per dimension.
        sharpness: power of the means.
        num_data: how many data the means are over.
        complete: False after Ctrl-C.
    """

    distortion: Measured
    mse: Measured
    score_variance: Measured
    scale: float
    scale_per_dim: Tensor
    best_scale: float
    best_scale_per_dim: Tensor
    score_variance_per_dim: Tensor
    gain: Measured
    gain_per_dim: Measured
    sharpness: Sharpness
    num_data: int
    complete: bool = True

    @property
    def verdict(self) -> str:
        """Whether the scale fits the residuals, in a few words."""
        if max(self.gain.value, self.gain_per_dim.value) < WORTHWHILE:
            return "the scale fits the residuals"
        if self.score_variance.below(1.0):
            return "the scale is too large: samples are noisier, and latents less used, than the data ask for"
        if self.score_variance.above(1.0):
            return "the scale is too small: the decoder is surer of its means than it may be"
        return "the scale fits on the whole, and not each dimension"

    @property
    def next_step(self) -> str:
        """What to try next, in plain words."""
        if self.gain.value >= WORTHWHILE and self.gain.value > 0.5 * self.gain_per_dim.value:
            return f"calibrate_scale(...) or a LearnedScale(): about {self.gain} nats per datum at the present means"
        if self.gain_per_dim.value >= WORTHWHILE:
            return f"LearnedScale(dim=x_dim), one scale per dimension: about {self.gain_per_dim} nats per datum"
        return "to a sharper decoder by more latents or a larger net: the scale has nothing left to give"

    def __str__(self) -> str:
        return "\n".join(
            [
                f"decoder: {self.verdict}   ({self.num_data} data{interrupted(self.complete)})",
                f"distortion {self.distortion} nats   mean squared residual {self.mse}   scale {self.scale:.4g}, best "
                f"{self.best_scale:.4g}   variance of (x - mean) / scale {self.score_variance}",
                f"best constant scale gains {self.gain} nats per datum, one per dimension {self.gain_per_dim}",
                str(self.sharpness),
                f"next: {self.next_step}",
            ]
        )


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


class Sharpness(NamedTuple):
    """The power of E[x | z], z ~ q(z | x), against that of the data.

    Attributes:
        power: variance of the means over data and draws, over that of the data; both summed over dimensions.
        power_per_dim: the same for each dimension, shape (x_dim,); NaN where the data are constant.
        fine: power of the means at frequencies above half of Nyquist's over that of the data; None without
            ``image_shape``. What a likelihood calls noise is missing from it, as from ``power``.
    """

    power: Measured
    power_per_dim: Tensor
    fine: Measured | None

    def __str__(self) -> str:
        fine = "" if self.fine is None else f", {percent(self.fine)} of its finest detail"
        return f"means hold {percent(self.power)} of the variance of the data{fine}"


def percent(share: Measured) -> str:
    """A share and its error, in percent."""
    return f"{100 * share.value:.1f} ± {100 * share.se:.1f} %"


def interrupted(complete: bool) -> str:
    """What to add to a record that Ctrl-C cut short."""
    return "" if complete else ", interrupted: the first ones only"
