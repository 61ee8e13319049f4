"""Variational diffusion: a hierarchy of many layers whose posterior is known, and one random layer of it as a bound."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Noising, StandardNormal
from dlvm.distributions.diffusion.noising import alpha_and_sigma
from dlvm.distributions.diffusion.random_layer import EstimatedLog, SpreadUniform
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count, module


class Diffusion(PyroModule):
    """T layers of noise that is taken out again, each layer a Gaussian about what a net says that x is.

        p(x, z_0, ..., z_T) = N(z_T; 0, I) prod_{i=T..1} q(z_(i-1) | z_i, x = x^(z_i)) p(x | z_0)
        x^(z_t) = (z_t - sigma_t eps(z_t, gamma(t))) / alpha_t,   t = i / T

    q and p(x | z_0) are those of ``Noising``, which the guide shares: q(z | x) is known, and only the schedule and the
    denoiser are learned. This is the program with every layer, whose weights are importance weights; T nets are run for
    every datum. ``RandomLayer`` trains the same model by one layer a step.

    Sites:
        z_T, ..., z_0: shape (batch, dim), real; latent.
        x: shape (batch, dim), bits, levels or real numbers, as for ``noising``; observed, or drawn where ``x=None``.

    Args:
        noising: how noise is added.
        denoiser: (z_t, gamma(t)) -> the noise in z_t, as ``Denoiser``.
        layers: T.

    Raises:
        ValueError: ``layers`` is below 1; when called, data are of another width.
        TypeError: ``noising`` is no ``Noising``, or ``denoiser`` no module.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.
        Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, arXiv:2006.11239.

    Example:
        >>> from dlvm.distributions import Denoiser, LinearSchedule
        >>> from dlvm.nets import MLP
        >>> model = Diffusion(Noising(LinearSchedule(), 3), Denoiser(MLP(3 + 9, 16, 3)), layers=4)
        >>> model(n=5).shape
        torch.Size([5, 3])
    """

    def __init__(self, noising: Noising, denoiser: nn.Module, layers: int = 100):
        super().__init__("model")
        if not isinstance(noising, Noising):
            raise TypeError(f"noising must be a Noising, got {type(noising).__name__}; write Noising(schedule, x_dim)")
        module(denoiser=denoiser)
        count(layers=layers)
        self.noising, self.denoiser, self.layers = noising, denoiser, layers
        self.prior = StandardNormal(noising.dim)

    def extra_repr(self) -> str:
        return f"layers={self.layers}"

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, dim).
        """
        times = torch.arange(self.layers + 1, dtype=self.prior.loc.dtype, device=self.prior.loc.device) / self.layers
        gammas = self.noising.schedule(times).unbind()
        with pyro.plate("data", size(x, n)):
            z = pyro.sample(f"z_{self.layers}", self.prior())
            for i in range(self.layers, 0, -1):
                z = pyro.sample(f"z_{i - 1}", self.below(z, gammas[i - 1], gammas[i]))
            likelihood = self.noising.likelihood(z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def below(self, z: Tensor, below: Tensor, above: Tensor) -> TorchDistribution:
        """p(z_s | z_t), by gamma(s) and gamma(t)."""
        alpha, sigma = alpha_and_sigma(above)
        u = (z - sigma * self.denoiser(z, above)) / alpha
        return self.noising.between(u, z, below, above)


class RandomLayer(PyroModule):
    """The bound of a diffusion by one random layer of each datum: T times its KL has the sum over layers as mean.

        log w = log p(x | z_0) - KL(q(z_1 | x) || N(0, I)) - L(t),   z_0 ~ q(z_0 | x),   t ~ U(0, 1)
        discrete:    L = T/2 (e^(gamma(i / T) - gamma((i - 1) / T)) - 1) |e - eps(z_t)|^2,   i = ceil(t T)
        continuous:  L = 1/2 d gamma / dt |e - eps(z_t)|^2,   the limit T -> infinity
        z_t = alpha_t u + sigma_t e

    E log w is the ELBO of ``Diffusion`` with every layer, to be trained by ``ELBO()``. w itself is no importance
    weight: ``IWAE``, ``evaluate`` and all else of ours that is not linear in log w refuse it, and take the diffusion
    itself. Stock Pyro cannot know: its ``RenyiELBO`` returns a number that bounds nothing.
    t, z_0 and z_t are drawn in guide and model alike, and cancel. Where x is drawn, the diffusion draws it.

    With a ``MonotoneSchedule`` in continuous time, the shares of its pieces are trained to lower E L^2, and all else by
    the bound, which does not depend on them.

    Sites:
        t: shape (batch,), from 0 to 1; latent, spread evenly over a batch.
        z_0, z_t: shape (batch, dim), real; latent.
        layer: L(t) and the KL, as a factor.
        x: as for the diffusion.

    Args:
        model: the diffusion, whose parameters these are.
        continuous: take the limit of infinitely many layers.

    Raises:
        TypeError: ``model`` is no ``Diffusion``.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.

    Example:
        >>> from dlvm.distributions import Denoiser, LinearSchedule
        >>> from dlvm.nets import MLP
        >>> model = Diffusion(Noising(LinearSchedule(), 3), Denoiser(MLP(3 + 9, 16, 3)), layers=1000)
        >>> RandomLayer(model)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, model: Diffusion, continuous: bool = False):
        super().__init__("model")
        if not isinstance(model, Diffusion):
            raise TypeError(f"model must be a Diffusion, got {type(model).__name__}; it has the layers to draw from")
        self.model, self.layers = model, None if continuous else model.layers

    def extra_repr(self) -> str:
        return f"layers={self.layers or 'infinitely many'}"

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, dim), or None to draw.
            n: how many data to draw where x is None.

        Returns:
            x, shape (batch, dim).
        """
        if x is None:
            return self.model(n=n)
        noising = self.model.noising
        x = noising.rows(x)
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", SpreadUniform())
            z_0 = pyro.sample("z_0", noising(x, torch.zeros_like(t)))
            likelihood = noising.likelihood(z_0)
            above, rate, steady = noising.rate(t, self.layers)
            z = pyro.sample("z_t", noising.at(x, above))
            alpha, sigma = alpha_and_sigma(above)
            error = (z - alpha * noising.signal(x)) / sigma - self.model.denoiser(z, above)
            loss = rate * error.square().sum(-1)
            quiet = loss.detach().square() / loss.detach().mean().clamp_min(1e-12) * (steady - 1)
            term = EstimatedLog(-loss - quiet - noising.prior_kl(x))
            pyro.sample("layer", term, obs=x.new_empty(*term.batch_shape, 0), infer={"is_auxiliary": True})
            return pyro.sample("x", likelihood, obs=x)
