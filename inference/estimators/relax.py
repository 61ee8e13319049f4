"""RELAX: the score function with a learned control variate, unbiased, fitted so that the gradient's noise is least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.rebar import REBAR
from dlvm.inference.estimators.relaxations import check_relaxable
from dlvm.inference.estimators.soft_sites import Soft, codes
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import module


class RELAX(REBAR):
    """REBAR with a net beside the relaxation, trained on the variance of the gradient.

        d logits: REBAR's less sum_k [r_k s_k - (d r_k / d noisy_k) (d noisy_k | noise - d noisy_k | b)],
        r_k = net(sigma(noisy_k), x),   noisy ~ p(noisy | b),   s = d log q(b) / d logits

    What is in brackets has mean zero whatever the net is, so that the estimate is unbiased for every bound. The net
    sees the data, and all discrete sites of a particle side by side: soft ones (sigmoid or softmax of their noisy
    logits), others as drawn, and 0 for what is drawn from the soft ones. It is trained as the temperature is, by the
    gradient of the squared estimate, with the optimizer of the pair. With ``temperature=None`` the net is all there
    is: no run of the programs more, and programs may round and compare their draws.

    Args:
        net: called as ``net(codes, *args, **kwargs)`` with codes (num_particles, batch, numbers of all discrete sites)
            and what the programs are called with; returns a number for each particle and datum, nats. An
            ``MLP(numbers + x_dim, hidden, 1)`` takes both side by side.
        temperature: see ``REBAR``, or None.
        decay: see ``REBAR``.

    Raises:
        TypeError: ``net`` is no module.
        ValueError: see ``REBAR``; when used, the net returns another shape, or data lie in a plate that is run through
            one by one.

    References:
        Backpropagation through the Void: Optimizing control variates for black-box gradient estimation, Grathwohl,
        Choi, Wu, Roeder, Duvenaud, 2018, arXiv:1711.00123.

    Example:
        >>> from dlvm.nets import MLP
        >>> RELAX(MLP(16 + 64, 100, 1))
        RELAX(MLP, temperature=0.5, decay=0.99)
    """

    def __init__(self, net: nn.Module, temperature: float | Tensor | None = 0.5, decay: float = 0.99):
        super().__init__(torch.tensor(1.0) if temperature is None else temperature, decay)
        module(net=net)
        self.net, self.alone = net, temperature is None

    def extra_repr(self) -> str:
        if self.alone:
            return f"{type(self.net).__name__}, temperature=None"
        return f"{type(self.net).__name__}, {super().extra_repr()}"

    def require(self, bound: Bound, particles: Particles) -> None:
        if self.alone:
            check_relaxable("RELAX", particles)
        else:
            super().require(bound, particles)
        if particles.jumps and particles.layout.loops:
            raise ValueError(
                "RELAX's net reads each datum's draws side by side, and data lie in a plate that is run through one by "
                "one; write with pyro.plate('data', len(x)), or pass estimator=REBAR()"
            )

    def related(self, bound: Bound, particles: Particles, sites: list[Soft]) -> list[Tensor]:
        if self.alone:
            return [torch.zeros_like(site.noisy) for site in sites]
        return super().related(bound, particles, sites)

    def predicted(self, particles: Particles, sites: list[Soft]) -> list[Tensor]:
        (_, args, kwargs, *_), layout = particles.programs, particles.layout
        seen, shape = codes(particles, sites), (len(particles.log_w), layout.batch)
        found = self.net(seen, *args, **kwargs)
        if found.shape not in (shape, (*shape, 1)):
            raise ValueError(
                f"RELAX's net returned shape {tuple(found.shape)} for codes of shape {tuple(seen.shape)}; expected a "
                f"number for each of {shape[0]} particles of {shape[1]} data, as MLP({seen.shape[-1]} + x_dim, hidden, "
                "1) gives"
            )
        found, noisy = found.reshape(shape), [site.noisy for site in sites]
        slopes = torch.autograd.grad(found.sum(), noisy, create_graph=True, allow_unused=True, materialize_grads=True)
        pairs = zip(sites, slopes, strict=True)
        return [site.score(found) - site.through_both(slope) for site, slope in pairs]
