"""The variational recurrent neural network as scripts train it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.guides import own
from dlvm.experiments.options.likelihoods import LikelihoodWord, likelihood_of
from dlvm.experiments.setups.sequences import SequenceSetup, each_step, step_dim
from dlvm.guides import Sequential
from dlvm.models import VRNN
from dlvm.nets import MLP, Recurrent

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class VRNNSetup(SequenceSetup):
    """A variational recurrent net, and a guide over time whose steps are of the family that is asked for."""

    z_dim: int = 16
    """Latent dimensions of a step."""
    hidden: int = 100
    """Width of the recurrent state, and of the nets that lead to it."""
    emission: tuple[int, ...] = (100,)
    """Hidden layers of p(x_t | what came before); ReLU."""
    recurrent: int = 100
    """Width of the recurrent net that reads the sequence for the guide, in each direction."""
    direction: Literal["forward", "backward", "both"] = "both"
    """How it reads: both ways, backward, or forward, which filters."""
    likelihood: LikelihoodWord = "bernoulli"
    """p(x_t | what came before), as for vae."""

    exact = "nothing; particle filters bound log p(x) more tightly than the ELBO"
    command = "--data jsb --objective fivo --num-particles 4 --batch-size 20 --lr 1e-3"

    def model(self, data: Loader) -> VRNN:
        """A fresh p(x, z)."""
        likelihood = self.emitting(2 * self.hidden, data)
        return VRNN(self.z_dim, step_dim(data), self.hidden, likelihood).to(data.device)

    def emitting(self, width: int, data: Loader) -> nn.Module:
        """p(x_t | a vector of this width)."""
        net = MLP(width, *self.emission, output=nn.ReLU if self.emission else nn.Identity)
        return likelihood_of(self.likelihood, net, Loader(each_step(data), missing=data.has_missing, kind=None))

    def encoder(self, data: Loader) -> Recurrent:
        """What reads the sequences."""
        return Recurrent(step_dim(data), self.recurrent, self.direction)

    def guided(self, model: nn.Module, sites: Mapping[str, Any], family: Callable, data: Loader, net: nn.Module) -> Any:
        """A guide over time, whose steps are of this family."""
        return self.guide(model, data) if family is own else Sequential(sites, net, family)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Sequences of the data beside draws of the model."""
        from dlvm.experiments.setups.sequence_pictures import drawn

        yield "samples", partial(drawn, model, data), "Sequences of the test data, and draws of the model."
