"""The VAE of sentences: a latent vector for each, and a recurrent or convolutional decoder that sees earlier tokens."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Sentences, StandardNormal
from dlvm.models.arguments import check_sentences, distribution_of, sentences
from dlvm.nets.arguments import count


class SentenceVAE(PyroModule):
    """A latent vector per sentence, and tokens of which each depends on it and on those before.

        p(x, z) = p(z) prod_{t <= L} p(x_t | x_{<t}, z)

    The end is a token like the others and counts, so that log p(x) is that of whole sentences, and bits per character
    those of a language model. The decoder alone can model any sentence: a guide that tells nothing of x, at a rate of
    0, is a stationary point, from which warm-up, free bits and word dropout keep it.

    Sites:
        z: shape (batch, z_dim), real unless the prior says otherwise; latent.
        x: shape (batch, steps), whole numbers; observed, or drawn where ``x=None``.

    Args:
        z_dim: number of latent dimensions.
        likelihood: p(x | z), ``Sentences(net, decoder)`` with a decoder of z.
        prior: distribution p(z), a module without inputs; ``StandardNormal(z_dim)`` unless told.
        steps: how many tokens a sentence that is drawn has at most, unless told in the call.

    Raises:
        ValueError: the prior's event shape is not (z_dim,), the likelihood has no decoder, or a number is below 1; when
            called, tokens are out of range, lengths do not go with them, or a sentence goes on behind its end.
        TypeError: the likelihood is no ``Sentences``; when called, tokens or lengths are no whole numbers.

    References:
        Generating Sentences from a Continuous Space, Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio, 2016,
            arXiv:1511.06349.

    Example:
        >>> from torch import nn
        >>> from dlvm.nets import CausalGRU
        >>> SentenceVAE(2, Sentences(CausalGRU(28, context=4), nn.Linear(2, 4)))(n=5, steps=7).shape
        torch.Size([5, 7])
    """

    def __init__(self, z_dim: int, likelihood: Sentences, prior: nn.Module | None = None, steps: int = 100):
        super().__init__("model")
        count(z_dim=z_dim, steps=steps)
        check_sentences(likelihood, decoder=True)
        prior = StandardNormal(z_dim) if prior is None else prior
        event_shape = distribution_of(prior).event_shape
        if event_shape != (z_dim,):
            raise ValueError(
                f"prior has event shape {tuple(event_shape)} where z_dim={z_dim} needs ({z_dim},); "
                "make both the same, and declare dimensions with to_event(1)"
            )
        self.prior, self.likelihood, self.steps = prior, likelihood, steps

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
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z, steps=steps, lengths=lengths), obs=x)
