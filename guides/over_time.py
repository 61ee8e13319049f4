"""Latent sites over time: which they are, the guide of one step, and features of each step."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import NamedTuple, cast

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from dlvm.distributions.sequences.lengths import check_lengths, steps_within
from dlvm.distributions.supports import is_real
from dlvm.guides.amortized import Amortized, activation_of
from dlvm.guides.sites.latents import Latent

StepGuide = Callable[[Mapping[str, Latent], nn.Module], nn.Module]
NUMBERED = re.compile(r"(.+)_([1-9][0-9]*)")


class Steps(NamedTuple):
    """The latent sites of one step, and the name of the site that holds all steps, or None where each has its own."""

    sites: dict[str, Latent]
    whole: str | None


def of_steps(latents: Mapping[str, Latent]) -> Steps:
    """What a step of these latent sites has: ``z`` of shape (T, D), or ``z_1..z_T``, of one name or several.

    Raises:
        ValueError: sites are neither, differ from step to step, or are masked by an argument of bools.

    Example:
        >>> of_steps({"s_1": Latent(torch.Size([])), "z_1": Latent(torch.Size([3]))}).sites.keys()
        dict_keys(['s', 'z'])
    """
    if len(latents) == 1 and not NUMBERED.fullmatch(name := next(iter(latents))):
        latent = latents[name]
        if len(latent.shape) != 2 or not is_real(latent.support):
            raise ValueError(
                f"latent site {name!r} must be real with shape (T, D) to be drawn over time, got {tuple(latent.shape)} "
                f"and {latent.support}; take an amortised guide, as Diagonal, for a model without time, or sites "
                "z_1..z_T, which may have any support"
            )
        return Steps({name: Latent(torch.Size(latent.shape[1:]), plates=latent.plates)}, name)
    found: dict[int, dict[str, Latent]] = {}
    for name, latent in latents.items():
        parts = NUMBERED.fullmatch(name)
        if parts is None or latent.mask is not None:
            raise ValueError(
                f"latent site {name!r} is masked by an argument of bools, where steps are told by lengths; give the "
                "model lengths"
                if parts
                else f"latent site {name!r} does not lie over time beside {len(latents) - 1} others; a guide over time "
                "takes one site with a dimension of steps, or sites numbered from 1 on, as z_1..z_T"
            )
        found.setdefault(int(parts[2]), {})[parts[1]] = latent._replace(position=None)
    first = found.get(1, {})
    for t in range(1, max(found) + 1):
        alike = found.get(t, {})
        if list(alike) != list(first) or any(
            alike[n].shape != first[n].shape or str(alike[n].support) != str(first[n].support) for n in first
        ):
            raise ValueError(
                f"latent sites must be the same at each step, with numbers from 1 on, got {list(first)} at step 1 and "
                f"{list(alike)} at step {t}, or others of their shapes or supports; name them z_1..z_T"
            )
    return Steps(first, None)


def step_guide(family: StepGuide, sites: Mapping[str, Latent], net: nn.Module) -> Amortized:
    """The guide of one step.

    Raises:
        TypeError: ``family`` makes something else than a guide whose sites are drawn one by one from features.
    """
    remedy = "pass a guide with one family at each site: Diagonal, FullRank, IAF, or partial(IAF, depth=4)"
    if isinstance(family, nn.Module) or not callable(family):
        raise TypeError(f"family must make the guide of a step, got {family!r:.60}; {remedy}")
    try:
        guide = family(sites, net)
    except TypeError as error:
        raise TypeError(f"family must make the guide of a step from (latents, encoder): {error}; {remedy}") from error
    alike = ("forward", "draw", "features")
    if not isinstance(guide, Amortized) or any(getattr(type(guide), n) is not getattr(Amortized, n) for n in alike):
        raise TypeError(f"family must make the guide of a step, got {type(guide).__name__}; {remedy}")
    return guide


def combining(guide: Amortized) -> Callable[[Tensor, Tensor], Tensor]:
    """(the step before, h_t) -> the features of a step, by the guide's net.

    The net is looked up once: Pyro declares all parameters of a program's module whenever it is.
    """
    net = guide.encoder
    activation = activation_of(net)
    return net if isinstance(activation, nn.Identity) else lambda last, h: activation(net(last, h))


def first_posterior(guide: Amortized) -> Callable[[Tensor], TorchDistributionMixin]:
    """Features of a step -> q of its one site."""
    site, posterior = guide.sites[0], guide.posteriors[0]
    return lambda features: site.constrain(posterior(*guide.inputs(features, [])))


class StepPosterior:
    """(the last state, h_t) -> q(z_t | z_t-1, h_t) of a guide's one site, with its nets as they are now.

    Attributes:
        module: the guide of a step, whose function this is.
    """

    def __init__(self, guide: Amortized):
        self.module, self.combined, self.posterior = guide, combining(guide), first_posterior(guide)

    def __call__(self, last: Tensor, h: Tensor) -> TorchDistributionMixin:
        return self.posterior(self.combined(last, h))


def draw_steps(
    guide: Amortized, features: Callable[[Tensor, Tensor], Tensor], start: Tensor, h: Tensor, lengths: Tensor | None
) -> dict[str, Tensor]:
    """Draws the sites of each step in turn; returns {site: value}.

    Args:
        guide: of a step.
        features: (all values of the step before, h_t) -> features of a step.
        start: the values before the first step, shape (batch, S).
        h: features of the sequence at each step, shape (batch, T, H).
        lengths: how many steps count.
    """
    values: dict[str, Tensor] = {}
    within = None if lengths is None else steps_within(lengths, h.shape[1])
    last, sites = start, list(zip(guide.names, guide.sites, guide.posteriors, strict=True))
    for t in range(h.shape[1]):
        seen = features(last, h[:, t])
        before: list[Tensor] = []
        with nullcontext() if within is None else poutine.mask(mask=cast(torch.BoolTensor, within[:, t])):
            for name, site, posterior in sites:
                q = site.constrain(posterior(*guide.inputs(seen, before)))
                z = values[f"{name}_{t + 1}"] = pyro.sample(f"{name}_{t + 1}", q)
                before.append(site.flatten(z, q).to(h.dtype))
        last = torch.cat(before, -1)
    return values


def features_over_time(encoder: nn.Module, width: int, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor | None]:
    """h, shape (batch, T, H), and the lengths that the guide was called with.

    Raises:
        TypeError: the encoder returns no tensor, or lengths are no whole numbers.
        ValueError: there are no data, the encoder returns another shape, or lengths do not fit.
    """
    x, lengths = args[0] if args else next(iter(kwargs.values()), None), kwargs.get("lengths", (*args, None, None)[1])
    if x is None:
        raise ValueError("the guide's first argument is None: q(z | x) needs the sequences it is conditioned on")
    h = encoder(*args, **kwargs)
    if not isinstance(h, Tensor):
        raise TypeError(f"encoder returned {type(h).__name__}; expected a tensor, (batch, T, {width})")
    if h.dim() != 3 or h.shape[-1] != width or not h.numel():
        raise ValueError(
            f"encoder returned shape {tuple(h.shape)}; expected (batch, T, {width}), features of each step of each "
            "sequence, as Recurrent returns"
        )
    if lengths is not None:
        check_lengths(lengths, h.shape[1])
        if lengths.shape != h.shape[:1]:
            raise ValueError(f"lengths must have shape ({len(h)},), one for each sequence, got {tuple(lengths.shape)}")
    return activation_of(encoder)(h), lengths
