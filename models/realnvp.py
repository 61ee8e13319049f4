"""An invertible model of affine couplings, over vectors or over images."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import FlowDensity, vector_flow
from dlvm.distributions.flows.density import initialised
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count


class RealNVP(PyroModule):
    """Data that an invertible map takes to noise.

        log p(x) = log p_noise(f(x)) + log |det df/dx|

    There is no latent variable: log p(x) is exact, and what x = f^-1(noise) draws. For images let ``flow`` be an
    ``image_flow``, for numbers from 0 to 1 a ``Composition`` of ``Logit`` and it; grey levels are no real numbers, and
    ``Dequantised`` makes the model one of them.

    Sites:
        x: shape (batch, x_dim), where the flow's first map is defined; observed, or drawn where ``x=None``.

    Args:
        x_dim: numbers in a datum.
        flow: f, a module x -> (noise, log |det|) with an ``inverse``; ``vector_flow(x_dim)`` unless told.
        noise: ``"normal"`` or ``"logistic"``.

    Raises:
        ValueError: ``x_dim`` is below 1, without a flow below 2; ``noise`` is another word; when called, data have
            another width.
        TypeError: ``x_dim`` is no integer, ``flow`` no module with an inverse.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, arXiv:1807.03039.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.4, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import image_flow
        >>> RealNVP(64, image_flow((1, 8, 8), width=8))(n=5).shape
        torch.Size([5, 64])
    """

    def __init__(self, x_dim: int, flow: nn.Module | None = None, noise: str = "normal"):
        super().__init__("model")
        count(x_dim=x_dim)
        if flow is None and x_dim < 2:
            raise ValueError("x_dim must be at least 2, got 1; a single number has no other half: pass a flow")
        self.likelihood = FlowDensity(vector_flow(x_dim) if flow is None else flow, x_dim, noise=noise)

    def initialise(self, x: Tensor) -> None:
        """Lets the maps that start from data, as ``ActNorm``, see these, shape (batch, x_dim), in order."""
        initialised(self.likelihood.flow, x)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, x_dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, x_dim).
        """
        with pyro.plate("data", size(x, n)):
            density = self.likelihood()
            return pyro.sample("x", density, obs=fitting(x, density))
