"""A guide that infers some sites and leaves the others to the model, as what is missing in the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides.amortized import Amortized, Family
from dlvm.guides.reading import draw_along
from dlvm.guides.sites.arguments import program
from dlvm.guides.sites.latent_checks import check_latents
from dlvm.guides.sites.latents import Latent


class FromModel(Amortized):
    """Amortised guide of all sites but some, which it draws from the model given those before them.

        q(z, y | x) = q(z | x) p(y | z)

    The density of y is the same in both programs and leaves every weight: log w = log p(x, z | y) - log q(z | x). For
    sites of which the data say little beyond z, and for those that were not observed by chance or by design, as
    ``x_unobserved`` in ``NotAtRandom``. The guide runs the model down to its last latent site, each draw being the
    guide's. Among the inferred sites the order is the model's, ``top_down``.

    The model is read, never owned: its parameters are not among the guide's, and their gradient counts both uses, as
    with ``Ladder``.

    Sites:
        those of ``latents``, with the model's shapes.

    Args:
        latents: {site: Latent} in generation order, see ``latents(model, *args)``.
        encoder: see ``Amortized``.
        model: the Pyro program whose latents these are; the very one that is trained.
        left: names of the sites that are left to the model; one at least must be inferred.
        family: makes q at an inferred site from (net, dim), ``DiagonalNormal`` unless told.
        hidden: widths of the layers between features and a site's distribution, see ``Amortized``.

    Raises:
        ValueError: ``left`` names a site that is none of the latents, or all of them; or as ``Amortized``.
        TypeError: ``left`` is no sequence of names; the model is no program, or a function that declares parameters by
            ``pyro.param``; the encoder has no ``out_features``.

    References:
        not-MIWAE: Deep Generative Modelling with Missing not at Random Data, Ipsen, Mattei, Frellsen, 2021,
            arXiv:2006.12871.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dlvm.distributions import ConstantScaleNormal, SelfMasking
        >>> from dlvm.guides import latents
        >>> from dlvm.models import NotAtRandom
        >>> from dlvm.nets import MLP, Filled
        >>> model, x = NotAtRandom(2, ConstantScaleNormal(nn.Linear(2, 3)), SelfMasking(3)), torch.zeros(5, 3)
        >>> guide = FromModel(latents(model, x), Filled(MLP(6, 8)), model, left=("x_unobserved",))
        >>> {site: tuple(value.shape) for site, value in guide(x).items()}
        {'z': (5, 2), 'x_unobserved': (5, 3)}
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        encoder: nn.Module,
        model: Callable,
        left: Sequence[str],
        family: Family = DiagonalNormal,
        hidden: Sequence[int] | None = None,
    ):
        program(model=model)
        check_latents(latents)
        if isinstance(left, str) or not isinstance(left, Sequence):
            raise TypeError(f"left must hold names of sites, got {left!r}; write left=('x_unobserved',)")
        if not left or not set(left) < set(latents):
            raise ValueError(f"left must be some of the latent sites {list(latents)}, and not all, got {left!r}")
        super().__init__({k: v for k, v in latents.items() if k not in left}, encoder, family, hidden=hidden)
        self.drawn = tuple(latents)
        self._model = (model,)  # in a tuple, so that it is no submodule

    @property
    def model(self) -> Callable:
        """The program that is read."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h, posteriors = self.features(*args, **kwargs), self.posteriors  # got outside the run, as all Pyro looks up

        def choose(name: str, msg: Mapping[str, Any], known: Mapping[str, Tensor]) -> TorchDistributionMixin:
            if name not in self.names:
                return msg["fn"]
            j = self.names.index(name)
            before = [self._vector(each, known, h) for each in range(j)]
            return self.sites[j].constrain(posteriors[j](*self.inputs(h, before)))

        return draw_along(self.model, self.drawn, choose, args, kwargs)

    def _vector(self, j: int, known: Mapping[str, Tensor], h: Tensor) -> Tensor:
        """Value of a site before as a vector; zeros where the model lacks it."""
        name, site = self.names[j], self.sites[j]
        return site.flatten(known[name]).to(h.dtype) if name in known else h.new_zeros(len(h), site.size)
