"""What a Bayesian model says of new data, as a pair of programs like any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.guides import FullyObserved
from dlvm.guides.with_globals import WithGlobals
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched
from dlvm.models.bayesian import Bayesian
from dlvm.nets.arguments import count


class PosteriorPredictive(nn.Module):
    """A Bayesian model after training: its weights are drawn from q(w) anew at each run, and are no sites.

        p(x', z | D) ~ int q(w) p(x', z | w) dw

    A program with noise of its own, which log p(x' | D) has integrated out: whatever estimates log p(x) by K particles
    draws weights for each, one particle after the other. It takes any number of data. ``predict`` of a site that is
    not given draws it under other weights than it is weighed by, right but with few effective particles: there
    ``given_weights`` is better.

    Sites:
        those of the model without its weights.

    Args:
        model: with the prior that its guide was trained under.
        shared: the guide of its weights, an ``AutoGuide``.

    Raises:
        TypeError: ``model`` is no ``Bayesian``, or ``shared`` no module.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(nn.Linear(4, 3))), num_data=5)
        >>> x, y = torch.zeros(5, 4), torch.zeros(5).long()
        >>> guide = WithGlobals(None, model, AutoNormal, x, y)
        >>> PosteriorPredictive(model, guide.shared)(torch.zeros(7, 4)).shape
        torch.Size([7])
    """

    def __init__(self, model: Bayesian, shared: nn.Module):
        super().__init__()
        if not isinstance(model, Bayesian):
            raise TypeError(
                f"model must be Bayesian(model, num_data), got {type(model).__name__}; make it one, or give "
                "its global sites values by poutine.condition"
            )
        if not isinstance(shared, nn.Module):
            raise TypeError(f"shared must be the guide of the weights, got {type(shared).__name__}; pass guide.shared")
        self.bayesian, self.shared = model, shared

    @property
    def program_signature(self) -> inspect.Signature:
        """That of the model, whose arguments this program takes."""
        return self.bayesian.program_signature

    @torch.no_grad()
    def given_weights(self, site: str, *args: Any, num_weights: int = 100, seed: int = 0) -> Iterator[Any]:
        """p(site | x, w) for so many draws of the weights: an equal mixture of these is the prediction.

        For a site whose distribution is made of the arguments and the weights alone, as y of p(y | x, w).

        Args:
            site: its name.
            *args: of the program, with None for what is to be predicted.
            num_weights: how many draws.
            seed: of the draws.

        Raises:
            ValueError: there is no such site, or the model draws others before it.
        """
        count(num_weights=num_weights)
        program = own(self)
        with untouched(seed):
            for _ in range(num_weights):
                with poutine.block(), poutine.trace() as traced:
                    program(*args)
                drawn = [node["name"] for node in sample_sites(traced.trace)]
                if drawn != [site]:
                    raise ValueError(
                        f"site must be the one that the model has, got {site!r} where it has {drawn}; use predict() of "
                        "dlvm.inference on the pair"
                    )
                yield traced.trace.nodes[site]["fn"]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program, with the model's own arguments; returns what it returns."""
        with self.bayesian.holding(draw_weights(self.bayesian, self.shared, args, kwargs)):
            return self.bayesian.model(*args, **kwargs)


def posterior_predictive(model: Bayesian, guide: WithGlobals) -> tuple[PosteriorPredictive, Callable]:
    """The pair for data to come, p(x' | D), of a trained Bayesian pair.

        log p(x' | D) ~ log E_q(w) [ p(x' | w) ]

    Exactly the prediction of q(w), and of the posterior as far as q(w) is that. ``evaluate``, ``log_px``, ``predict``,
    ``generate``, evidence take it as any pair, each particle with weights of its own: nats per datum are of one datum
    given the training data, and need no share of KL(q(w) || p(w)). Modules are shared with the pair that was trained.

    Returns:
        model and guide, of all sites that each datum has of its own.

    Args:
        model: with random weights.
        guide: as trained.

    Raises:
        TypeError: the model is no ``Bayesian``, or the guide no ``WithGlobals``.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.inference import evaluate
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(nn.Linear(4, 3))), num_data=5)
        >>> batch = torch.zeros(5, 4), torch.zeros(5).long()
        >>> guide = WithGlobals(None, model, AutoNormal, *batch)
        >>> evaluate(*posterior_predictive(model, guide), [batch], num_particles=10).num_data
        5
    """
    if not isinstance(guide, WithGlobals):
        raise TypeError(
            f"guide must be WithGlobals(local, model, family, x), got {type(guide).__name__}; make it one, or give the "
            "model's global sites values by poutine.condition"
        )
    local = FullyObserved() if guide.local is None else guide.local
    return PosteriorPredictive(model, guide.shared), local


def draw_weights(model: Bayesian, shared: Callable, args: tuple = (), kwargs: dict | None = None) -> dict[str, Tensor]:
    """{site: weights} drawn from q(w), unseen by handlers outside."""
    with poutine.block():
        found = shared(*args, **(kwargs or {}))
    return {site: found[site] for site in model.places}
