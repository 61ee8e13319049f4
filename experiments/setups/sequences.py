"""What models of sequences have in common as scripts train them: batches (x, lengths), and nats of a time step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from dlvm.distributions.sequences.lengths import steps_within
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.guides import own
from dlvm.experiments.setups.setup import Setup
from dlvm.guides import MeanFieldOverTime, Sequential, StructuredGaussian
from dlvm.inference.console import say
from dlvm.nets import MLP, Filled, Recurrent

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing

TIME_STEP = "time step"


class SequenceSetup(Setup):
    """A model of sequences, whose program is called with x, shape (batch, steps, x_dim), and the ``lengths`` of them.

    Attributes:
        tokens: whether x holds whole numbers, shape (batch, steps), in place of vectors.
    """

    tokens: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "lengths")

    def shown(self, data: Splits) -> Splits:
        """The data in batches of what the model takes, each cut to its longest sequence.

        Raises:
            ValueError: they are no sequences, or hold tokens where vectors are needed, or vectors where tokens are; or
                have no times where the model takes them.
        """
        check_sequences(data.train, self.tokens)
        if "times" in self.inputs and "times" not in data.train.rows.names:
            raise ValueError("data must have the times of their steps for this model; name their column: --time-column")
        return super().shown(data)

    def parts(self, data: Loader) -> Mapping[str, float]:
        """How many time steps a sequence has on average."""
        return {TIME_STEP: data["lengths"].double().mean().item()}

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide; nothing, of a model whose guide is its own."""
        return nn.Identity()

    def guided(self, model: nn.Module, sites: Mapping[str, Any], family: Callable, data: Loader, net: nn.Module) -> Any:
        """The model's own guide.

        Raises:
            ValueError: a family is asked for, of a model without an encoder over time.
        """
        if family is not own and isinstance(net, nn.Identity):
            raise ValueError("guide must be own for this model of sequences, which has no encoder; add --guide own")
        return super().guided(model, sites, family, data, net)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Sequences of the data beside draws of the model, and beside what the guide makes of them."""
        if self.tokens:
            yield from super().pictures(model, guide, data)
            return
        from dlvm.experiments.setups.sequence_pictures import sequence_pictures

        yield from sequence_pictures(model, guide, data)


class GuidedOverTime(SequenceSetup):
    """A model of sequences with one site over time, whose guide has steps of the family that is asked for.

    Its fields, which a subclass declares, are the width of the recurrent net that reads the sequence, how that reads,
    and how the steps of the guide hang together.
    """

    recurrent: int
    direction: Literal["forward", "backward", "both"]
    posterior: Literal["chain", "mean_field", "gaussian"]

    @property
    def reader(self) -> Callable[..., nn.Module]:
        """Makes the recurrent net."""
        return nn.GRU

    def encoder(self, data: Loader) -> nn.Module:
        """What reads the sequences; numbers that are missing are seen as zeros, with a mask beside."""
        width = step_dim(data)
        inputs = Filled(MLP(2 * width)) if data.has_missing else None
        return Recurrent(width, self.recurrent, self.direction, self.reader, inputs=inputs)

    def guided(self, model: nn.Module, sites: Mapping[str, Any], family: Callable, data: Loader, net: nn.Module) -> Any:
        """A guide over time, whose steps are of this family where they have one."""
        if family is own:
            return self.guide(model, data)
        if self.posterior == "gaussian":
            return StructuredGaussian(sites, net)
        return (Sequential if self.posterior == "chain" else MeanFieldOverTime)(sites, net, family)


def check_sequences(data: Loader, tokens: bool = False) -> None:
    """Refuses what are no sequences of these numbers.

    Raises:
        ValueError: what they are instead.
    """
    wanted = "tokens, as of --data names" if tokens else "vectors, as of --data jsb, or of a file with lengths"
    if data.kind != "sequence":
        raise ValueError(f"data must be sequences of {wanted}, got {data.name or 'x'}, which is {data.kind}")
    if data.x.is_floating_point() == tokens or data.x.ndim != 3 - tokens:
        what = "numbers" if data.x.is_floating_point() else "tokens"
        raise ValueError(f"data must be sequences of {wanted}, got {what} of shape {tuple(data.x.shape)}")


def step_dim(data: Loader) -> int:
    """How many numbers a step has."""
    return data.x.shape[-1]


def steps_of(data: Loader, most: int) -> tuple[Tensor, Tensor]:
    """The first sequences with their lengths, to start a model at."""
    rows = slice(min(most, data.num_data))
    return data.x[rows], data["lengths"][rows]


def each_step(data: Loader) -> Tensor:
    """All steps within the lengths, shape (steps of all sequences, x_dim)."""
    return data.x[steps_within(data["lengths"], data.x.shape[1])]


def is_binary(data: Loader) -> bool:
    """Whether all numbers within the lengths are 0 or 1."""
    seen = each_step(data)
    return bool(((seen == 0) | (seen == 1) | seen.isnan()).all())


def warn_of_bits(data: Loader, instead: str) -> None:
    """Says that a Gaussian of bits has a density without a limit, where the data are bits.

    Args:
        data: the sequences.
        instead: what gives probabilities, for the notice.
    """
    if is_binary(data):
        say(
            "data are 0 and 1 alone: under Gaussians nats are of a density, which may grow without limit; "
            f"{instead} gives probabilities"
        )
