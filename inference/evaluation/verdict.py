"""What an evaluation and a training come to, in plain words, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, runtime_checkable

from dlvm.inference.evaluation.second_opinion import FINE, TELLING

FEWEST_EPOCHS = 10
SMALL_RISE = 0.0005
EVEN = 0.9999  # share of particles that count where their weights are equal to rounding
KHAT_SHARE = 0.1
WIDE_GAP = 0.05
COARSE = 0.1
IDLE_RATE = 0.1  # nats
IDLE_RATE_OF_A_UNIT = 0.01
ROUNDING = 1e-6


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
    @property
    def log_px_bias(self) -> float: ...
    @property
    def fixed_units(self) -> int: ...
    @property
    def second_opinion(self) -> float: ...
    @property
    def second_opinion_margin(self) -> float: ...
    @property
    def second_opinion_ess(self) -> float: ...
    @property
    def second_opinion_data(self) -> int: ...


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
        trustworthy: whether the estimate of log p(x) is; None where k-hat and a second opinion do not both vouch for
            it.
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
    remedies = [longer, wake, sample, _gap(result), _vouching(trustworthy), _other(result)]
    said = tuple(text for text in (training, units, estimate) if text)
    return Verdict(converged, collapsed, trustworthy, said, next(text for text in remedies if text))


Finding = tuple[bool | None, str, str]


def _training(history: Sequence[Validated]) -> Finding:
    values = [epoch.valid for epoch in history if epoch.valid is not None]
    if len(values) < FEWEST_EPOCHS:
        longer = f"{FEWEST_EPOCHS} epochs or more" if values else ""
        return None, f"{len(values)} epochs are too few to see convergence." if history else "", longer
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
    if result.fixed_units:
        text = f"{result.fixed_units} of {result.units} latent units have one answer for all x, and not the prior's."
        if asleep > result.fixed_units:
            text += f" {asleep - result.fixed_units} more are collapsed to the prior."
        return True, text, "other starts of the guide, or one that mixes or enumerates: it may sit on one mode of many"
    if not result.active_units and result.rate > max(IDLE_RATE, IDLE_RATE_OF_A_UNIT * result.units):
        text = f"None of {result.units} latent units has a mean that tells of x, yet q is {result.rate:.1f} nats from "
        return (
            True,
            text + "the prior.",
            "a look at q(z | x): it may be one answer for all x, or tell of x by its spread",
        )
    if not result.active_units:
        text = f"Collapsed: none of {result.units} latent units says anything of x."
        return True, text, "a KL warm-up (tempered), free_bits, or a weaker decoder"
    text = f"{asleep} of {result.units} latent units are collapsed to the prior"
    wake = "" if asleep * 2 < result.units else "a KL warm-up (tempered) or free_bits, or fewer latent dimensions"
    return True, text + ("." if wake else ", which a model with more units than it needs may do."), wake


def _estimate(result: Evaluated) -> Finding:
    if _is_exact(result):
        return True, "log p(x) is exact: nothing is drawn.", ""
    least = f"log p(x) is at least {result.log_px:.2f} nats"
    excess, margin, count = result.second_opinion, result.second_opinion_margin, result.second_opinion_data
    if excess > margin:
        text = (
            f"{least}, and more: by draws from the prior it is {excess:.2f} nats higher for {count} data than by the "
            "guide, which misses a part of the posterior."
        )
        return False, text, "a defensive proposal, annealed importance sampling, or other starts of the guide"
    if _is_alike(result):
        text = (
            f"All weights of a datum are alike: {result.log_px:.2f} nats is a bound without noise, and log p(x) itself "
        )
        return None, text + "where the guide is the posterior.", "a prior or a guide that says more"
    unknown = math.isnan(result.khat_bad)
    if not unknown and result.khat_bad > KHAT_SHARE:
        text = (
            f"{least}, too low by an unknown amount: k-hat exceeds 0.7 for {100 * result.khat_bad:.0f} % of the "
            f"data and {result.ess:.1f} of {result.num_particles} particles count."
        )
        return False, text, "annealed importance sampling, a defensive proposal, or a richer guide"
    agreed = result.second_opinion_ess >= TELLING and abs(excess) <= margin
    if unknown and not agreed:
        if result.num_particles > 1 and EVEN < result.ess / result.num_particles < 2 - EVEN:
            return None, "All particles weigh the same, as under the posterior; nothing else vouches for log p(x).", ""
        few = result.num_particles < 25
        return None, "log p(x) has no k-hat, so that nothing vouches for it.", "25 particles or more" if few else ""
    bias = 0.0 if math.isnan(result.log_px_bias) else result.log_px_bias
    if bias > max(result.log_px_se, FINE):
        text = f"{least}, which is perhaps {bias:.2f} too low, since the particles are few."
        return agreed or None, text, "more particles"
    error = max(result.log_px_se, bias, FINE)
    known = f"{error:.2f} nats{' only' if error > COARSE else ''}"
    fine = f"k-hat exceeds 0.7 for {100 * result.khat_bad:.0f} % of the data" if result.khat_bad else "k-hat is fine"
    if agreed:
        fine = "there is no k-hat" if unknown else fine
        text = (
            f"log p(x) is known to {known}: {fine}, and draws from the prior agree within {margin:.2f} on {count} data."
        )
    else:
        text = f"{least}, known to {known} as far as the guide goes: {fine}, and nothing else vouches for it."
    return agreed or None, text, "more particles" if error > COARSE else ""


def _is_exact(result: Evaluated) -> bool:
    """Whether nothing was drawn, so that every weight is p(x) itself."""
    return not result.units and not result.log_px_se and not result.rate


def _is_alike(result: Evaluated) -> bool:
    """Whether the guide draws what always weighs the same, as a point mass does."""
    gap = abs(result.log_px - result.elbo)
    return result.num_particles > 1 and not result.log_px_se and gap <= ROUNDING * abs(result.elbo)


def _other(result: Evaluated) -> str:
    return "another model" if _is_exact(result) else "compare guides or objectives"


def _vouching(trustworthy: bool | None) -> str:
    return "annealed importance sampling, for a second opinion" if trustworthy is None else ""


def _gap(result: Evaluated) -> str:
    gap = result.log_px - result.elbo
    if gap > max(1.0, WIDE_GAP * result.rate):
        return f"a richer guide or a larger encoder, since the ELBO lies {gap:.1f} nats below log p(x)"
    return ""
