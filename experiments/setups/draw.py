"""DRAW as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.layer_contents import layers_of
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.options.likelihoods import likelihood_of
from dlvm.experiments.setups.pictures import Drawing, together
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.guides import Feedback, latents
from dlvm.inference.programs.randomness import untouched
from dlvm.models import DRAW
from dlvm.nets import MLP, PixelFeatures, Read, ReadAll, Write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # images in the film of a canvas


@dataclass(frozen=True)
class DRAWSetup(Setup):
    """An image drawn on a canvas in steps, by nets that read and write through a window on it or on all of it."""

    steps: int = 10
    """How often something is added to the canvas."""
    z_dim: int = 10
    """Latent dimensions of a step."""
    width: int = 128
    """Of the state of both recurrent nets."""
    read: int = 5
    """Pixels on a side of the window that the guide reads through; 0 for the whole image."""
    write: int = 5
    """Pixels on a side of the window that the model writes through; 0 for the whole image."""
    likelihood: Literal["bernoulli", "discretised_logistic", "logistic_mixture", "grey_levels"] = "bernoulli"
    """p(x | canvas): bernoulli for 0 and 1, the others for grey levels and colours."""
    maps: int = 8
    """Of the canvas under a likelihood other than bernoulli, whose canvas is that of the logits."""

    defaults: ClassVar = {"guide": "own"}
    exact: ClassVar[str] = "KL of every step given those before, in closed form"
    command: ClassVar[str] = "--data binarized_mnist --objective analytic_kl"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    def model(self, data: Loader) -> DRAW:
        """A fresh p(z_1) ... p(z_T) p(x | canvas)."""
        check_whole(data)
        shape = shape_of(data)
        if self.binary:
            check_fits(self.likelihood, data)
            likelihood: nn.Module = Bernoulli(MLP(data.x_dim))
            start: Tensor | None = torch.logit(data.mean, eps=1e-3)
        else:
            shape, start = (self.maps, *shape[1:]), None
            features = PixelFeatures(MLP(self.maps * shape[1] * shape[2]), shape)
            likelihood = likelihood_of(self.likelihood, features, data)
        size = shape[0] * shape[1] * shape[2]
        write = Write(self.width, shape, self.write) if self.write else MLP(self.width, size)
        return DRAW(likelihood, write, self.z_dim, self.steps, self.width, start)

    def guide(self, model: nn.Module, data: Loader) -> Feedback:
        """q(z_t | x, canvas, z_1, ..., z_(t-1)) by a recurrent net."""
        read = Read(self.width, shape_of(data), self.read) if self.read else ReadAll(data.x_dim)
        return Feedback(latents(model, *data.examples), read.to(data.device), model, self.width, self.width)

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """The KL of every step, nats per datum: how much each adds to what the canvas holds."""
        kl = layers_of(model, guide, data, num_particles=1).kl
        return {f"KL of {site}": kl[site] for site in (f"z_{step}" for step in range(1, self.steps + 1))}

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """The canvas after every step, of test data and of draws, and what every model of images shows."""
        yield from super().pictures(model, guide, data)
        yield "canvas", partial(_film, model, guide, data), "Means of p(x | canvas) after every step: data, and draws."


def shape_of(data: Loader) -> tuple[int, int, int]:
    """(channels, height, width).

    Raises:
        ValueError: the data are no images.
    """
    shape = data.image_shape or ()
    if len(shape) not in (2, 3):
        raise ValueError(
            f"data must be images for this model, got {shape or 'none'}; choose another --data, or --model vae"
        )
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    return channels, height, width


@torch.no_grad()
def canvases(model: nn.Module, guide: nn.Module | None, x: Tensor, seed: int = 0) -> Tensor:
    """The mean of the data after each step, under draws of the guide, or of the model itself.

    Returns:
        shape (batch, steps + 1, x_dim): before the first step, after it, ..., after the last, which is E p(x | z).

    Args:
        model: says at each latent site what the mean is so far, by ``infer={"mean": function}``, as ``DRAW`` does.
        guide: of the model; None for draws of the prior.
        x: shape (batch, x_dim); where there is no guide, as many data are drawn.
        seed: of the draws, which leave the state of the generator as it was.
    """
    with untouched(seed):
        if guide is None:
            trace = poutine.trace(model).get_trace(n=len(x))
        else:
            drawn = poutine.trace(guide).get_trace(x)
            trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x)
    nodes: Mapping[str, Any] = trace.nodes
    means = [site["infer"]["mean"]() for site in nodes.values() if "mean" in (site.get("infer") or {})]
    return torch.stack([mean.expand(x.shape) for mean in (*means, nodes["x"]["fn"].mean)], dim=1)


def _film(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import film

    x = together(data, SHOWN)[0]
    return film(x, canvases(model, guide, x), canvases(model, None, x), data.image_shape)
