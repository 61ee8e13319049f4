"""Whether data can have come from the likelihood that they are scored under."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions.supports import is_fixed
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched

OTHER_SEED = 2_718_281


def check_rows(pair: Pair, args: tuple, kwargs: dict, observing: bool = True) -> poutine.Trace:
    """The model's trace on some data, with what it observes held against its likelihood, see ``check_observed``.

    Where it need not be ``observing``, all that it is called with may be given, as x is of p(y | x).
    """

    def run() -> poutine.Trace:
        with in_words("the model", args, kwargs):
            return poutine.trace(pair.model).get_trace(*args, **kwargs)

    trace = run()
    if observing or any(site["is_observed"] for site in sample_sites(trace)):
        check_observed(trace, run)
    return trace


def check_observed(trace: poutine.Trace, again: Callable[[], poutine.Trace] | None = None) -> None:
    """Holds every observed value of a model's trace against its own likelihood.

    Args:
        trace: of a model on data.
        again: makes another one, called where a value lies outside: a support that is then another one is made of
            latents, as the number of trials of a binomial, and holds for these draws alone.

    Raises:
        ValueError: nothing is observed, or a value has the wrong shape or lies outside the support.
    """
    observed = [site for site in sample_sites(trace) if site["is_observed"]]
    if not observed:
        raise ValueError(
            "model observes nothing when called with these arguments; pass data, and write obs=x at its site"
        )
    for site in observed:
        support = support_of(site["fn"])
        try:
            check_values(site["name"], site["value"], support, tuple(site["fn"].event_shape))
        except ValueError:
            other = None if again is None else again().nodes.get(site["name"])
            if other is None or _same_bounds(support, support_of(cast(TorchDistributionMixin, other["fn"]))):
                raise


def _same_bounds(a: object, b: object) -> bool:
    """Whether two supports, or bounds of them, are the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, constraints.Constraint) and type(a) is type(b):
        mine, theirs = vars(a), vars(b)
        return mine.keys() == theirs.keys() and all(_same_bounds(mine[name], theirs[name]) for name in mine)
    return a is b or a == b


def support_of(likelihood: TorchDistributionMixin) -> constraints.Constraint | None:
    """The support of a distribution; None where it states none that values can be held against."""
    try:
        support = likelihood.support
    except (NotImplementedError, AttributeError):
        return None
    return None if constraints.is_dependent(support) else support


def check_values(
    name: str, value: Tensor, support: constraints.Constraint | None, event_shape: tuple[int, ...]
) -> None:
    """Raises ValueError unless ``value``, shape (*batch, *event_shape), lies in ``support``; None takes any value."""
    if not isinstance(value, Tensor):
        raise TypeError(f"observed site {name!r} needs a tensor, got {type(value).__name__}; pass torch.as_tensor(x)")
    got = tuple(value.shape[value.dim() - len(event_shape) :])
    if got != event_shape:
        raise ValueError(
            f"observed site {name!r} has events of shape {event_shape} under the likelihood, but the data have shape "
            f"{tuple(value.shape)}; make the likelihood's width that of the data"
        )
    if support is None or support.check(value).all():
        if value.is_floating_point() and value.isinf().any():
            raise ValueError(
                f"observed site {name!r} holds infinite values, which have no density; remove these data, or limit them"
            )
        return
    single = _elementwise(support)
    outside = value if single is None else value[~single.check(value)]
    raise ValueError(
        f"observed site {name!r} holds values outside its likelihood's support {single or support}, such as "
        f"{outside.flatten()[:3].tolist()}; the likelihood cannot have produced them: binarise grey levels for a "
        f"Bernoulli (binarize='dynamic'), {_of_nan(value)}or choose a likelihood for such data"
    )


def _of_nan(value: Tensor) -> str:
    """What to do with NaN, where there is any."""
    there = value.is_floating_point() and value.isnan().any()
    return "remove NaN, or where it stands for missing numbers take Missing(likelihood), " if there else ""


def _elementwise(support: constraints.Constraint) -> constraints.Constraint | None:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support if support.event_dim == 0 else None


def _same_for_all(support: constraints.Constraint | None, rank: int) -> bool:
    return support is None or is_fixed(support, rank)


class DataCheck:
    """Holds batches against the supports of the sites that observe them.

    Where a site observes an argument as it is, and its support is the same for all data, only numbers are compared;
    otherwise the model runs on the batch. What observes what is found once for each shape of a datum: sequences are as
    long as the longest of their batch.

    Args:
        pair: of which the model runs.
        first: the arguments of one batch, which find out what observes what.
    """

    def __init__(self, pair: Pair, first: tuple):
        self.pair, self.kinds = pair, [type(value) for value in first]
        self.found = {_steps(first): self._look(first)}

    def __call__(self, args: tuple) -> None:
        """Raises ValueError where a batch has the wrong width, or values that the likelihood cannot have produced."""
        if [type(value) for value in args] != self.kinds:  # then the model may observe something else
            check_observed(_traced(self.pair, args))
            return
        if (steps := _steps(args)) not in self.found:
            self.found[steps] = self._look(args)
        watched, runs = self.found[steps]
        for name, (position, support, event_shape) in watched.items():
            check_values(name, args[position], support, event_shape)
        if runs:
            check_observed(_traced(self.pair, args), partial(_traced, self.pair, args, OTHER_SEED))

    def _look(self, args: tuple) -> tuple[dict[str, tuple[int, constraints.Constraint | None, tuple[int, ...]]], bool]:
        """Which sites observe which arguments, and whether the model has to run for others."""
        observed = [site for site in sample_sites(_traced(self.pair, args)) if site["is_observed"]]
        watched = {
            site["name"]: (position, support, tuple(site["fn"].event_shape))
            for site in observed
            for position, value in enumerate(args)
            if value is site["value"] and _same_for_all(support := support_of(site["fn"]), len(site["fn"].event_shape))
        }
        return watched, len(watched) < len(observed)


def _steps(args: tuple) -> tuple[int, ...]:
    """How long the data of a batch are, where they may differ from batch to batch: of sequences and tokens."""
    return tuple(value.shape[1] for value in args if isinstance(value, Tensor) and value.dim() > 2 or _tokens(value))


def _tokens(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point()


def _traced(pair: Pair, args: tuple, seed: int | None = None) -> poutine.Trace:
    with untouched(seed), torch.no_grad(), pair.evaluating():
        with in_words("the model", args, {}):
            return prune_subsample_sites(poutine.trace(pair.model).get_trace(*args))
