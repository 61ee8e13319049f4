"""The language model: sentences without latents, token by token."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from dlvm.distributions import Sentences
from dlvm.models.arguments import check_sentences, sentences
from dlvm.nets.arguments import count


class LanguageModel(PyroModule):
    """Tokens of which each depends on those before, without latents: log p(x) is exact.

        p(x) = prod_{t <= L} p(x_t | x_{<t})

    What a ``SentenceVAE`` is when nobody asks z. The end is a token like the others, and counts.

    Sites:
        x: shape (batch, steps), whole numbers; observed, or drawn where ``x=None``.

    Args:
        likelihood: p(x), ``Sentences(net)`` without a decoder.
        steps: how many tokens a sentence that is drawn has at most, unless told in the call.

    Raises:
        ValueError: the likelihood has a decoder, or ``steps`` is below 1; when called, tokens are out of range, lengths
            do not go with them, or a sentence goes on behind its end.
        TypeError: the likelihood is no ``Sentences``; when called, tokens or lengths are no whole numbers.

    References:
        Recurrent Neural Network Based Language Model, Mikolov, Karafiat, Burget, Cernocky, Khudanpur, 2010,
            Interspeech.

    Example:
        >>> from dlvm.nets import CausalGRU
        >>> LanguageModel(Sentences(CausalGRU(28)))(n=5, steps=7).shape
        torch.Size([5, 7])
    """

    def __init__(self, likelihood: Sentences, steps: int = 100):
        super().__init__("model")
        count(steps=steps)
        check_sentences(likelihood, decoder=False)
        self.likelihood, self.steps = likelihood, steps

    def forward(
        self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int | None = None
    ) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps), or None to draw.
            lengths: how many tokens of each sentence count, shape (batch,); all up to the end unless told.
            n: how many sentences to draw where x is None.
            steps: room for so many tokens where x is None.

        Returns:
            x, shape (batch, steps); ends behind the end.
        """
        rows, steps, lengths = sentences(self.likelihood, x, lengths, n, self.steps if steps is None else steps)
        with pyro.plate("data", rows):
            return pyro.sample("x", self.likelihood(steps=steps, lengths=lengths), obs=x)
