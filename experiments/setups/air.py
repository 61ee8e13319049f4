"""AIR as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.draw import shape_of
from dlvm.experiments.setups.pictures import Drawing, together
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.guides import Attend, latents
from dlvm.inference.programs.randomness import untouched
from dlvm.models import AIR
from dlvm.nets import MLP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, JUDGED = 8, 500  # images in the figure, rows at a time
DARK = -2.0  # logit of a pixel of an object at first


@dataclass(frozen=True)
class AIRSetup(Setup):
    """An image as a sum of objects, of which there are several, one or none: where each is, and what it looks like."""

    steps: int = 3
    """The most objects."""
    what_dim: int = 20
    """Numbers that say what an object looks like."""
    picture: int = 12
    """Pixels on a side of an object's own picture."""
    hidden: tuple[int, ...] = (100,)
    """Layers between what and that picture."""
    width: int = 200
    """Of the guide's hidden layers."""
    presence: float = 0.5
    """Probability, under the prior, of one object more."""
    extent: float = 0.4
    """Share of the image's side that an object takes on average, under the prior."""
    noise: float = 0.3
    """Standard deviation of the noise, which is not trained: the smaller, the more an object left out costs."""

    defaults: ClassVar = {
        "guide": "own",
        "objective": "iwae",
        "estimator": "vimco",
        "num_particles": 5,
        "warm_up": 0,
        "objectives": ("elbo:nvil", "iwae:vimco"),
    }
    exact: ClassVar[str] = "p(number of objects), geometric and cut"
    command: ClassVar[str] = "--data multi_digits --objective elbo --estimator nvil --epochs 60 --lr-decay 0.97"

    def model(self, data: Loader) -> AIR:
        """A fresh p(present) p(where) p(what) p(x | objects), whose objects are dark at first."""
        check_whole(data)
        glyph = MLP(self.what_dim, *self.hidden, self.picture**2)
        with torch.no_grad():
            [part for part in glyph.modules() if isinstance(part, nn.Linear)][-1].bias.fill_(DARK)
        sizes = _sides(data), self.what_dim, self.steps
        return AIR(glyph, *sizes, presence=self.presence, extent=self.extent, scale=self.noise)

    def guide(self, model: nn.Module, data: Loader) -> Attend:
        """q(present_t, where_t, what_t | x, what is left of it)."""
        return Attend(latents(model, *data.examples), model, _sides(data), self.picture, self.width)

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """How often the number of objects is the label, where labels are numbers that the model can count to."""
        if "y" not in data.rows.names or not _are_counts(data["y"], data.label_names, self.steps):
            return {}
        y = data["y"].cpu()
        right = (counted(guide, data.first(data.num_data), self.steps) == y).double().mean().item()
        return {"count accuracy": right, "by chance": y.bincount().max().item() / len(y)}

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Where objects are seen in test data, beside what every model of images shows."""
        yield from super().pictures(model, guide, data)
        yield "objects", partial(_objects, model, guide, data), "Test data with the places of objects, and their sum."


def _sides(data: Loader) -> tuple[int, int]:
    channels, height, width = shape_of(data)
    if channels != 1:
        raise ValueError(f"data must be images of one channel for this model, got {channels}; choose another --model")
    return height, width


def _are_counts(y: Tensor, names: Sequence[str] | None, most: int) -> bool:
    """Whether labels can be numbers of objects: whole, of what the model can count to, and not the names of classes."""
    if y.is_floating_point() or not len(y) or int(y.min()) < 0 or int(y.max()) > most:
        return False
    return names is None or list(names) == [str(i) for i in range(len(names))]


@torch.no_grad()
def counted(guide: nn.Module, x: Tensor, steps: int, seed: int = 0) -> Tensor:
    """How many objects one draw of the guide finds in each row, shape (rows,)."""
    found = []
    with untouched(seed):
        for part in x.split(JUDGED):
            nodes: Mapping[str, Any] = poutine.trace(guide).get_trace(part).nodes
            there = torch.stack([nodes[f"present_{step}"]["value"] for step in range(1, steps + 1)])
            found.append(there.sum(0).long().cpu())
    return torch.cat(found)


def _objects(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import objects

    x, program = together(data, SHOWN)[0], cast(AIR, model)
    with torch.no_grad(), untouched(0):
        drawn = poutine.trace(guide).get_trace(x)
        nodes: Mapping[str, Any] = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x).nodes
    steps = range(1, program.steps + 1)
    where, there = (torch.stack([nodes[f"{kind}_{t}"]["value"] for t in steps], 1) for kind in ("where", "present"))
    return objects(x, nodes["x"]["fn"].mean, where, there, program.sides)
