"""Hamiltonian variational inference: a guide's draw is carried towards the posterior by the model's own density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Amortized, Family
from dlvm.guides.joint import Joint, Placed, placed_at
from dlvm.guides.leapfrog import Leapfrog, Slope, Trajectory
from dlvm.guides.sites.arguments import encoder_width, family_of, program
from dlvm.guides.sites.conditioning import first
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent, Node
from dlvm.guides.sites.site_types import Reshaped
from dlvm.nets import MLP
from dlvm.nets.arguments import made, real, whole, widths

TRAJECTORY = "trajectory"


class HamiltonianModel(PyroModule):
    """A model with the momenta of T leapfrog steps after all other sites; its distribution stays as it was.

        p(x, z, v_1..v_T) = p(x, z) prod_t r_t(v_t | x, z_t),   z_T = z,   (z_(t-1), v'_t) = leapfrog_t^-1(z_t, v_t)

    It is to a guide ``Hamiltonian(guide, model)`` what an ``Augmented`` model is to a guide with an auxiliary site. The
    dynamics are those of the energy -log p(x, z) + v'v / 2 on the sites as one unconstrained vector; step sizes are
    learned, per step and dimension. The reverse model r is trained with the rest, by any objective.

    Sites:
        those of the model; and vT, .., v1: shape (batch, D), real; latent; D numbers for all latent sites together.

    Args:
        model: a Pyro program whose latent sites lie in one plate over data; deterministic given these, and with
            derivatives in them.
        latents: its latent sites, from ``latents(model, *args)``.
        encoder: of the reverse model, called with the program's arguments; returns (batch, H), ``out_features`` = H.
        steps: T.
        leaps: leapfrog steps between one momentum's draw and the next.
        size: where the step sizes start.
        family: of r_t(v_t | x, z_t), from (net, D).
        hidden: widths of the layers between (features, z_t) and r_t; one layer of width H unless told, () for none.

    Raises:
        ValueError: ``steps`` or ``leaps`` is below 1, or ``size`` is not positive; a latent site is discrete, or has
            the name of a momentum, or none that a guide can be built for; when run, there are no data.
        TypeError: an argument is of another type; when run, the model is a function that declares parameters by
            ``pyro.param``.

    References:
        Markov Chain Monte Carlo and Variational Inference: Bridging the Gap, Salimans, Kingma, Welling, 2015,
            arXiv:1410.6460.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> hamiltonian = HamiltonianModel(model, latents(model, x), MLP(3, 8), steps=2)
        >>> guide = Hamiltonian(Diagonal(latents(model, x), MLP(3, 8)), hamiltonian)
        >>> list(guide(x))
        ['z', 'v2', 'v1']
    """

    def __init__(
        self,
        model: Callable,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        steps: int = 1,
        leaps: int = 1,
        size: float = 0.1,
        family: Family = DiagonalNormal,
        hidden: tuple[int, ...] | None = None,
    ):
        super().__init__("hamiltonian")
        program(model=model)
        whole(steps=steps, leaps=leaps)
        real(size=size)
        if steps < 1 or leaps < 1 or not 0 < size < inf:
            raise ValueError(
                "steps and leaps must be at least 1 and size positive and finite, got "
                f"steps={steps}, leaps={leaps}, size={size}"
            )
        self.plate = check_latents(latents)
        self.names = [f"v{t + 1}" for t in range(steps)]
        _check_sites(latents, self.names)
        self.model, self.encoder, self.latents = model, encoder, dict(latents)
        self.sites = {name: Reshaped(latent) for name, latent in latents.items()}
        self.dim = sum(site.size for site in self.sites.values())
        self.leapfrog = Leapfrog(steps, self.dim, leaps, size)
        self.reverse = _momenta(encoder_width(encoder), self.dim, steps, family, hidden)

    def forward(self, *args: Any, **kwargs: Any) -> object:
        """Runs the model, then draws the momenta from the last to the first; returns what the model returns."""
        if first(args, kwargs) is None:
            raise ValueError("the Hamiltonian model needs data, since r(v | x, z) is given them; draw from the model")
        with poutine.trace() as traced:
            result = self.model(*args, **kwargs)
        nodes: Mapping[str, Node] = traced.trace.nodes
        z = {name: nodes[name]["value"] for name in self.sites}
        u = torch.cat([site.flatten(z[name]) for name, site in self.sites.items()], dim=-1)
        h = self.encoder(*args, **kwargs)
        name, dim, size, *_ = self.plate
        rows = nodes[name]["value"]
        slope = self.slope(rows, args, kwargs)
        with poutine.block(hide=[name]):  # a plate of the same name and rows, not a second one
            plate = pyro.plate(name, size or len(rows), subsample=rows, dim=dim)
        for t in reversed(range(len(self.names))):
            with plate:
                v = pyro.sample(self.names[t], self.reverse[t](h, u))
            if t:
                u, _ = self.leapfrog(t, u, v, slope, back=True)
        return result

    def slope(self, rows: Tensor | None, args: tuple, kwargs: dict) -> Slope:
        """The slope of log p(x, z) for a batch."""
        return Slope(self.model, self.latents, self.plate.name, rows, args, kwargs)


class Hamiltonian(PyroModule):
    """A guide whose draw is carried on by T leapfrog steps on the model's density, each with a momentum of its own.

        z_0 ~ q(z_0 | x),   v'_t ~ q(v'_t | x, z_(t-1)),   (z_t, v_t) = leapfrog_t(z_(t-1), v'_t),   z = z_T
        bound = E log p(x, z_T) - log q(z_0 | x) + sum_t [ log r_t(v_t | x, z_t) - log q(v'_t | x, z_(t-1)) ]

    Steps keep volume, so that the density of (z_T, v_1..v_T) is that of what was drawn. The bound is below that of the
    marginal q(z_T | x) by E KL(q(v_1..v_T | x, z_T) || r), and below log p(x). The model is read, never owned.
    Gradients of its parameters and of the step sizes count both uses, in the model and in the guide; an objective that
    treats the two apart treats the second use as it treats the guide.

    Sites:
        trajectory: all of the following as one unconstrained vector, shape (batch, (T + 1) D), real; auxiliary.
        those of ``guide``, with the model's shapes and supports; vT, .., v1: shape (batch, D), real.

    Args:
        guide: makes q(z_0 | x); an amortised guide of any family, ``IAF(latents(...), encoder)`` for example.
        model: the ``HamiltonianModel`` that is trained with it.
        family: of q(v'_t | x, z_(t-1)), from (net, D).
        hidden: widths of the layers between (features, z_(t-1)) and the momentum; one as wide as the features unless
            told, () for none.

    Raises:
        TypeError: ``guide`` is no amortised guide, or needs more than its features, as a Ladder; ``model`` is no
            ``HamiltonianModel``.
        ValueError: ``guide`` has other sites than the model.

    References:
        Markov Chain Monte Carlo and Variational Inference: Bridging the Gap, Salimans, Kingma, Welling, 2015,
            arXiv:1410.6460.

    Example: see ``HamiltonianModel``.
    """

    def __init__(
        self,
        guide: Amortized,
        model: HamiltonianModel,
        family: Family = DiagonalNormal,
        hidden: tuple[int, ...] | None = None,
    ):
        super().__init__("guide")
        if not isinstance(guide, Amortized) or type(guide).forward is not Amortized.forward:
            raise TypeError(
                f"guide must be an amortised guide that draws from its features alone, as Diagonal(...), got "
                f"{type(guide).__name__}"
            )
        if not isinstance(model, HamiltonianModel):
            raise TypeError(
                f"model must be the HamiltonianModel that is trained with the guide, got {type(model).__name__}; write "
                "HamiltonianModel(model, latents, encoder)"
            )
        whole = isinstance(guide, Joint)
        names = list(guide.parts if whole else guide.names)
        if names != list(model.sites) if whole else set(names) != set(model.sites):
            raise ValueError(
                f"guide has the latent sites {names} and the model {list(model.sites)}; "
                "build both from the same latents"
            )
        self.guide = guide
        self.order = guide.names if whole else tuple(model.sites)
        self.momenta = _momenta(guide.width, model.dim, len(model.names), family, hidden)
        self._read = (model,)  # in a tuple, so that the model is no part of this module

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        (model,) = self._read
        if given := list(self.guide.known(*args, **kwargs)):
            raise ValueError(
                f"latent sites {given} are given or absent here, and a trajectory moves all of them at once; call the "
                "guide without values for them, or use Augmented"
            )
        h = self.guide.features(*args, **kwargs)
        with self.guide.data_plate.over(len(h)) as rows:
            slope = model.slope(None if self.guide.data_plate.given else cast(Tensor, rows), args, kwargs)
            made = Trajectory(self.guide, self.order, self.momenta, model.leapfrog, slope, h)
            path = pyro.sample(TRAJECTORY, made, infer={"is_auxiliary": True})
            return {site: pyro.sample(site, fn) for site, fn in _places(model, path).items()}


def _places(model: HamiltonianModel, path: Tensor) -> dict[str, Placed]:
    """Where a trajectory puts the model's sites; the momenta from the last to the first."""
    sizes = [site.size for site in model.sites.values()] + [model.dim] * len(model.names)
    pieces = iter(path.split(sizes, dim=-1))
    places = {name: placed_at(next(pieces), site, len(model.latents[name].shape)) for name, site in model.sites.items()}
    flat = path.new_zeros(path.shape[:-1])
    momenta = {name: Placed(next(pieces), log_density=flat, event_dim=1) for name in model.names}
    return places | {name: momenta[name] for name in reversed(model.names)}


def _momenta(width: int, dim: int, steps: int, family: Family, hidden: tuple[int, ...] | None) -> nn.ModuleList:
    """One conditional distribution of a momentum per step, given features and a place."""
    hidden = (width,) if hidden is None else hidden
    widths(hidden=hidden)
    family_of(family=family)

    def net() -> MLP:
        return MLP(width + dim, *hidden, activation=nn.Tanh, output=nn.Tanh if hidden else nn.Identity)

    return nn.ModuleList(made("family", family, net(), dim) for _ in range(steps))


def _check_sites(latents: Mapping[str, Latent], names: list[str]) -> None:
    for name, latent in latents.items():
        if latent.support.is_discrete:
            raise ValueError(
                f"latent site {name!r} is discrete, and a density over it has no slope to follow; sum it out in the "
                "model, or use Augmented, whose sites may be of any kind"
            )
        if name in names or name == TRAJECTORY:
            raise ValueError(f"a latent site is named {name!r}, as one of the guide's own is; rename it in the model")
