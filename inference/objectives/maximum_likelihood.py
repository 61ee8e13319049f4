"""Maximum likelihood of models without latent sites, and priors on parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.objectives.aided import Aided
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.rate_control import data_count
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.modules import module_of
from dlvm.nets.arguments import is_count


class MaximumLikelihood(Objective):
    """log p(x) of a model that observes everything.

        sum_i log p(x_i)

    log p(x) itself, without any bound; the guide draws nothing, as ``lambda *args: None``.

    Raises:
        ValueError: when used, the model has latent sites.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.6, arXiv:1906.02691.
    """

    def __init__(self) -> None:
        super().__init__(Bound(_only, side="exact", linear=True))

    def _settings(self) -> list[str]:
        return []

    def require(self, particles: Particles) -> None:
        if particles.drawn:
            raise ValueError(
                f"MaximumLikelihood needs a model that observes everything, but {list(particles.terms)} are latent; "
                "use ELBO() or IWAE(), or sum discrete sites out with TraceEnum_ELBO"
            )


def _only(log_w: Tensor) -> Tensor:
    return log_w[0]


Prior = TorchDistributionMixin


def MAP(objective: Objective, prior: Prior | Mapping[str, Prior], num_data: int) -> Aided:
    """Adds the log-density of a prior on the model's parameters while training.

        bound + log p(theta),   counted once for all data: a batch of n has n / num_data of it

    What is reported stays the objective's own bound, so that it compares with runs without a prior.

    Returns:
        an objective.

    Args:
        objective: any of ours, ``MaximumLikelihood()`` for instance, aided ones included.
        prior: a distribution over single numbers, taken for each parameter of the model, ``Normal(0.0, 1.0)`` for
            weight decay; or {pattern: distribution} by parameters' names, as {"likelihood.*": Normal(0.0, 1.0)}. For a
            PyroParam it is the density at its constrained value.
        num_data: size of the whole data set.

    Raises:
        TypeError: ``prior`` is no distribution, or ``objective`` none of ours.
        ValueError: ``num_data`` is below 1; when used, the model is no module or has no parameter that a pattern names.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, appendix A.2.1, arXiv:1906.02691.
    """
    return Aided(objective, PriorOnParameters(prior, num_data))


class PriorOnParameters(nn.Module):
    """The aid of ``MAP``."""

    name = "MAP"

    def __init__(self, prior: Prior | Mapping[str, Prior], num_data: int):
        super().__init__()
        self.priors = dict(prior) if isinstance(prior, Mapping) else {"*": prior}
        for found in self.priors.values():
            if not isinstance(found, Prior) or found.event_dim or found.batch_shape.numel() != 1:
                raise TypeError(f"prior must be a distribution over single numbers, as Normal(0.0, 1.0), got {found!r}")
        if not self.priors or not all(isinstance(pattern, str) for pattern in self.priors):
            raise ValueError(f"prior must name parameters, as {{'likelihood.*': Normal(0.0, 1.0)}}, got {prior!r}")
        if not is_count(num_data):
            raise ValueError(f"num_data must be a positive integer, the size of the data set, got {num_data!r}")
        self.num_data = num_data

    def __repr__(self) -> str:
        return f"prior={self.priors!r}, num_data={self.num_data}"

    def accept(self, objective: Objective) -> None:
        """Any objective can have a prior."""

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        share = data_count(particles) / self.num_data
        return objective.surrogate(particles, value) + share * self.log_prior(particles.programs.pair.model)

    def log_prior(self, model: Callable) -> Tensor:
        """log p(theta) of a model that is a module; a 0-d tensor in nats."""
        if (module := module_of(model)) is None:
            raise ValueError("MAP needs a model that is a module, so that its parameters have names")
        named = [_constrained(module, name, p) for name, p in module.named_parameters() if p.requires_grad]
        parts = []
        for pattern, prior in self.priors.items():
            chosen = [p for name, p in named if fnmatchcase(name, pattern)]
            if not chosen:
                raise ValueError(f"prior names {pattern!r}, but the trainable parameters are {[n for n, _ in named]}")
            parts += [prior.log_prob(p).sum() for p in chosen]
        return sum(parts[1:], parts[0])


def _constrained(module: nn.Module, name: str, parameter: Tensor) -> tuple[str, Tensor]:
    """A parameter's name and value, those of a PyroParam as its owner wrote them."""
    path, _, last = name.rpartition(".")
    bare = last.removesuffix("_unconstrained")
    owner = module.get_submodule(path)
    if bare == last or bare not in getattr(owner, "_pyro_params", {}):
        return name, parameter
    return f"{path}.{bare}".lstrip("."), getattr(owner, bare)
