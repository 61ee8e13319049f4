"""A net that tells one kind of rows from another, trained beside the pair that it judges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import logsigmoid, softplus

from dlvm.nets import out_features
from dlvm.nets.arguments import module

SignalWord = Literal["non_saturating", "reversed", "log_ratio"]
SIGNALS: dict[str, Callable[[Tensor], Tensor]] = {  # of the log-odds of being real: what makers of fakes maximise
    "non_saturating": logsigmoid,
    "reversed": softplus,
    "log_ratio": lambda log_odds: log_odds,
}


class Discriminator(nn.Module):
    """Tells rows of one kind ("real") from those of another ("fake"), and is owned by the objective that uses it.

        V(D) = E_real log D(a) + E_fake log (1 - D(b)),   D = sigmoid(head(activation(net)))
        max_D V = 2 JS(real || fake) - 2 log 2

    D is raised on V with what made the rows held; who makes fakes is raised on the signal with D held, in the same
    step, by the same optimizer: there is no loop of its own. The signal of a fake's log-odds s is

        non_saturating   log D            the usual one, strong where D is sure
        reversed         -log (1 - D)     the gradient of V itself, with its sign reversed
        log_ratio        s                where D is best, log real / fake: its mean is -KL(fake || real)

    Args:
        net: rows -> features, with ``out_features``; its ``activation``, if it has one, is applied to these.
        signal: "non_saturating", "reversed" or "log_ratio".

    Raises:
        TypeError: ``net`` is no module, or has no ``out_features``.
        ValueError: an unknown signal.

    References:
        Generative Adversarial Networks, Goodfellow et al., 2014, arXiv:1406.2661.
        Unsupervised Domain Adaptation by Backpropagation, Ganin, Lempitsky, 2015, arXiv:1409.7495 (reversal).

    Example:
        >>> from dlvm.nets import MLP
        >>> Discriminator(MLP(2, 16, 16))
        Discriminator(MLP, signal='non_saturating')
    """

    def __init__(self, net: nn.Module, signal: SignalWord = "non_saturating"):
        super().__init__()
        module(net=net)
        if signal not in get_args(SignalWord):
            raise ValueError(f"signal must be one of {', '.join(get_args(SignalWord))}, got {signal!r}")
        self.net, self.head, self.signal = net, nn.Linear(out_features(net), 1), signal

    def __repr__(self) -> str:
        return f"Discriminator({type(self.net).__name__}, signal={self.signal!r})"

    def features(self, rows: Tensor) -> Tensor:
        """The last hidden layer, shape (n, out_features of the net)."""
        activation = getattr(self.net, "activation", None)
        found = self.net(rows)
        return activation(found) if isinstance(activation, nn.Module) else found

    def forward(self, rows: Tensor) -> Tensor:
        """Log-odds of being real, shape (n,)."""
        return self.head(self.features(rows)).squeeze(-1)

    def game(self, real: Tensor, fake: Tensor) -> Tensor:
        """V for each pair of rows, shape (n,), nats; ``fake`` has as many rows as ``real``."""
        return logsigmoid(self(real)) + logsigmoid(-self(fake))

    @torch.no_grad()
    def jensen_shannon(self, real: Tensor, fake: Tensor) -> Tensor:
        """An estimate of JS(real || fake) from below, nats: exact where D is the best there is; a 0-d tensor."""
        return 0.5 * (logsigmoid(self(real)).mean() + logsigmoid(-self(fake)).mean()) + math.log(2.0)

    def learned(self, real: Tensor, fake: Tensor) -> Tensor:
        """What D is to be raised on, shape (n,): V, with both kinds of rows held."""
        return self.game(real.detach(), fake.detach())

    def pull(self, rows: Tensor, as_real: bool = True) -> Tensor:
        """What makers of rows are to be raised on, shape (n,), with D held: to be taken for real, or for fake."""
        log_odds = self.held(lambda: self(rows))
        return SIGNALS[self.signal](log_odds if as_real else -log_odds)

    def held_features(self, rows: Tensor) -> Tensor:
        """``features``, with D's parameters held."""
        return self.held(lambda: self.features(rows))

    def gain(self, codes: Tensor, prior: Tensor, weight: float) -> Tensor:
        """What is to be maximised for each datum, shape (batch,), where codes are to become draws of the prior."""
        found = self.learned(prior, codes) + weight * self.pull(codes)
        return found + weight * self.pull(prior, as_real=False) if prior.requires_grad else found

    def held(self, run: Callable[[], Tensor]) -> Tensor:
        """What ``run()`` returns, with this module's parameters as constants."""
        constants = {f"inner.{name}": value.detach() for name, value in self.named_parameters()}
        return functional_call(_Running(self, run), constants, ())


class _Running(nn.Module):
    """A module whose call runs something else, so that its parameters can be held meanwhile."""

    def __init__(self, inner: nn.Module, run: Callable[[], Tensor]):
        super().__init__()
        self.inner, self.run = inner, run

    def forward(self) -> Tensor:
        return self.run()
