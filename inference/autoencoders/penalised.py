"""Autoencoders whose encoder or decoder is kept from changing fast: contractive, and gradient-penalised."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.inference.autoencoders.reconstruction import Reconstruction
from dlvm.inference.objectives.aided import Aided, refuse_aided
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.data_sites import data_of
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.plates import sample_sites
from dlvm.nets.arguments import count, real


def penalised(objective: Objective, penalty: EncoderGradient | DecoderGradient, weight: float = 0.1) -> Aided:
    """Takes the size of a derivative off an objective while training.

        objective - weight mean over data of |J|_F^2

    Of the encoder it is the contractive autoencoder, of the decoder one of the regularised autoencoders (RAE-GP); an L2
    penalty on the decoder is ``MAP`` of it, with {"likelihood.*": Normal(0, s)}. What is trained is no bound on
    log p(x), and what is reported is the objective's own value.

    Returns:
        an objective.

    Args:
        objective: ``Reconstruction()`` or ``ELBO()``, with one draw per datum.
        penalty: ``EncoderGradient()`` or ``DecoderGradient()``.
        weight: of the penalty, counted once for each datum.

    Raises:
        TypeError: ``penalty`` is something else.
        ValueError: an objective with an aid or of another kind, or ``weight`` is negative or not finite; when used,
            what cannot be differentiated.

    References:
        Contractive Auto-Encoders, Rifai, Vincent, Muller, Glorot, Bengio, 2011.
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black, Schoelkopf, 2020,
            arXiv:1903.12436.

    Example:
        >>> penalised(Reconstruction(), EncoderGradient(), weight=0.5)
        penalised(Reconstruction(num_particles=1), EncoderGradient(), weight=0.5)
    """
    return Aided(objective, Penalised(penalty, weight), side="neither")


class Penalised(nn.Module):
    """The aid of ``penalised``."""

    name = "penalised"

    def __init__(self, penalty: EncoderGradient | DecoderGradient, weight: float):
        super().__init__()
        if not isinstance(penalty, EncoderGradient | DecoderGradient):
            raise TypeError(f"penalty must be EncoderGradient() or DecoderGradient(), got {penalty!r}")
        real(weight=weight)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}; it is what the penalty counts")
        self.penalty, self.weight = penalty, float(weight)

    def __repr__(self) -> str:
        return f"{self.penalty!r}, weight={self.weight:g}"

    def accept(self, objective: Objective) -> None:
        refuse_aided(objective, self.name)
        if not isinstance(objective, ELBO | Reconstruction):
            raise ValueError(f"penalised takes Reconstruction() or ELBO(), got {objective!r}; choose one of these")

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        if particles.layout.num_particles > 1 or particles.parts:
            raise ValueError("penalised takes one draw per datum; pass an objective with num_particles=1")
        trained = objective.surrogate(particles, value)
        return trained - self.weight * particles.total(self.penalty(particles))


class EncoderGradient(nn.Module):
    """|d loc / d x|_F^2 of the means of q(z | x), over all latent sites.

    Exact by one derivative for each latent dimension, or without bias by random directions.

    Args:
        probes: how many directions; None takes every dimension.

    Raises:
        ValueError, TypeError: ``probes`` is no positive integer; when used, x is no tensor of real numbers, the guide
            does not depend on it, or a site has no mean.
    """

    def __init__(self, probes: int | None = None):
        super().__init__()
        count(probes=1 if probes is None else probes)
        self.probes = probes

    def __repr__(self) -> str:
        return f"EncoderGradient({'' if self.probes is None else f'probes={self.probes}'})"

    def forward(self, particles: Particles) -> Tensor:
        """Shape (batch,)."""
        programs = particles.programs
        if not programs.args or not isinstance(programs.args[0], Tensor) or not programs.args[0].is_floating_point():
            raise ValueError("EncoderGradient differentiates by the first argument, x, which must be a float tensor")
        x = programs.args[0].detach().requires_grad_()
        with torch.enable_grad(), statistics_kept(programs.pair.guide):
            trace = poutine.trace(programs.pair.guide).get_trace(x, *programs.args[1:], **programs.kwargs)
            means = [_rows(_mean(site), len(x)) for site in sample_sites(trace)]
            return squared_jacobian(torch.cat(means, -1), [x], self.probes)


class DecoderGradient(nn.Module):
    """|d E[x | z] / d z|_F^2 of the means of p(x | z) at the guide's draws.

    Args:
        probes: how many random directions of x, without bias; None takes every dimension of x, one derivative each.

    Raises:
        ValueError, TypeError: ``probes`` is no positive integer; when used, draws carry no gradient, or x has no mean.
    """

    def __init__(self, probes: int | None = 1):
        super().__init__()
        count(probes=1 if probes is None else probes)
        self.probes = probes

    def __repr__(self) -> str:
        return f"DecoderGradient(probes={self.probes})"

    def forward(self, particles: Particles) -> Tensor:
        """Shape (batch,)."""
        if not particles.entered:
            raise ValueError(
                "DecoderGradient differentiates by draws that carry a gradient; take a guide of such, as Point"
            )
        means = [_rows(_mean(site), particles.layout.batch) for site in data_of(particles.joint)]
        return squared_jacobian(torch.cat(means, -1), list(particles.entered.values()), self.probes)


def squared_jacobian(outputs: Tensor, inputs: list[Tensor], probes: int | None = None) -> Tensor:
    """The squared Frobenius norm of each row's derivative, shape (batch,), differentiable once more.

        |J|^2 = sum_d |d outputs_d / d inputs|^2 = E_v |v^T J|^2,   v ~ N(0, I)

    Args:
        outputs: shape (batch, dim), each row made of its own row of the inputs.
        inputs: shapes (batch, ...), all of them.
        probes: how many v; None takes every dimension.
    """
    directions = (
        torch.eye(outputs.shape[1]).to(outputs).unsqueeze(1)
        if probes is None
        else torch.randn(probes, *outputs.shape, dtype=outputs.dtype, device=outputs.device)
    )
    total: Tensor = outputs.new_zeros(len(outputs))
    for direction in directions:
        found = torch.autograd.grad((outputs * direction).sum(), inputs, create_graph=True, allow_unused=True)
        if all(each is None for each in found):
            raise ValueError("the gradient penalty is of a map that does not depend on its input; leave it out")
        total = total + sum(each.reshape(len(outputs), -1).square().sum(-1) for each in found if each is not None)
    return total if probes is None else total / probes


def _mean(site: dict) -> dict:
    try:
        return {**site, "value": site["fn"].mean}
    except NotImplementedError as error:
        kind = type(site["fn"]).__name__
        raise ValueError(
            f"site {site['name']!r} has a distribution without a mean, {kind}; take Point or Diagonal"
        ) from error


def _rows(site: dict[str, Any], batch: int) -> Tensor:
    value = site["value"]
    if value.dim() != 1 + site["fn"].event_dim or len(value) != batch:
        raise ValueError(
            f"a gradient penalty needs {site['name']!r} in one plate over data and no other, at dim=-1, got shape "
            f"{tuple(value.shape)} for {batch} data"
        )
    return value.reshape(batch, -1)
