"""What the models are given: a prior that needs no context, and data that the likelihood can have produced."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from dlvm.distributions import Sentences
from dlvm.distributions.sequences.lengths import check_lengths, steps_within
from dlvm.distributions.sequences.sentence_distribution import OfSentences, lengths_of
from dlvm.nets.arguments import count, module


def distribution_of(prior: nn.Module, name: str = "prior") -> Distribution:
    """What the prior, or what bears another name, returns, called without inputs.

    Raises:
        TypeError: it is no module, needs inputs, or returns something else than a distribution.
        ValueError: the distribution has a batch shape.
    """
    module(**{name: prior})
    remedy = "write StandardNormal(2), or a module whose forward(self) returns dist.Normal(loc, scale).to_event(1)"
    try:
        made = prior()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} {type(prior).__name__} must be callable without inputs, got {error}; {remedy}"
        ) from error
    if not isinstance(made, Distribution):
        raise TypeError(f"{name} must return a distribution, got {type(made).__name__}; {remedy}")
    if made.batch_shape:
        raise ValueError(
            f"{name} has batch shape {tuple(made.batch_shape)}, expected (); declare dimensions with to_event"
        )
    return made


def size(x: Tensor | None, n: int) -> int:
    """How many data the program is about: the rows of x, or n where x is to be drawn.

    Raises:
        TypeError: x is no tensor, or n no integer.
        ValueError: there are none.
    """
    if x is None:
        count(n=n)
        return n
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}; pass torch.as_tensor(x), or model(n=5) to draw")
    if not x.dim() or not len(x):
        raise ValueError(f"x must have at least one row, got shape {tuple(x.shape)}; pass one datum as x[None]")
    return len(x)


def fitting(x: Tensor | None, likelihood: Distribution, name: str = "x") -> Tensor | None:
    """x itself, or None: nothing is broadcast, each datum has the likelihood's event shape.

    Raises:
        ValueError: data have another shape.
    """
    if x is not None and x.shape[1:] != likelihood.event_shape:
        raise ValueError(
            f"{name} has events of shape {tuple(likelihood.event_shape)} under the likelihood, but the data have shape "
            f"{tuple(x.shape)}; make the likelihood's width that of the data, or reshape these, as x.flatten(1)"
        )
    return x


def sequences(x: Tensor, lengths: Tensor | None, x_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many sequences there are, and how many steps they have room for.

    Raises:
        TypeError: lengths are no whole numbers.
        ValueError: x has another shape or type, is empty, or lengths do not go with it.
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[2] != x_dim or not x.numel() or x.dtype != dtype:
        got = f"{tuple(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must have shape (batch, steps, {x_dim}) and be {dtype}, got {got}; one sequence is x[None]"
        )
    if lengths is not None:
        check_lengths(lengths, x.shape[1])
        if lengths.shape != (len(x),):
            raise ValueError(f"lengths must have shape ({len(x)},), one for each sequence, got {tuple(lengths.shape)}")
    return len(x), x.shape[1]


def sequences_to_draw(n: int, steps: int, lengths: Tensor | None) -> tuple[int, int]:
    """How many sequences to draw, of how many steps.

    Raises:
        TypeError: one is no integer, or lengths are no whole numbers.
        ValueError: one is below 1, or lengths do not go with them.
    """
    count(n=n, steps=steps)
    _of_rows(lengths, n, steps)
    return n, steps


def check_sentences(likelihood: object, decoder: bool) -> None:
    """Refuses a likelihood that is not of sentences, or has no decoder where one is needed, or one where none is.

    Raises:
        TypeError: it is no ``Sentences``.
        ValueError: it has a decoder, or none.
    """
    if not isinstance(likelihood, Sentences):
        got = f"the class {likelihood.__name__}" if isinstance(likelihood, type) else type(likelihood).__name__
        raise TypeError(f"likelihood must be Sentences, got {got}; write Sentences(CausalGRU(tokens))")
    if (likelihood.decoder is not None) != decoder:
        needed = "a decoder of z: Sentences(CausalGRU(tokens, context=H), decoder)" if decoder else "no decoder"
        raise ValueError(f"likelihood must have {needed}; a SentenceVAE has latents, a LanguageModel has none")


def sentences(
    likelihood: Sentences, x: Tensor | None, lengths: Tensor | None, n: int, steps: int
) -> tuple[int, int, Tensor | None]:
    """How many sentences there are, the room that they have, and how many tokens of each count.

    Raises:
        TypeError: tokens or lengths are no whole numbers.
        ValueError: x has another shape, a token within the lengths is out of range, a sentence goes on behind its end,
            or lengths do not go with it.
    """
    if x is None:
        count(n=n, steps=steps)
        return n, steps, _of_rows(lengths, n, steps)
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor of whole numbers, one for each token, got {got}; see Tensor.long()")
    if x.dim() != 2 or not x.numel():
        raise ValueError(f"x must have shape (batch, steps), got {tuple(x.shape)}; one sentence is x[None]")
    rows, steps = x.shape
    _of_rows(lengths, rows, steps)
    tokens, end = likelihood.net.outputs, likelihood.end
    ends = lengths_of(x, end)
    lengths = ends if lengths is None else lengths
    if bool((early := ends < lengths).any()):
        raise ValueError(
            f"x has {int(early.sum())} rows with tokens that count behind the end, token {end}; lengths count up to "
            "the first end and with it, and end=None is for tokens of which none ends a sentence"
        )
    if not bool((fits := OfSentences(tokens, end, steps_within(lengths, steps)).check(x)).all()):
        raise ValueError(
            f"x has {int((~fits).sum())} rows with tokens other than 0 to {tokens - 1}; number them by the alphabet "
            "that the net was made for"
        )
    return rows, steps, lengths


def _of_rows(lengths: Tensor | None, rows: int, steps: int) -> Tensor | None:
    if lengths is not None:
        check_lengths(lengths, steps)
        if lengths.shape != (rows,):
            raise ValueError(f"lengths must have shape ({rows},), one for each sequence, got {tuple(lengths.shape)}")
    return lengths
