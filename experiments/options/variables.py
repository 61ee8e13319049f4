"""What the variables of an autoregressive model are, told from the data: bits, grey levels or tokens; and sentences."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dlvm.distributions import Bits, Greys, MixedGreys, Tokens
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.distributions.sequences.sentence_distribution import lengths_of
from dlvm.experiments.data import Loader
from dlvm.experiments.data.readers.writing import END
from dlvm.experiments.options.fitting import MOST_CLASSES, Found, levels_of
from dlvm.nets import CausalGRU, CausalTCN

VariableWord = Literal["bits", "greys", "mixture"]
TokenNetWord = Literal["gru", "tcn"]
Element = Bits | Greys | MixedGreys | Tokens


def element_of(word: VariableWord, data: Loader) -> Element:
    """What a variable is: a token in a sequence and where columns hold classes, otherwise what the word says.

    Raises:
        ValueError: the data hold other numbers, or some are missing.
    """
    if data.has_missing:
        raise ValueError(
            "data have missing entries: where each column depends on those before it, leaving one out is no marginal; "
            "--model vae takes them, or give rows without holes"
        )
    if data.kind == "sequence":
        if data.x.ndim > 2 or data.x.is_floating_point():
            raise ValueError(f"data must be sequences of tokens, got x of shape {tuple(data.x.shape)}; --data names is")
        return Tokens(len(data.vocabulary) if data.vocabulary else int(data.x.max()) + 1)
    found = Found.of(data)
    if found.binary and word == "bits":
        return Bits()
    if found.whole and found.low >= 0 and 1 < found.high < MOST_CLASSES and data.image_shape is None:
        return Tokens(int(found.high) + 1)
    if word == "bits":
        raise ValueError(
            f"variables bits are 0 and 1 alone, {found}: of grey levels --binarize dynamic makes bits, and --variables "
            "greys takes them as they are"
        )
    return Greys(levels_of(data)) if word == "greys" else MixedGreys(levels=levels_of(data))


def dim_of(data: Loader) -> int:
    """How many variables a datum has: its columns, or the places of a sequence."""
    return math.prod(data.x.shape[1:])


def picture_shape(data: Loader) -> tuple[int, int, int]:
    """(channels, height, width) of data that are images.

    Raises:
        ValueError: they are none.
    """
    if data.image_shape is None:
        raise ValueError(
            f"data must be images, for a net that convolves over pixels, got {dim_of(data)} columns; --model made or "
            "transformer takes any"
        )
    *channels, height, width = data.image_shape
    return (*(channels or [1]), height, width)


def start_of(element: Element, data: Loader) -> Tensor:
    """Logits of how often each variable has each value, shape (dim, outputs); half a count more of each.

    A net that starts there knows each variable's own distribution, as if none depended on another; of a mixture its
    components start side by side about the mean, each as wide as its share.
    """
    x = data.x
    if isinstance(element, MixedGreys):
        apart = torch.linspace(-1.5, 1.5, element.components) if element.components > 1 else torch.zeros(1)
        loc = 4 * (x.mean(0).unsqueeze(-1) - 0.5) + apart
        return torch.cat([torch.zeros_like(loc), loc, torch.full_like(loc, -1.5)], -1)
    if isinstance(element, Bits):
        return torch.logit(x.mean(0), eps=1e-3).unsqueeze(-1)
    number = (x * (element.levels - 1)).round() if isinstance(element, Greys) else x
    counts = torch.stack([(number == level).sum(0) for level in range(element.levels)], -1) + 0.5
    return (counts / counts.sum(-1, keepdim=True)).log().to(torch.get_default_dtype())


def end_of(data: Loader) -> int | None:
    """The token that ends a sentence: 0 where the vocabulary says so, or all that stop do so there; else None.

    Raises:
        ValueError: sentences stop whose end does not count as a token.
    """
    lengths = data["lengths"]
    stops = lengths < data.x.shape[1]
    last = data.x.gather(1, lengths[:, None] - 1)[:, 0]
    named = bool(data.vocabulary) and data.vocabulary[0] == END
    ends = bool(stops.any()) and bool((lengths_of(data.x, 0) >= lengths).all())
    if bool((unended := stops & (last != 0)).any()) or bool(stops.any()) and not (named or ends):
        raise ValueError(
            f"data have {int(unended.sum())} sentences that stop without an end, so that where they stop would cost "
            f"nothing; let 0 be the token {END}, which is the last of each sentence alone, and count it in lengths"
        )
    return 0 if named or ends else None


def frequencies(data: Loader, tokens: int) -> Tensor:
    """Logits of how often each token is there within the lengths, shape (tokens,); half a count more of each."""
    within = steps_within(data["lengths"], data.x.shape[1])
    counts = torch.bincount(data.x[within], minlength=tokens) + 0.5
    return (counts / counts.sum()).log().to(torch.get_default_dtype())


def token_net(word: TokenNetWord, tokens: int, width: int, layers: int, context: int = 0) -> nn.Module:
    """What sees earlier tokens: gated states, or dilated convolutions of three positions."""
    if word == "gru":
        return CausalGRU(tokens, width, layers, context)
    return CausalTCN(tokens, width, layers, context=context)
