"""The posterior of a diffusion, which is known: noise is added to the data."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor

from dlvm.distributions import Noising
from dlvm.distributions.diffusion.random_layer import SpreadUniform
from dlvm.nets.arguments import count


class ForwardDiffusion(PyroModule):
    """Guide of ``Diffusion`` without parameters of its own: the layers' Gaussians given the data, from the top down.

        q(z_0, ..., z_T | x) = q(z_T | x) prod_{i=T..1} q(z_(i-1) | z_i, x)

    It holds the model's ``noising``, and with it the schedule that both learn.

    Sites:
        z_T, ..., z_0: shape (batch, dim), real.

    Args:
        noising: that of the model.
        layers: T, that of the model.

    Raises:
        ValueError: ``layers`` is below 1; when called, there are no data.
        TypeError: ``noising`` is no ``Noising``.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> from dlvm.distributions import LinearSchedule
        >>> list(ForwardDiffusion(Noising(LinearSchedule(), 3), layers=2)(torch.zeros(5, 3)))
        ['z_2', 'z_1', 'z_0']
    """

    def __init__(self, noising: Noising, layers: int):
        super().__init__("guide")
        count(layers=layers)
        self.noising, self.layers = checked(noising), layers

    def forward(self, x: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the program on x, shape (batch, dim); returns {site: value}."""
        x = self.noising.rows(x)
        times = torch.arange(self.layers + 1, dtype=x.dtype, device=x.device) / self.layers
        gammas, u = self.noising.schedule(times).unbind(), self.noising.signal(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{self.layers}", self.noising.at(x, gammas[-1]))
            values = {f"z_{self.layers}": z}
            for i in range(self.layers, 0, -1):
                q = self.noising.between(u, z, gammas[i - 1], gammas[i])
                z = values[f"z_{i - 1}"] = pyro.sample(f"z_{i - 1}", q)
        return values


class RandomTime(PyroModule):
    """Guide of ``RandomLayer``: a time for each datum, and the noisy data then and at time 0.

        q(t, z_0, z_t | x) = U(t; 0, 1) q(z_0 | x) q(z_t | x)

    Sites:
        t: shape (batch,), from 0 to 1.
        z_0, z_t: shape (batch, dim), real.

    Args:
        noising: that of the model.
        layers: as many as the model has; None for infinitely many.

    Raises:
        ValueError: ``layers`` is below 1; when called, there are no data.
        TypeError: ``noising`` is no ``Noising``.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> from dlvm.distributions import LinearSchedule
        >>> list(RandomTime(Noising(LinearSchedule(), 3), layers=1000)(torch.zeros(5, 3)))
        ['t', 'z_0', 'z_t']
    """

    def __init__(self, noising: Noising, layers: int | None = None):
        super().__init__("guide")
        if layers is not None:
            count(layers=layers)
        self.noising, self.layers = checked(noising), layers

    def forward(self, x: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the program on x, shape (batch, dim); returns {site: value}."""
        x = self.noising.rows(x)
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", SpreadUniform())
            z_0 = pyro.sample("z_0", self.noising(x, torch.zeros_like(t)))
            above, _, _ = self.noising.rate(t, self.layers)
            return {"t": t, "z_0": z_0, "z_t": pyro.sample("z_t", self.noising.at(x, above))}


def checked(noising: object) -> Noising:
    """It, if it is one."""
    if not isinstance(noising, Noising):
        raise TypeError(f"noising must be a Noising, got {type(noising).__name__}; pass that of the model")
    return noising
