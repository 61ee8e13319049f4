"""The record of a Gaussian decoder held against data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evidence.measured import Measured
from evidence.sharpness import Sharpness, interrupted

WORTHWHILE = 0.05  # nats per datum


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
