"""A mixture of components of one kind: what all kinds share, its exact answers and the two steps of EM."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.categorical import OneHotDraws
from dlvm.models.arguments import fitting, size
from dlvm.nets.arguments import count

EMPTY = 1e-3  # data; a component of less has lost all that could tell it from others


class Mixture(PyroModule):
    """One component for each datum, chosen by chance; every answer is known. A kind of component adds what p_k is.

        p(x, z) = prod_k [weight_k p_k(x)]^z_k,   z one-hot

    z is marked to be summed out, exactly, wherever a guide leaves it out. log p(x | z) is linear in z, so that a
    relaxed z has a density as well.

    Sites:
        z: shape (batch, components), one-hot; latent.
        x: shape (batch, x_dim), where the components have their support; observed, or drawn where ``x=None``.

    Args:
        components: how many.
        x_dim: number of observed variables.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    References:
        Maximum Likelihood from Incomplete Data via the EM Algorithm, Dempster, Laird, Rubin, 1977.
    """

    support: constraints.Constraint = constraints.real_vector

    def __init__(self, components: int, x_dim: int):
        super().__init__("model")
        count(components=components, x_dim=x_dim)
        self.components, self.x_dim = components, x_dim
        self.logits = nn.Parameter(torch.zeros(components))

    # What a kind of component says

    def log_components(self, x: Tensor) -> Tensor:
        """log p_k(x), shape (batch, components), for x of shape (batch, x_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must say log p_k(x) of its components")

    def draw_of(self, index: Tensor) -> Tensor:
        """A draw of each of these components, shape (*batch, x_dim), for numbers of components, shape (*batch)."""
        raise NotImplementedError(f"{type(self).__name__} must say how its components are drawn")

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each variable under each component, shapes (components, x_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must say the means and variances of its components")

    def component_statistics(self, x: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """What ``maximise_components`` needs, summed over data; shares: of components in data, (batch, components)."""
        raise NotImplementedError(f"{type(self).__name__} must say what its components need of data")

    def maximise_components(self, statistics: dict[str, Tensor]) -> None:
        """Moves the components' parameters to where the expected log p(x, z) is highest."""
        raise NotImplementedError(f"{type(self).__name__} must say where its components are best")

    def start_components(self, x: Tensor, chosen: Tensor) -> None:
        """Lets the components start from data, shape (n, x_dim), and from some of them, (components, x_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must say where its components start")

    # What all kinds share

    @property
    def weights(self) -> Tensor:
        """p(z), shape (components,)."""
        return self.logits.softmax(-1)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        """Runs the program; see ``VAE.forward``."""
        with pyro.plate("data", size(x, n)):
            z = pyro.sample("z", OneHotDraws(logits=self.logits), infer={"enumerate": "parallel"})
            likelihood = Component(self, z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def guide(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The exact posterior as a program: every log-weight is log p(x)."""
        with pyro.plate("data", size(x, 1)):
            return pyro.sample("z", self.posterior(x))

    def log_px(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (batch,), for x of shape (batch, x_dim)."""
        return self.log_joint(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> OneHotDraws:
        """Exact p(z | x), the components' shares in each datum, batch shape (batch,), for x of shape (batch, x_dim)."""
        return OneHotDraws(logits=self.log_joint(x))

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z) for each z, shape (batch, components), for x of shape (batch, x_dim).

        Raises:
            ValueError: x has another shape or type, or values that no component can have produced.
        """
        if not isinstance(x, Tensor) or x.shape[1:] != (self.x_dim,) or not len(x) or x.dtype != self.logits.dtype:
            got = f"{tuple(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"x must have shape (batch, {self.x_dim}) and be {self.logits.dtype}, got {got}; one datum is x[None]"
            )
        inside = self.support.check(x)
        if not inside.all() or x.isinf().any():
            raise ValueError(
                f"x must lie in the components' support, {self.support}, got {int((~inside).sum())} data that do not, "
                "or infinite ones; fill NaN in, binarise greys for a Bernoulli, or take another kind of component"
            )
        return self.logits.log_softmax(-1) + self.log_components(x)

    @torch.no_grad()
    def expected_statistics(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data: log p(x) of each, shape (batch,), and sums over data that ``maximise`` takes."""
        log_joint = self.log_joint(x)
        shares = log_joint.softmax(-1)
        return log_joint.logsumexp(-1), {"counts": shares.sum(0), **self.component_statistics(x, shares)}

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: the parameters of highest expected log p(x, z), given the statistics of all data.

        Raises:
            ValueError: there are fewer data than components, one is left without data, or is singular.
        """
        counts = statistics["counts"]
        if (number := round(counts.sum().item())) < self.components:
            raise ValueError(f"{number} data cannot tell {self.components} components apart; give fewer components")
        if counts.min() < EMPTY:
            raise ValueError(
                f"component {counts.argmin().item()} of {self.components} explains {counts.min():.2g} data, and is "
                "empty: start elsewhere, as by start_at(x) under another seed, or give fewer components"
            )
        self.maximise_components(statistics)
        self.logits.copy_((counts / counts.sum()).log())

    @torch.no_grad()
    def start_at(self, x: Tensor) -> Mixture:
        """Starts at data: components at some that lie far apart, drawn by k-means++, with equal weights.

        Args:
            x: shape (n, x_dim), a sample of the data.

        Returns:
            the mixture itself.

        Raises:
            ValueError: there are fewer different data than components; as ``log_joint``.

        References:
            k-means++: The Advantages of Careful Seeding, Arthur, Vassilvitskii, 2007.
        """
        self.log_joint(x)
        chosen = [x[torch.randint(len(x), (), device=x.device)]]
        nearest = x.new_full((len(x),), torch.inf)
        for _ in range(1, self.components):
            away = x - chosen[-1]
            nearest = torch.minimum(nearest, torch.linalg.vecdot(away, away))
            if not nearest.sum() > 0:
                raise ValueError(
                    f"x has {len(chosen)} different data for {self.components} components to start at; give fewer "
                    "components or more data"
                )
            chosen.append(x[nearest.multinomial(1).squeeze()])
        self.logits.zero_()
        self.start_components(x, torch.stack(chosen))
        return self


class Component(dist.TorchDistribution):
    """p(x | z) of a mixture, as it is at a one-hot z; log p is linear in z.

    Args:
        mixture: whose components they are.
        z: shape (*batch, components).
        validate_args: as in every Pyro distribution.
    """

    arg_constraints: dict = {}

    def __init__(self, mixture: Mixture, z: Tensor, validate_args: bool | None = None):
        self.mixture, self.z = mixture, z
        super().__init__(z.shape[:-1], torch.Size([mixture.x_dim]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return self.mixture.support

    @property
    def mean(self) -> Tensor:
        return self.z @ self.mixture.moments()[0]

    @property
    def variance(self) -> Tensor:
        return self.z @ self.mixture.moments()[1]

    def expand(self, batch_shape: Sequence[int], _instance: Component | None = None) -> Component:
        z = self.z.expand(*batch_shape, self.z.shape[-1])
        return Component(self.mixture, z, validate_args=self._validate_args)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return self.mixture.draw_of(self.z.argmax(-1).expand(*sample_shape, *self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        rows = value.reshape(-1, value.shape[-1]).to(self.mixture.logits.dtype)  # bits may be of any type
        each = self.mixture.log_components(rows).unflatten(0, value.shape[:-1])
        return (self.z * each).sum(-1)
