"""What single numbers of a latent site stand for: data where one goes and all others stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.inference.programs.randomness import check_seed, untouched
from dlvm.inference.use.asking import Asked, as_example, by_name
from dlvm.inference.use.by_datum import by_datum, names_of
from dlvm.inference.use.decode import mean_of, named_latents
from dlvm.nets.arguments import real, whole

VALUES = tuple(-3.0 + i for i in range(7))


@torch.no_grad()
def traverse(
    model: Callable,
    site: str,
    dims: Sequence[int] | None = None,
    values: Sequence[float] = VALUES,
    at: Any = None,
    seed: int = 0,
    example: Any = None,
) -> Tensor:
    """Decodes one latent site with one of its numbers at each of some values.

        E[x | z_d = v, z_others]

    Latent sites that are not given are at their means, given what lies above them; those that know none are drawn.
    Modules are in evaluation mode meanwhile; the process's random state stays as it was.

    Returns:
        shape (dims, values, *event).

    Args:
        model: a Pyro program that draws x where it is called with ``x=None`` and ``n``; or any other, with ``example``.
        site: name of the latent site.
        dims: which of its numbers, counted along the site flattened; all of them unless told.
        values: that each takes.
        at: one row of the site, or {site or argument: one row}, of what is given, as the code of a datum; otherwise the
            model's means.
        seed: of what is drawn.
        example: a batch of data, for a model without ``n``: shapes are taken from it, and inputs that are not given.

    Raises:
        TypeError: the model takes no ``n`` and there is no example, or an argument is of another type.
        ValueError: there is no such latent site or number, or ``at`` does not fit.

    Example:
        >>> from dlvm.models import PPCA
        >>> traverse(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), "z", [0], [-1.0, 1.0])
        tensor([[[-1., -1., -1.],
                 [ 1.,  1.,  1.]]])
    """
    check_seed(seed)
    batch = as_example(model, example)
    start = _start(model, site, at, batch)
    with untouched(seed):
        asked = Asked(model, 1, start, "at", batch)
        with asked.free.evaluating(), _AtMeans(asked.x):
            sites = asked.sites(asked.run())
        latent = [each for name, each in sites.items() if name != asked.x]
        if site not in sites or site == asked.x:
            raise ValueError(
                f"site must be one of the latent sites {names_of(latent)}, got {site!r}; pass one of these"
            )
        found = sites[site]
        base = by_datum(found["value"], found, asked.layout)[0] if site in asked.local else found["value"]
        numbers = base[0].numel()
        chosen, heights = _dims(dims, numbers), _values(values)
        rows = base.reshape(1, numbers).repeat(len(chosen) * len(heights), 1)
        places = torch.tensor(chosen).repeat_interleave(len(heights))
        rows[torch.arange(len(rows)), places] = torch.tensor(heights).repeat(len(chosen)).to(rows)
        given = {name: value.expand(len(rows), *value.shape[1:]) for name, value in start.items()}
        asked = Asked(model, len(rows), given | {site: rows.reshape(-1, *base.shape[1:])}, "at", batch)
        with asked.free.evaluating(), _AtMeans(asked.x):
            drawn = asked.sites(asked.run())[asked.x]
            x = by_datum(mean_of(drawn), drawn, asked.layout)[0]
    return x.reshape(len(chosen), len(heights), *x.shape[1:])


class _AtMeans(Messenger):
    """Sites other than x take their means in place of draws, where they know them and are no classes."""

    def __init__(self, x: str):
        super().__init__()
        self.x = x

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["name"] == self.x or msg["done"]:
            return
        try:
            mean = msg["fn"].mean
        except (NotImplementedError, AttributeError):
            return
        if not mean.isnan().any() and not getattr(msg["fn"], "has_enumerate_support", False):
            msg["value"], msg["done"] = mean, True


def _start(model: Callable, site: object, at: Any, example: tuple | None) -> dict[str, Tensor]:
    """Where the others stay, by name, one row each."""
    if not isinstance(site, str):
        raise TypeError(f"site must be the name of a latent site, got {type(site).__name__}; pass 'z'")
    if at is None:
        return {}
    found = by_name(model, at, "at")[0] if isinstance(at, Mapping) else named_latents(model, at, example)[0]
    if wrong := next((name for name, value in found.items() if len(value) != 1), None):
        raise ValueError(f"at must hold one row, got {len(found[wrong])} of {wrong!r}; pass codes[:1]")
    return found


def _dims(dims: Sequence[int] | None, numbers: int) -> list[int]:
    if dims is None:
        return list(range(numbers))
    if isinstance(dims, str) or not isinstance(dims, Sequence) or not dims:
        raise TypeError(f"dims must be a list of whole numbers, got {dims!r}; pass [0, 1]")
    whole(**{f"dims[{i}]": dim for i, dim in enumerate(dims)})
    if wrong := [dim for dim in dims if not 0 <= dim < numbers]:
        raise ValueError(f"dims must be between 0 and {numbers - 1}, got {wrong[0]}; the site has {numbers} numbers")
    return list(dims)


def _values(values: Sequence[float]) -> list[float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"values must be a list of numbers, got {values!r}; pass [-2.0, 0.0, 2.0]")
    real(**{f"values[{i}]": value for i, value in enumerate(values)})
    return [float(value) for value in values]
