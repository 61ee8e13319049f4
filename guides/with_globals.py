"""Guides of models whose weights are random: an automatic guide of the global sites beside one of the local sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pyro.distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuide
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dlvm.distributions.data_plates import StandingFor
from dlvm.guides.joint import Placed
from dlvm.guides.sites.latent_checks import check_spec
from dlvm.guides.sites.latents import Latent, latents, left_alone


class WithGlobals(PyroModule):
    """An automatic guide of the sites that all data share, and any guide of those that each datum has of its own.

        q(w, z | x) = q(w) prod_n q(z_n | x_n)

    q(w) is one of Pyro's ``AutoGuide``s, with parameters that all data share; q(z | x) is what is given for the local
    sites, and does not see w. All parameters exist when the constructor returns. The model is read there once and is no
    part of this module.

    A batch of M data stands for all N of them in a model that says so, as ``Bayesian(model, N)`` does, or
    ``pyro.plate("data", N, subsample_size=len(x))``, and then in a local guide of plain plates, too; in a plain plate
    each batch counts as a data set of its own, with the whole of KL(q(w) || p(w)).

    A model samples its global sites outside the data plate. With ``PyroSample`` weights this means that the net is
    called outside, too: ``with plate: z = ...``, then ``mean = self.decoder(z)``, then ``with plate:`` for x. With
    particles in parallel a weight has shape (particles, 1, out, in), which ``torch.nn.Linear`` cannot multiply by:
    ``torch.einsum("...oi,...i->...o", weight, z) + bias`` does, at every number of particles.

    Sites:
        those of ``local`` and all latent sites of the model that lie outside the plate over data, with its shapes and
        supports.

    Args:
        local: a guide of the sites in the plate, ``Diagonal(local_sites(latents(model, *args)), encoder)`` for example;
            None for a model without such sites. A guide that runs the model itself, as Ladder and Refined do, sees
            global sites there as drawn from their prior.
        model: the Pyro program.
        family: program -> ``AutoGuide``: AutoNormal, ``partial(AutoLowRankMultivariateNormal, rank=3)``, ...
        *args, **kwargs: what the model is called with, a small batch of data for example.
        plate: name of the plate over data.

    Raises:
        ValueError: the model has no global site, or local ones and ``local`` is None; ``family`` cannot treat a site.
        TypeError: ``local`` is no program, or ``family`` makes no ``AutoGuide``.

    References:
        Weight Uncertainty in Neural Networks, Blundell, Cornebise, Kavukcuoglu, Wierstra, 2015, arXiv:1505.05424.
        Automatic Differentiation Variational Inference, Kucukelbir, Tran, Ranganath, Gelman, Blei, 2017,
        arXiv:1603.00788.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from dlvm.guides import Diagonal
        >>> from dlvm.nets import MLP
        >>> def model(x):
        ...     w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(w * z, 1.0).to_event(1), obs=x)
        >>> x = torch.zeros(5, 2)
        >>> local = Diagonal(local_sites(latents(model, x)), MLP(2, 8))
        >>> {name: tuple(value.shape) for name, value in WithGlobals(local, model, AutoNormal, x)(x).items()}
        {'w': (2,), 'z': (5, 2)}
    """

    def __init__(
        self,
        local: Callable | None,
        model: Callable,
        family: Callable[[Callable], AutoGuide],
        *args: Any,
        plate: str = "data",
        **kwargs: Any,
    ):
        super().__init__("guide")
        if local is not None and (isinstance(local, type) or not callable(local)):
            got = f"the class {local.__name__}" if isinstance(local, type) else type(local).__name__
            raise TypeError(
                f"local must be a guide of the local sites or None, got {got}; pass Diagonal(local_sites(...), encoder)"
            )
        sites = latents(model, *args, **kwargs)
        within = local_sites(sites, plate)
        names = [name for name in sites if name not in within]
        if not names:
            raise ValueError(
                f"model has no global site: {list(sites)} lie in the plate {plate!r}; use the local guide alone, or "
                "sample what all data share outside that plate"
            )
        if within and local is None:
            raise ValueError(f"local is None, but the model has the local sites {list(within)}; pass a guide of them")
        self.local, self.plate = local, plate
        self.num_data = next(
            (around.size for site in within.values() for around in site.plates if around.name == plate), None
        )
        self.shared = _automatic(family, poutine.block(model, expose=names), names)
        with left_alone(model), poutine.block():
            self.shared.forward(*args, **kwargs)  # no call: its names are made when this module is called

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        with _Placing():
            values = dict(self.shared(*args, **kwargs))
        if self.local is None:
            return values
        with nullcontext() if self.num_data is None else StandingFor(self.plate, self.num_data, shown=False):
            return values | dict(self.local(*args, **kwargs) or {})


def local_sites(latents: Mapping[str, Latent], plate: str = "data") -> dict[str, Latent]:
    """The latent sites that each datum has of its own, in the order given.

    Returns:
        {site: Latent} of those in the plate over data; the others are global.

    Args:
        latents: {site: Latent}, see ``latents(model, *args)``.
        plate: name of the plate over data.

    Raises:
        TypeError: ``latents`` is no {site: Latent}, or ``plate`` no name.

    Example:
        >>> import torch
        >>> list(local_sites({"w": Latent(torch.Size([2]), plates=()), "z": Latent(torch.Size([2]))}))
        ['z']
    """
    check_spec(latents)
    if not isinstance(plate, str) or not plate:
        raise TypeError(f"plate must be the name of the plate over data, got {plate!r}; write 'data'")
    return {name: latent for name, latent in latents.items() if plate in {around.name for around in latent.plates}}


def _automatic(family: Callable, program: Callable, names: list[str]) -> AutoGuide:
    other = isinstance(family, type) and not issubclass(family, AutoGuide)
    if other or isinstance(family, nn.Module) or not callable(family):
        raise TypeError(f"family must make an AutoGuide from a program, got {family!r}; write AutoNormal")
    guide = family(program)
    if not isinstance(guide, AutoGuide):
        raise TypeError(
            f"family must make one of Pyro's AutoGuides from a program, got {type(guide).__name__}; write AutoNormal "
            "or partial(AutoLowRankMultivariateNormal, rank=3)"
        )
    if isinstance(guide, AutoDelta):
        taken = [name for name in names if hasattr(guide, name.split(".")[0])]
        if taken:  # it keeps parameters as attributes named like sites, and would lose these
            raise ValueError(
                f"AutoDelta has an attribute {taken[0].split('.')[0]!r} of its own and cannot keep the value of site "
                f"{taken[0]!r}; give the site, or the root PyroModule that it is named after, another name"
            )
    return guide


class _Placing(Messenger):
    """Gives every Delta that is drawn inside a KL with its log-density, which Pyro's own leaves out."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if type(fn := msg["fn"]) is dist.Delta:
            msg["fn"] = Placed(fn.v, log_density=fn.log_density, event_dim=fn.event_dim)
