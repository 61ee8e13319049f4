"""Sets the constant scale of a Gaussian decoder to its best value, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlvm.evidence.diagnostics.decoder import decoder_report
from dlvm.evidence.diagnostics.decoder_record import GaussianDecoder
from dlvm.evidence.mean import Measured
from dlvm.inference.programs.modules import reached

NAME = "log_scale"


@dataclass(frozen=True)
class ScaleChange:
    """What became of a decoder's constant scale.

    Attributes:
        before, after: the scale, shape () or (x_dim,).
        gain: what it adds to the ELBO at the present means, nats per datum; its error is over data and draws.
        num_data: how many data it rests on.
    """

    before: Tensor
    after: Tensor
    gain: Measured
    num_data: int

    def __str__(self) -> str:
        before, after = (scale.square().mean().sqrt().item() for scale in (self.before, self.after))
        return f"scale {before:.4g} -> {after:.4g}: {self.gain} nats per datum gained on {self.num_data} data"


def calibrate_scale(
    model: nn.Module,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 10,
    site: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ScaleChange:
    """Sets a constant scale to where the ELBO is largest, all else held fixed.

        scale^2 = E_q (x - E[x | z])^2,   mean over data, draws and the dimensions that share the scale

    Called between epochs it takes the place of a learned scale and of its learning rate, in a model that holds the
    scale fixed otherwise. After Ctrl-C nothing is changed.

    Returns:
        a ``ScaleChange``.

    Args:
        model: a module of which one part has a parameter or buffer ``log_scale`` of one or x_dim numbers, the logarithm
            of the likelihood's scale: ``LearnedScale``, ``FixedScale``, ``PPCA``. It is set in place.
        others: as for ``decoder_report``.

    Raises:
        ValueError: no part has such a tensor, several have, it is not the likelihood's scale, all residuals are 0,
            or as for ``decoder_report``.
        TypeError: the likelihood is not Gaussian.

    References:
        Simple and Effective VAE Training with Calibrated Decoders, Rybkin, Daniilidis, Levine, 2021, arXiv:2006.13202.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.zeros(3, 2), torch.zeros(3), 1.0), torch.full((5, 3), 0.5)
        >>> calibrate_scale(model, Diagonal(latents(model, x), MLP(3, 8)), x).after
        tensor(0.5000)
    """
    log_scale = _log_scale(model)
    report = decoder_report(model, guide, data, num_particles, None, site, rows, seed, progress)
    if not report.complete:
        raise KeyboardInterrupt
    if not isinstance(report, GaussianDecoder):
        raise TypeError("the likelihood is made of Bernoullis, which have no scale; calibrate_scale is for Gaussians")
    before = log_scale.detach().exp().clone()
    _check(before, report)
    shared = log_scale.numel() == 1
    best = torch.as_tensor(report.best_scale) if shared else report.best_scale_per_dim
    if not (best > 0).all():
        raise ValueError("some residuals are all 0, and their best scale with them; leave constant dimensions out")
    with torch.no_grad():
        log_scale.copy_(best.log().to(log_scale).reshape(log_scale.shape))
    gain = report.gain if shared else report.gain_per_dim
    return ScaleChange(before, log_scale.detach().exp().clone(), gain, report.num_data)


def _log_scale(model: nn.Module) -> Tensor:
    parts = [part for module in reached(model) for part in module.modules()]
    found = {id(p): p for part in parts if isinstance(p := getattr(part, NAME, None), Tensor)}
    if len(found) != 1:
        raise ValueError(
            f"model has {len(found)} parts with a tensor {NAME!r}, expected one: the logarithm of its likelihood's "
            "scale; use ConstantScaleNormal(net, LearnedScale()), or a FixedScale"
        )
    return next(iter(found.values()))


def _check(scale: Tensor, report: GaussianDecoder) -> None:
    if scale.numel() not in (1, len(report.scale_per_dim)) or not torch.allclose(
        scale.double().cpu().reshape(-1).expand_as(report.scale_per_dim), report.scale_per_dim, rtol=1e-3
    ):
        raise ValueError(
            f"model's {NAME!r} stands for a scale of {scale.mean().item():.4g}, shape {tuple(scale.shape)}, "
            f"where the likelihood has {report.scale:.4g}; calibrate_scale needs a likelihood whose scale is its exp"
        )
