"""Random weights as scripts have them: which layers, under which prior, and what q(w) is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

from pyro.infer.autoguide import (
    AutoDelta,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.infer.autoguide.initialization import init_to_value
from torch import nn

from dlvm.evidence import laplace, locally_reparametrised, posterior_predictive
from dlvm.evidence.weights.laplace import MOST
from dlvm.experiments.data import Loader
from dlvm.experiments.options.guides import own
from dlvm.guides import Latent, WithGlobals, local_sites
from dlvm.guides.sites.latents import Plate
from dlvm.inference.console import say
from dlvm.models import Bayesian, FanIn

WeightsWord = Literal["normal", "low_rank", "full_rank", "normal_local", "laplace", "point"]
FAMILIES: dict[str, Callable] = {
    "normal": AutoNormal,
    "normal_local": AutoNormal,
    "low_rank": partial(AutoLowRankMultivariateNormal, rank=5),
    "full_rank": AutoMultivariateNormal,
    "laplace": AutoDelta,
    "point": AutoDelta,
}
POINTS = ("laplace", "point")
START = 0.02  # standard deviation of q(w)
WEIGHTS_HELP = (
    "q(w): normal, each weight by itself; normal_local, the same, trained by the noise of what layers give instead of "
    "that of their weights; low_rank, full_rank; laplace, full rank by the curvature at the maximum a posteriori; or "
    "point, that maximum. Of the last two training's numbers are log p(D, w) per datum and no bound on log p(D)."
)
NO_BOUND = (
    "weights are a point: training's numbers are log p(D, w) per datum, a density of the weights and no bound on "
    "log p(D); what is reported of test data is log p(x | w) at that point"
)
NO_BOUND_YET = (
    "weights are a point until training ends: its numbers are log p(D, w) per datum, a density of the weights and no "
    "bound on log p(D); what is reported of test data is by draws of Laplace's q(w)"
)


class RandomWeights:
    """What a setup whose model has random weights does otherwise than others; ``weights`` is among its fields.

    The pair that is reported and kept is that of data to come, p(x' | D): see ``posterior_predictive``.
    """

    weights: WeightsWord

    def guided(self, model: nn.Module, sites: Mapping[str, Any], family: Callable, data: Loader, net: nn.Module) -> Any:
        """q(w), and q(z | x) of the family where the model has latents of each datum."""
        if not isinstance(model, Bayesian):
            raise TypeError(f"model must be Bayesian(model, num_data), got {type(model).__name__}")
        if family is own:
            raise ValueError("guide must be a family, as diagonal, for a model without a guide of its own, got own")
        if self.weights in POINTS:
            say(NO_BOUND if self.weights == "point" else NO_BOUND_YET)
        within = {name: _plain(site) for name, site in local_sites(sites).items()}
        if within and self.weights == "laplace":
            raise ValueError(
                f"weights must be no laplace for a model with latents of each datum, {[*within]}; take normal"
            )
        return WithGlobals(family(within, net) if within else None, model, self._family(model), *data.examples)

    def trained(self, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The pair itself, or that with the noise of what its layers give."""
        if self.weights != "normal_local":
            return model, guide
        found: tuple[Any, Any] = locally_reparametrised(cast(Any, model), cast(Any, guide))  # as ``guided`` made them
        return found

    def evaluated(self, model: nn.Module, guide: nn.Module, data: Loader) -> tuple[nn.Module, nn.Module]:
        """The pair of data to come; by Laplace's method with a q(w) that ``settled`` finds."""
        program, q = cast(Any, model), cast(Any, guide)  # as ``guided`` made them
        if self.weights == "laplace":
            refuse_more(program, self.weights)
            q = WithGlobals(None, program, AutoMultivariateNormal, *data.examples)
        found: tuple[Any, Any] = posterior_predictive(program, q)
        return found

    def settled(self, model: nn.Module, guide: nn.Module, judged: tuple[nn.Module, nn.Module], data: Loader) -> None:
        """Finds the q(w) of Laplace's method at the point that was trained, and says log p(D) by it."""
        if self.weights != "laplace":
            return
        found = laplace(cast(Any, model), cast(Any, guide), data)
        cast(Any, judged[0]).shared.load_state_dict(found.guide.shared.state_dict())
        say(f"log p(D) by Laplace's method: {found.log_evidence / found.num_data:.3f} nats per datum, no bound")

    def _family(self, model: Bayesian) -> Callable:
        if self.weights == "full_rank":
            refuse_more(model, self.weights)
        start = init_to_value(values={site: value.clone() for site, value in model.starts.items()})
        scale = {} if self.weights in POINTS else {"init_scale": START}
        return partial(FAMILIES[self.weights], init_loc_fn=start, **scale)


def refuse_more(model: Bayesian, word: str) -> None:
    """Raises ValueError for more weights than have a covariance of their own."""
    number = sum(value.numel() for value in model.starts.values())
    if number > MOST:
        raise ValueError(
            f"weights must be normal, low_rank or point for more than {MOST} weights, of which the covariance has "
            f"the square, got {word} for {number}; or let fewer layers be random, by --last-layer"
        )


def bayesian(model: nn.Module, data: Loader, prior_scale: float, last_layer: bool = False) -> Bayesian:
    """A model with random weights in its layers, or in the last.

    Args:
        model: taken over.
        data: for training, how many there are.
        prior_scale: of ``FanIn``.
        last_layer: whether the other layers have parameters, as ever.
    """
    layers = [
        path for path, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]
    return Bayesian(model, data.num_data, FanIn(prior_scale), layers[-1:] if last_layer else layers)


def _plain(site: Latent) -> Latent:
    """A site in a plate of its batch, whatever that stands for, so that a guide takes any number of data."""
    return site._replace(plates=tuple(Plate(plate.name, plate.dim) for plate in site.plates))
