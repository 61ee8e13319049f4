"""What an evaluation and a training come to, in plain words, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, runtime_checkable

FEWEST_EPOCHS = 10
SMALL_RISE = 0.0005
KHAT_SHARE = 0.1
WIDE_GAP = 0.05
COARSE = 0.1


@runtime_checkable
class Evaluated(Protocol):
    """What is looked at of an ``Evaluation``, whose attributes these are."""

    @property
    def elbo(self) -> float: ...
    @property
    def log_px(self) -> float: ...
    @property
    def log_px_se(self) -> float: ...
    @property
    def rate(self) -> float: ...
    @property
    def ess(self) -> float: ...
    @property
    def khat_bad(self) -> float: ...
    @property
    def num_particles(self) -> int: ...
    @property
    def active_units(self) -> int | None: ...
    @property
    def units(self) -> int: ...


@runtime_checkable
class Validated(Protocol):
    """What is looked at of an ``Epoch``: the bound on validation data, nats per datum."""

    @property
    def valid(self) -> float | None: ...


@dataclass(frozen=True)
class Verdict:
    """Plain words on a trained pair; the sentences, in this order, and what they rest on.

    Attributes:
        converged: whether the validation bound has stopped rising; None where no training was given.
        collapsed: whether some latent dimension says nothing of x; None for one particle.
        trustworthy: whether the estimate of log p(x) is; None where there is no k-hat.
        sentences: one for each of these.
        next: the next thing to try.
    """

    converged: bool | None
    collapsed: bool | None
    trustworthy: bool | None
    sentences: tuple[str, ...]
    next: str

    def __str__(self) -> str:
        return " ".join((*self.sentences, f"Next: {self.next}."))


def verdict(result: Evaluated, history: Sequence[Validated] = ()) -> Verdict:
    """Whether training has converged, units have collapsed, and log p(x) is known; and what to try.

    Args:
        result: from ``evaluate``.
        history: epochs of ``fit`` with a validation bound, if there are any.

    Raises:
        TypeError: ``result`` or ``history`` is something else.

    Example:
        >>> from dlvm.inference.evaluation.evaluate import Evaluation
        >>> bounds = dict(elbo=-2.0, elbo_se=0.01, log_px=-1.9, log_px_se=0.01, rate=1.0, distortion=1.0)
        >>> weights = dict(ess=90.0, khat=0.2, khat_bad=0.3, bits_per_dim=0.3, num_particles=100, num_data=50)
        >>> verdict(Evaluation(**bounds, **weights, active_units=2, units=2)).sentences[0]
        'All 2 latent units are active.'
    """
    if isinstance(result, type) or not isinstance(result, Evaluated):
        raise TypeError(f"result must be what evaluate returns, got {type(result).__name__}; pass evaluate(...)")
    epochs = list(history) if isinstance(history, Iterable) else [history]
    if not all(isinstance(epoch, Validated) for epoch in epochs):
        raise TypeError(f"history must be the epochs of fit, got {history!r:.60}; pass list(fit(...))")
    converged, training, longer = _training(epochs)
    collapsed, units, wake = _units(result)
    trustworthy, estimate, sample = _estimate(result)
    remedies = [longer, wake, sample, _gap(result), "compare guides or objectives"]
    said = tuple(text for text in (training, units, estimate) if text)
    return Verdict(converged, collapsed, trustworthy, said, next(text for text in remedies if text))


Finding = tuple[bool | None, str, str]


def _training(history: Sequence[Validated]) -> Finding:
    values = [epoch.valid for epoch in history if epoch.valid is not None]
    if len(values) < FEWEST_EPOCHS:
        return None, f"{len(values)} epochs are too few to see convergence." if history else "", ""
    window = max(3, len(values) // 10)
    rise = fmean(values[-window:]) - fmean(values[-2 * window : -window])
    best = max(values)
    small = max(SMALL_RISE * abs(best), 0.01)
    if best - max(values[-window:]) > 4 * small:
        at = values.index(best) + 1
        fall = best - values[-1]
        text = f"The validation bound was best in epoch {at} and has fallen by {fall:.2f} nats since: it overfits."
        return (
            True,
            text,
            "a smaller model, more data, or noise (dynamic binarisation); patience keeps the best epoch",
        )
    if rise > small:
        text = f"Not converged: the validation bound still rose by {rise:.2f} nats over the last {window} epochs."
        return False, text, "train longer, or let the learning rate fall"
    return True, f"Converged: the validation bound moved by {rise:+.2f} nats over the last {window} epochs.", ""


def _units(result: Evaluated) -> Finding:
    if result.active_units is None or not result.units:
        return None, "", ""
    asleep = result.units - result.active_units
    if not asleep:
        plural = "All" if result.units > 1 else "The"
        return False, f"{plural} {result.units} latent unit{'s are' if result.units > 1 else ' is'} active.", ""
    if not result.active_units:
        text = f"Collapsed: none of {result.units} latent units says anything of x."
        return True, text, "a KL warm-up (tempered), free_bits, or a weaker decoder"
    text = f"{asleep} of {result.units} latent units are collapsed to the prior"
    wake = "" if asleep * 2 < result.units else "a KL warm-up (tempered) or free_bits, or fewer latent dimensions"
    return True, text + ("." if wake else ", which a model with more units than it needs may do."), wake


def _estimate(result: Evaluated) -> Finding:
    if math.isnan(result.khat_bad):
        few = result.num_particles < 25
        return None, "log p(x) has no k-hat, so that nothing vouches for it.", "25 particles or more" if few else ""
    if result.khat_bad > KHAT_SHARE:
        text = (
            f"log p(x) is too low by an unknown amount: k-hat exceeds 0.7 for {100 * result.khat_bad:.0f} % of the "
            f"data and {result.ess:.1f} of {result.num_particles} particles count."
        )
        return False, text, "annealed importance sampling, a defensive proposal, or a richer guide"
    if result.log_px_se > COARSE:
        return True, f"log p(x) is known to {result.log_px_se:.2f} nats only.", "more particles"
    fine = (
        "k-hat is fine" if not result.khat_bad else f"k-hat exceeds 0.7 for {100 * result.khat_bad:.0f} % of the data"
    )
    return True, f"log p(x) is known to {max(result.log_px_se, 0.01):.2f} nats: {fine}.", ""


def _gap(result: Evaluated) -> str:
    gap = result.log_px - result.elbo
    if gap > max(1.0, WIDE_GAP * result.rate):
        return f"a richer guide or a larger encoder, since the ELBO lies {gap:.1f} nats below log p(x)"
    return ""
