"""What a decoder predicts for some data, and the sums over data that its report is made of."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from dlvm.evidence.diagnostics.decoder_record import BernoulliDecoder, Bins, GaussianDecoder, Sharpness
from dlvm.evidence.mean import Measured
from dlvm.inference.particles.particles import Particles

NUM_BINS = 10
HALF_NYQUIST = 0.25  # cycles per pixel


class Decoded(NamedTuple):
    """Predictions for some data, shapes (num_particles, num_data, x_dim); x has shape (num_data, x_dim).

    Attributes:
        x: the data.
        mean: of p(x_d | z).
        surprise: -log p(x_d | z), nats.
        scale: of a Gaussian; None for a Bernoulli.
        entropy: of p(x_d | z), nats.
    """

    x: Tensor
    mean: Tensor
    surprise: Tensor
    scale: Tensor | None
    entropy: Tensor


def decoded(found: Particles, site: str | None = None) -> Decoded:
    """Reads an observed site's likelihood.

    Args:
        found: draws of some data.
        site: its name; the model's only observed site unless told.

    Raises:
        ValueError: there is no such site, or there are several and none is named.
        TypeError: its likelihood is neither made of Gaussians nor of Bernoullis, or is masked.
    """
    observed = {s["name"]: s for s in found.joint if s["is_observed"]}
    if site is None and len(observed) > 1 or site is not None and site not in observed:
        raise ValueError(f"site must be one of the observed sites {sorted(observed)}, got {site!r}; name one of them")
    name = site or next(iter(observed))
    fn, value = observed[name]["fn"], observed[name]["value"]
    k, count = found.log_likelihood.shape
    shape = torch.Size((*fn.batch_shape, *fn.event_shape))
    while isinstance(fn, (dist.Independent, torch.distributions.Independent)):
        fn = fn.base_dist
    gaussian = isinstance(fn, torch.distributions.Normal)
    if not gaussian and not isinstance(fn, torch.distributions.Bernoulli):
        kind = "masked" if isinstance(fn, MaskedDistribution) else type(fn).__name__
        raise TypeError(
            f"observed site {name!r} has a {kind} likelihood; a decoder is diagnosed where it is made of "
            "independent Normal or Bernoulli variables"
        )
    x = value.expand(shape).reshape(k, count, -1)[0].double()
    parts = (fn.mean, -fn.log_prob(value), fn.stddev, fn.entropy())
    mean, surprise, scale, entropy = (t.expand(shape).reshape(k, count, -1).double() for t in parts)
    return Decoded(x, mean, surprise, scale if gaussian else None, entropy)


class Sums:
    """Sums over data that both kinds share; lists hold one number per datum."""

    def __init__(self, first: Decoded, image_shape: tuple[int, ...] | None):
        x_dim = first.x.shape[-1]
        if image_shape is not None and (len(image_shape) not in (2, 3) or math.prod(image_shape) != x_dim):
            raise ValueError(
                f"image_shape must be (height, width) or (channels, height, width) with product {x_dim}, got "
                f"{tuple(image_shape)}"
            )
        self.image_shape, self.centre = image_shape, first.x.mean(0)
        self.moments = torch.zeros(4, x_dim, dtype=torch.float64, device=first.x.device)
        self.power: list[Tensor] = []
        self.fine: list[Tensor] = []
        self.distortion: list[Tensor] = []

    def add(self, part: Decoded) -> None:
        mean, x = part.mean - self.centre, part.x - self.centre
        means, squares = mean.mean(0), mean.square().mean(0)
        self.moments += torch.stack([means.sum(0), squares.sum(0), x.sum(0), x.square().sum(0)])
        self.power.append(torch.stack([squares.sum(-1), x.square().sum(-1)]))
        if self.image_shape is not None:
            shape = self.image_shape
            self.fine.append(torch.stack([_fine_power(part.mean, shape).mean(0), _fine_power(part.x, shape)]))
        self.distortion.append(part.surprise.mean(0).sum(-1))

    def sharpness(self) -> Sharpness:
        power = torch.cat(self.power, 1)
        count = power.shape[1]
        first, second, x_first, x_second = self.moments.cpu() / count
        above, below = second - first.square(), x_second - x_first.square()
        error = Measured.ratio(*(p - m.square().sum() for p, m in zip(power.cpu(), (first, x_first), strict=True))).se
        fine = Measured.ratio(*torch.cat(self.fine, 1).cpu()) if self.fine else None
        return Sharpness(Measured((above.sum() / below.sum()).item(), error), above / below, fine)


class GaussianSums(Sums):
    def __init__(self, first: Decoded, image_shape: tuple[int, ...] | None):
        super().__init__(first, image_shape)
        self.scales, self.scores = torch.zeros_like(self.centre), torch.zeros_like(self.centre)
        self.residuals: list[Tensor] = []
        self.each: list[Tensor] = []

    def add(self, part: Decoded) -> None:
        super().add(part)
        scale = cast(Tensor, part.scale)  # a Gaussian has one
        score = ((part.x - part.mean) / scale).square().mean(0)
        self.scales += scale.square().mean(0).sum(0)
        self.scores += score.sum(0)
        self.residuals.append((part.x - part.mean).square().mean(0).cpu())
        self.each.append(score.mean(-1))

    def result(self, complete: bool) -> GaussianDecoder:
        distortion, residuals = torch.cat(self.distortion).cpu(), torch.cat(self.residuals)
        count, x_dim = residuals.shape
        per_dim, shared = residuals.mean(0), residuals.mean()
        return GaussianDecoder(
            distortion=Measured.mean(distortion),
            mse=Measured.mean(residuals.mean(-1)),
            score_variance=Measured.mean(torch.cat(self.each).cpu()),
            scale=(self.scales.mean() / count).sqrt().item(),
            scale_per_dim=(self.scales / count).sqrt().cpu(),
            best_scale=shared.sqrt().item(),
            best_scale_per_dim=per_dim.sqrt(),
            score_variance_per_dim=self.scores.cpu() / count,
            gain=Measured.mean(distortion - _best(residuals, shared.expand(x_dim))),
            gain_per_dim=Measured.mean(distortion - _best(residuals, per_dim)),
            sharpness=self.sharpness(),
            num_data=count,
            complete=complete,
        )


class BernoulliSums(Sums):
    def __init__(self, first: Decoded, image_shape: tuple[int, ...] | None):
        super().__init__(first, image_shape)
        self.bins: list[Tensor] = []
        self.unsure: list[Tensor] = []
        self.entropy: list[Tensor] = []

    def add(self, part: Decoded) -> None:
        super().add(part)
        p = part.mean
        place = (p * NUM_BINS).long().clamp_max(NUM_BINS - 1)
        empty = p.new_zeros(*p.shape[:2], NUM_BINS)
        weights = torch.ones_like(p), p, part.x.expand_as(p)
        self.bins.append(torch.stack([empty.scatter_add(2, place, weight).mean(0) for weight in weights]))
        self.unsure.append(((p > 0.1) & (p < 0.9)).double().mean((0, 2)))
        self.entropy.append(part.entropy.mean(0).sum(-1))

    def result(self, complete: bool) -> BernoulliDecoder:
        distortion, entropy = torch.cat(self.distortion).cpu(), torch.cat(self.entropy).cpu()
        return BernoulliDecoder(
            distortion=Measured.mean(distortion),
            entropy=Measured.mean(entropy),
            overconfidence=Measured.mean(distortion - entropy),
            unsure=Measured.mean(torch.cat(self.unsure).cpu()),
            bins=Bins(*torch.cat(self.bins, 1).cpu()),
            sharpness=self.sharpness(),
            num_data=len(distortion),
            complete=complete,
        )


def _best(residuals: Tensor, variance: Tensor) -> Tensor:
    """-log p*(x | z) of each datum under the given variances, shape (num_data,)."""
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
    return 0.5 * (math.log(2 * math.pi) + variance.log() + residuals / variance).sum(-1)


def _fine_power(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Power at frequencies above half of Nyquist's, (*batch, x_dim) -> (*batch,)."""
    height, width = shape[-2:]
    y, x = torch.fft.fftfreq(height, device=images.device), torch.fft.fftfreq(width, device=images.device)
    fine = torch.hypot(y[:, None], x[None]) > HALF_NYQUIST
    power = torch.fft.fft2(images.unflatten(-1, shape)).abs().square()
    return (power * fine).flatten(images.dim() - 1).sum(-1)
