"""A particle filter over sequences of several lengths: an unbiased estimate of p(x_1..x_T), a step at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlvm.distributions.sequences.steps import State, Steps, picked, spread
from dlvm.inference.bounds.importance import log_mean_exp
from dlvm.inference.particles.resampling import Resampling, effective, shares


@dataclass(frozen=True)
class Filtered:
    """What a filter has found; T steps, of which those behind a sequence's length say nothing.

    Attributes:
        log_w: log-weights whose mean over particles is the estimate of p(x), shape (num_particles, batch), nats.
        log_p: log of the estimate of p(x_t | x_1..x_t-1), shape (batch, T), nats; 0 behind the length.
        mean: of z_t given x_1..x_t, shape (batch, T, z_dim).
        ess: effective sample size once x_t is seen, shape (batch, T).
        resampled: whether particles were drawn anew before the next step, shape (batch, T).
        log_ancestors: log-probability of what was drawn there, by independent draws, shape (batch, T), nats.
    """

    log_w: Tensor
    log_p: Tensor
    mean: Tensor
    ess: Tensor
    resampled: Tensor
    log_ancestors: Tensor

    @property
    def resampling_score(self) -> Tensor:
        """What the gradient of log_p lacks where the ancestors are constants, as a surrogate, shape (batch,).

        Each draw of ancestors by the log of what is estimated after it. It is the whole of what is lacking where the
        draws are multinomial, at each step.
        """
        ahead = self.log_p.detach().flip(-1).cumsum(-1).flip(-1) - self.log_p.detach()
        return (self.log_ancestors * ahead).sum(-1)


def run_filter(
    model: Steps,
    guide: Steps | None,
    num_particles: int,
    resampling: Resampling,
    truncate: int | None = None,
) -> Filtered:
    """Goes through sequences with K particles, each by the guide, or by the model where there is none (bootstrap).

        z_t ~ q(z_t | state),   w_t <- w_t-1 p(z_t | state) p(x_t | z_t, state) / q(z_t | state),
        p^(x) = prod_t mean_k w_t,   the w_t being divided by their mean after each step, and 1 once drawn anew

    Args:
        model, guide: their steps, on the same data.
        num_particles: K.
        resampling: when particles are drawn anew, and how.
        truncate: after how many steps gradients through states are cut; never unless told.
    """
    x = model.x
    if x is None:
        raise ValueError("model must have data to be filtered: its steps have no x")
    batch, steps = x.shape[:2]
    state: tuple[State, State] = (
        spread(model.start, (num_particles,)),
        () if guide is None else spread(guide.start, (num_particles,)),
    )
    log_w = x.new_zeros(num_particles, batch, dtype=_dtype(model.start))
    found: list[tuple[Tensor, ...]] = []
    for t in range(steps):
        if truncate is not None and t and t % truncate == 0:
            state = (_constant(state[0]), _constant(state[1]))
        z, step = _moved(model, guide, state, t, (num_particles, batch))
        if model.lengths is not None:
            step = torch.where(t < model.lengths, step, 0)
        log_w = log_w + step
        log_p = log_mean_exp(log_w)
        log_w = log_w - torch.where(log_p == -math.inf, 0, log_p)
        now = (log_p, (shares(log_w).unsqueeze(-1) * z).sum(0), effective(log_w))
        state = (model.after(state[0], z, t), () if guide is None else guide.after(state[1], z, t))
        again, log_a = torch.zeros_like(log_p, dtype=torch.bool), torch.zeros_like(log_p)
        if t + 1 < steps and resampling.below > 0:
            again = resampling.wanted(log_w)
            if model.lengths is not None:
                again = again & (t + 1 < model.lengths)
            state, log_w, log_a = _anew(state, log_w, resampling, again)
        found.append((*now, again, log_a))
    log_ps, means, ess, resampled, log_ancestors = (torch.stack(part, 1) for part in zip(*found, strict=True))
    return Filtered(log_w + log_ps.sum(1), log_ps, means, ess, resampled, log_ancestors)


def _moved(
    model: Steps, guide: Steps | None, state: tuple[State, State], t: int, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """z_t of each particle, (num_particles, batch, z_dim), and what the step adds to its log-weight."""
    prior = model.z_given(state[0], t)
    proposal = prior if guide is None else guide.z_given(state[1], t)
    if proposal.batch_shape != shape:
        proposal = proposal.expand(shape)
    z = proposal.rsample() if proposal.has_rsample else proposal.sample()
    step = model.log_x_given(state[0], z, t)
    return z, step if guide is None else step + prior.log_prob(z) - proposal.log_prob(z)


def _anew(
    state: tuple[State, State], log_w: Tensor, resampling: Resampling, again: Tensor
) -> tuple[tuple[State, State], Tensor, Tensor]:
    """States and log-weights where the particles of some data are drawn anew, and the log-probability of the draws."""
    ancestors = resampling.ancestors(log_w)
    log_shares = log_w.log_softmax(0).gather(0, ancestors).sum(0)
    kept = torch.where(again, ancestors, torch.arange(len(log_w), device=log_w.device).unsqueeze(-1))
    own, others = (picked(part, kept) for part in state)
    return (own, others), torch.where(again, 0, log_w), torch.where(again, log_shares, 0)


def _constant(state: State) -> State:
    return tuple(_constant(part) for part in state) if isinstance(state, tuple) else state.detach()


def _dtype(state: State) -> torch.dtype:
    return _dtype(state[0]) if isinstance(state, tuple) else state.dtype
