"""Training of random weights by the noise of what layers give, which every datum has of its own."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.distributions import kl_divergence

from dlvm.distributions.data_plates import StandingFor
from dlvm.distributions.diffusion.random_layer import EstimatedLog
from dlvm.distributions.supports import inner
from dlvm.guides import FullyObserved
from dlvm.guides.with_globals import WithGlobals
from dlvm.models.bayesian import Bayesian

Moments = dict[str, tuple[Tensor, Tensor]]  # {site: mean and standard deviation of its weights}


class LocallyReparametrised(nn.Module):
    """A Bayesian model under its mean-field q(w), whose linear layers draw what they give instead of their weights.

        a = W x + b,  W, b ~ q   ->   a_j ~ N(m_j x + m_bj, s_j^2 x^2 + s_bj^2),  each datum by itself
        E [ N / M sum_m log p(x_m | a_m) ] - KL(q(w) || p(w))

    The ELBO of this program and a guide of the local latents is that of the pair in expectation, and so is its gradient
    with respect to both; the noise of data in a batch is not shared, so that it averages out. A model with noise of its
    own: particles are drawn one after the other. Weights that are not of a linear layer are drawn as ever, once for all
    data. It is for training by ``ELBO()``, and all else is refused: what a datum's draws of its own are worth is no
    log-weight. For new data take ``posterior_predictive`` of the pair, whose modules these are.

    Sites:
        those of the model without its weights, and the factor weights, -KL(q(w) || p(w)), outside the plate.

    Args:
        model: with random weights, under normal priors.
        guide: of the model, its weights by ``AutoNormal``.

    Raises:
        TypeError: ``model`` is no ``Bayesian``, or ``guide`` no ``WithGlobals`` with an ``AutoNormal``.
        ValueError: a prior is no Normal, no random weight belongs to a linear layer, or several layers share one; when
            called, a layer is called more than once, or its rows are not the data.

    References:
        Variational Dropout and the Local Reparameterization Trick, Kingma, Salimans, Welling, 2015, arXiv:1506.02557.

    Example:
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.inference import ELBO
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(nn.Linear(4, 3))), num_data=5)
        >>> batch = torch.zeros(5, 4), torch.zeros(5).long()
        >>> program, local = locally_reparametrised(model, WithGlobals(None, model, AutoNormal, *batch))
        >>> ELBO().loss(program, local, *batch) > 0
        True
    """

    def __init__(self, model: Bayesian, guide: WithGlobals):
        super().__init__()
        if not isinstance(model, Bayesian):
            raise TypeError(f"model must be Bayesian(model, num_data), got {type(model).__name__}; make it one")
        if not isinstance(guide, WithGlobals) or type(guide.shared) is not AutoNormal:
            shared = type(guide.shared if isinstance(guide, WithGlobals) else guide).__name__
            raise TypeError(
                f"guide must be WithGlobals(local, model, AutoNormal, x), got {shared}: of weights that depend on one "
                "another layers have no noise of their own; take AutoNormal"
            )
        for site, fn in model.priors().items():
            if not isinstance(inner(fn), torch.distributions.Normal):
                raise ValueError(
                    f"model must have normal priors, of which the KL is known, got {type(inner(fn)).__name__} for "
                    f"{site!r}; give it another, or train the pair as it is"
                )
        self.bayesian, self.shared = model, guide.shared
        self.layers = _linear_layers(model)

    @property
    def program_signature(self) -> inspect.Signature:
        """That of the model, whose arguments this program takes."""
        return self.bayesian.program_signature

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program, with the model's own arguments; returns what it returns."""
        q: Moments = {site: self.shared._get_loc_and_scale(site) for site in self.bayesian.places}
        priors = {site: inner(fn) for site, fn in self.bayesian.priors().items()}
        each = [kl_divergence(torch.distributions.Normal(*q[site]), prior).sum() for site, prior in priors.items()]
        total = -torch.stack(each).sum()  # beside noise of each datum's own: a bound in expectation, and no log-weight
        pyro.sample("weights", EstimatedLog(total), obs=total.new_empty(0), infer={"is_auxiliary": True})
        by_layer = {site for sites in self.layers.values() for site in sites.values()}
        held = {
            site: loc if site in by_layer else loc + scale * torch.randn_like(loc) for site, (loc, scale) in q.items()
        }
        rows = next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with (
            self.bayesian.holding(held),
            self._noisy(q, rows),
            StandingFor(self.bayesian.plate, self.bayesian.num_data),
        ):
            return self.bayesian.model(*args, **kwargs)

    @contextmanager
    def _noisy(self, q: Moments, rows: int) -> Iterator[None]:
        """Inside, layers whose weights are means add the noise that these leave out."""
        calls: Counter[str] = Counter()
        handles = []
        for path, sites in self.layers.items():
            spread = {name: q[site][1] for name, site in sites.items()}
            layer = self.bayesian.model.get_submodule(path)
            handles.append(layer.register_forward_hook(partial(_with_noise, path, spread, rows, calls)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def locally_reparametrised(model: Bayesian, guide: WithGlobals) -> tuple[LocallyReparametrised, Callable]:
    """The pair whose steps train a Bayesian pair with less noise: see ``LocallyReparametrised``.

    Returns:
        model and guide, which hold the parameters of those given.

    Args:
        model: with random weights.
        guide: of the model, its weights by ``AutoNormal``.

    Raises:
        TypeError, ValueError: as ``LocallyReparametrised``.

    Example:
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(nn.Linear(4, 3))), num_data=5)
        >>> batch = torch.zeros(5, 4), torch.zeros(5).long()
        >>> guide = WithGlobals(None, model, AutoNormal, *batch)
        >>> [type(program).__name__ for program in locally_reparametrised(model, guide)]
        ['LocallyReparametrised', 'FullyObserved']
    """
    program = LocallyReparametrised(model, guide)
    return program, FullyObserved() if guide.local is None else _LocalPart(guide.local, model)


class _LocalPart(nn.Module):
    """The guide of the local latents, in a plate whose batch stands for all data, as the model's does."""

    def __init__(self, local: Callable, model: Bayesian):
        super().__init__()
        self.local, self.plate, self.num_data = local, model.plate, model.num_data

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with StandingFor(self.plate, self.num_data, shown=False):
            return self.local(*args, **kwargs)


def _linear_layers(model: Bayesian) -> dict[str, dict[str, str]]:
    """{path of a linear layer: {name of its parameter: site}}."""
    found: dict[str, dict[str, str]] = {}
    for site, places in model.places.items():
        linear = [(path, name) for path, name in places if isinstance(model.model.get_submodule(path), nn.Linear)]
        if linear and len(places) > 1:
            raise ValueError(
                f"model has {len(places)} layers that share the weights {site!r}, whose noise is one; train the pair "
                "as it is"
            )
        for path, name in linear:
            found.setdefault(path, {})[name] = site
    if not found:
        raise ValueError(
            "model has no random weights of a linear layer, and nothing to draw locally; train it as it is"
        )
    return found


def _with_noise(
    path: str, spread: dict[str, Tensor], rows: int, calls: Counter, layer: nn.Linear, inputs: tuple, output: Tensor
) -> Tensor:
    """What the layer gives, with the noise of its weights."""
    (x,) = inputs
    calls[path] += 1
    if calls[path] > 1 or x.dim() < 2 or x.shape[-2] not in (1, rows):
        said = "is called more than once" if calls[path] > 1 else f"gets shape {tuple(x.shape)} for {rows} data"
        raise ValueError(
            f"model has the layer {path!r}, which {said}: its weights are the same each time, and noise of each call's "
            "own would be another model's; train the pair as it is"
        )
    variance = torch.zeros_like(output)
    if "weight" in spread:
        variance = variance + nn.functional.linear(x.square(), spread["weight"].square())
    if "bias" in spread:
        variance = variance + spread["bias"].square()
    return output + variance.clamp_min(torch.finfo(output.dtype).tiny).sqrt() * torch.randn_like(output)
