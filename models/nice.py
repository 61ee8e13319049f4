"""An invertible model of additive couplings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import ActNorm, Additive, Composition, Coupling, FlowDensity, Reorder
from dlvm.distributions.flows.density import initialised
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count


class NICE(PyroModule):
    """Data that couplings which keep volumes, and one scale for each number, take to independent noise.

        log p(x) = sum_d log p_noise(f_d(x)) + sum_d s_d,   f(x) = exp(s) c_T( ... c_1(x)) + t
        c_t adds a net of one half of the numbers to the other; the halves are the even places and the odd ones

    There is no latent variable: log p(x) is exact, and what x = f^-1(noise) draws.

    Sites:
        x: shape (batch, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        x_dim: numbers in a datum, 2 and more.
        hidden: hidden layers of the couplings' nets.
        depth: how many couplings; each second one keeps the other half.
        noise: ``"logistic"`` or ``"normal"``.
        before: an invertible map that data go through first, as ``Standardise`` or ``Logit``; none unless told.
        activation: nonlinearity of the nets.

    Raises:
        ValueError: ``x_dim`` is below 2 or ``depth`` below 1, ``noise`` is another word; when called, data have another
            width.
        TypeError: a number is no integer, ``before`` no module with an inverse.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh, Krueger, Bengio, 2015, arXiv:1410.8516.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.4, arXiv:1906.02691.

    Example:
        >>> NICE(6)(n=5).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        x_dim: int,
        hidden: Sequence[int] = (200, 200),
        depth: int = 4,
        noise: str = "logistic",
        before: nn.Module | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__("model")
        count(x_dim=x_dim, depth=depth)
        if x_dim < 2:
            raise ValueError("x_dim must be at least 2, got 1; a single number has no other half")
        couplings = [Coupling(x_dim, 0, bool(t % 2), Additive(), hidden, activation) for t in range(depth)]
        first = [] if before is None else [before]
        flow = Composition(*first, Reorder(x_dim), *couplings, ActNorm(x_dim))
        self.likelihood = FlowDensity(flow, x_dim, noise=noise)

    def initialise(self, x: Tensor) -> None:
        """Starts the scales so that these data, shape (batch, x_dim), come out with mean 0 and standard deviation 1."""
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
