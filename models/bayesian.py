"""Any model with random weights: its parameters become latent sites that all data share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions.data_plates import StandingFor
from dlvm.models.weight_priors import positive
from dlvm.nets.arguments import count, module
from dlvm.nets.particle_linear import for_particles

Prior = Callable[[str, Tensor], Any]


class Bayesian(PyroModule):
    """A model whose weights have a prior, and with it a posterior: full variational Bayes.

        p(w) prod_n p(z_n | w) p(x_n | z_n, w),   w for all or some parameters of the model

    A batch of M data stands for all ``num_data`` of them: what lies in the plate over data counts N / M times, the
    prior of the weights once, so that the mean over an epoch's batches is the bound on log p(x_1, ..., x_N),

        E_q [ log p(w) - log q(w) + N / M sum_m ( log p(x_m, z_m | w) - log q(z_m | x_m) ) ]

    which the engine reports per datum, as 1 / N of it. The model is taken over: the parameters in question are removed
    from its modules, where the values drawn stand in their place while it runs. Linear layers take the weights of all
    particles at once; with any other layer particles run one after the other. Its guide is
    ``WithGlobals(local, model, AutoNormal, x)``, or with ``AutoDelta`` in place of ``AutoNormal``, which is MAP:
    its objective is log p(x, w), a density of the weights and no bound.

    Sites:
        those of the model, and before them one for each parameter, of its name and shape, outside the plate.

    Args:
        model: a Pyro program that is a module, with a plate over data.
        num_data: N, how many data there are for training; a batch has no more.
        prior: of the weights, standard deviation of N(0, prior^2) for each; or (name, value at the start) ->
            distribution of that shape, as ``FanIn()``. A module's own parameters are learned.
        only: names of parameters or of modules that hold them, as "likelihood.net.layers.2"; all unless told.
        plate: name of the plate over data.

    Raises:
        ValueError: ``num_data`` is below 1, ``prior`` is not positive or of another shape, there is no parameter of
            these names; when called, a batch holds more data than ``num_data``.
        TypeError: ``model`` is no module, or a recurrent one is to have random weights.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, appendix F, arXiv:1312.6114.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.6.3, arXiv:1906.02691.

    Example:
        >>> import torch
        >>> from dlvm.distributions import Categorical
        >>> from dlvm.models import Conditional
        >>> model = Bayesian(Conditional(Categorical(nn.Linear(4, 3))), num_data=100)
        >>> list(model.priors())
        ['likelihood.net.weight', 'likelihood.net.bias']
        >>> model(torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        model: nn.Module,
        num_data: int,
        prior: float | Prior = 1.0,
        only: Collection[str] | None = None,
        plate: str = "data",
    ):
        super().__init__("model")
        module(model=model)
        count(num_data=num_data)
        if not isinstance(plate, str) or not plate:
            raise TypeError(f"plate must be the name of the plate over data, got {plate!r}; write 'data'")
        for part in (part for part in model.modules() if isinstance(part, PyroModule)):
            part._pyro_context.used = False  # one that has run by itself has another name from now on
        self.model, self.num_data, self.prior, self.plate = model, int(num_data), _checked(prior), plate
        self.places = _lifted(model, only)
        for i, (site, places) in enumerate(self.places.items()):
            value = _at(model, places[0])
            self.register_buffer(f"start_{i}", value.detach().clone())
            _distribution(self.prior, site, value)  # told now, and not when the model runs
            for path, name in places:
                owner = model.get_submodule(path)
                owner._parameters[name] = None
                for_particles(owner)

    @property
    def program_signature(self) -> inspect.Signature:
        """That of the model, whose arguments this program takes."""
        return inspect.signature(self.model.forward)

    @property
    def starts(self) -> dict[str, Tensor]:
        """{site: what the parameter was}, from which a guide may start."""
        return {site: getattr(self, f"start_{i}") for i, site in enumerate(self.places)}

    def priors(self) -> dict[str, Any]:
        """{site: its prior}, in the order in which they are drawn."""
        return {site: _distribution(self.prior, site, value) for site, value in self.starts.items()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program, with the model's own arguments; returns what it returns."""
        values = {site: pyro.sample(site, prior) for site, prior in self.priors().items()}
        with self.holding(values), StandingFor(self.plate, self.num_data):
            return self.model(*args, **kwargs)

    @contextmanager
    def holding(self, values: dict[str, Tensor]) -> Iterator[None]:
        """Inside, the model's parameters are these: {site: value}, of the parameter's shape or with particles."""
        held = [
            (self.model.get_submodule(path), name, values[site])
            for site, places in self.places.items()
            for path, name in places
        ]
        try:
            for owner, name, value in held:
                owner.__dict__[name] = value  # goes before the parameter that was removed
            yield
        finally:
            for owner, name, _ in held:
                owner.__dict__.pop(name, None)


def _checked(prior: float | Prior) -> float | Prior:
    if isinstance(prior, Real):
        return positive(prior=float(prior) if not isinstance(prior, bool) else prior)
    if not callable(prior) or isinstance(prior, type):
        raise TypeError(f"prior must be a standard deviation, got {prior!r}; write 1.0, or FanIn() for one by layer")
    return prior


def _distribution(prior: float | Prior, site: str, value: Tensor) -> Any:
    """The prior of one parameter, all of whose dimensions are one event."""
    normal = dist.Normal(value.new_zeros(()), value.new_full((), prior)) if isinstance(prior, float) else None
    fn = prior(site, value) if normal is None else normal  # type: ignore[operator]  # a function by then
    if not hasattr(fn, "event_shape"):
        raise TypeError(f"prior must return a Pyro distribution, got {type(fn).__name__} for {site!r}; write Normal")
    shape = fn.batch_shape + fn.event_shape
    if shape == value.shape:
        return fn.to_event(len(fn.batch_shape)) if fn.batch_shape else fn
    if shape:
        raise ValueError(
            f"prior must return a distribution of shape {tuple(value.shape)} or of one number for {site!r}, got "
            f"{tuple(shape)}; expand it to that of the value that it is called with"
        )
    return fn.expand(value.shape).to_event(value.dim())


def _lifted(model: nn.Module, only: Collection[str] | None) -> dict[str, list[tuple[str, str]]]:
    """{site: [(module, name of the parameter there)]} of the parameters in question; tied ones are one site."""
    places: dict[int, list[tuple[str, str]]] = {}
    sites: dict[int, str] = {}
    for path, owner in model.named_modules():
        for name, value in owner._parameters.items():
            if value is not None:
                sites.setdefault(id(value), f"{path}.{name}" if path else name)
                places.setdefault(id(value), []).append((path, name))
    if only is not None and not (isinstance(only, Collection) and all(isinstance(name, str) for name in only)):
        raise TypeError(f"only must be names of parameters or modules, got {only!r}; write ('likelihood',), or None")
    wanted = [only] if isinstance(only, str) else only
    for prefix in wanted or ():
        if not any(_within(site, prefix) for site in sites.values()):
            raise ValueError(
                f"only names {prefix!r}, where the model has no parameter; name some of {[*sites.values()]}"
            )
    found = {
        site: places[key]
        for key, site in sites.items()
        if wanted is None or any(_within(site, prefix) for prefix in wanted)
    }
    if not found:
        raise ValueError("model has no parameter that could be random; pass one with layers, and once only")
    for site, at in found.items():
        if any(isinstance(model.get_submodule(path), nn.RNNBase) for path, _ in at):
            raise TypeError(
                f"model has the parameter {site!r} of a recurrent layer of torch, which keeps its weights where they "
                "cannot be drawn; leave it out by only=, or write the layer of linear ones"
            )
    return found


def _within(site: str, prefix: str) -> bool:
    return site == prefix or site.startswith(f"{prefix}.")


def _at(model: nn.Module, place: tuple[str, str]) -> Tensor:
    path, name = place
    value = model.get_submodule(path)._parameters[name]
    return value if value is not None else Tensor()
