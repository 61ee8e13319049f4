"""The slower ways: every objective, guides built from latents, the other estimates of log p(x), the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pyro import infer

from dlvm import guides, inference
from dlvm.evidence import defensive, enumerated, importance, prior_sampling, quadrature, simulate, views
from dlvm.inference import ELBO, IWAE
from programs.alone import quiet
from programs.brought import Brought, Pair
from programs.claims import SIGMAS, Claim, expected, mean, near, same, stock_bound
from programs.ways import Way, estimate, estimator, fit_elbo, fitted, log_px, losses, rows_of

PARTICLES = 2000
NESTING = 2


def objective(make: Callable[[Pair], infer.ELBO], noise: float = 0.0) -> Way:
    """An epoch with an objective: what is reported lies between the ELBO and log p(x), give or take ``noise``."""

    def way(program: Brought) -> list[Claim]:
        pair = program.pair()
        (epoch,) = fitted(pair, make(pair))
        low, spread = expected(program, pair, mean, 1)
        within = 2 * SIGMAS * spread + pair.tolerance + noise + 1e-3
        return [Claim(word, getattr(epoch, word), low - within, pair.reported + within) for word in ("train", "valid")]

    return way


def ours(kind: Callable, *settings, noise: float = 0.0, **others) -> Way:
    """One of ours, with an estimator where the pair needs one."""
    return objective(lambda pair: kind(*settings, estimator=estimator(pair), **others), noise)


def shown(make: Callable) -> Way:
    """One that is made without an estimator of the pair's."""
    return objective(lambda pair: make())


def stocks(make: Callable[[], infer.ELBO], told: Callable[[], infer.ELBO] | None = None) -> Way:
    """One of Pyro's, beside Pyro on the same noise; where Pyro itself fails there is nothing to be held to.

    ``told``: whose bound is reported for it, where it has none.
    """

    def way(program: Brought) -> list[Claim] | None:
        try:
            right = stock_bound(program, make)
            right = right if told is None else stock_bound(program, told)
        except Exception:
            return None
        (epoch,) = fitted(program.pair(), make())
        return [same("train", epoch.train, right)]

    return way


def trusted(pair: Pair, guide: Callable) -> list[Claim]:
    """log p(x) of the data of which k-hat says that it is known, added up."""
    if not pair.per_datum:
        return []
    found = importance(pair.model, guide, pair.batches, num_particles=PARTICLES, engine="eager")
    good = found.khat < 0.5
    error = found.log_px_se[good].square().sum()
    within = good.sum() * pair.tolerance + SIGMAS * error.sqrt() + 0.5 * error + 0.1
    apart = (found.log_px - pair.log_px.double())[good].sum()
    return [near(f"log p(x) of {int(good.sum())} data, less what is right", apart, 0.0, float(within))]


def guided(family: Callable) -> Way:
    """A guide from ``latents``, as it comes: log p(x) by many particles, and a bound below it."""

    def way(program: Brought) -> list[Claim] | None:
        pair = program.pair()
        if pair.encoder is None or (program.kind == "particles" and family is not guides.Diagonal):
            return None  # what nets do to particles is the same for all families, and takes minutes
        encoder = pair.encoder()
        guide = family(guides.latents(pair.model, *(pair.spec or pair.first)), encoder)
        guide = guide.to(next(encoder.parameters()).dtype)
        e = inference.evaluate(pair.model, guide, pair.batches, num_particles=PARTICLES, engine="eager")
        known = trusted(pair, guide)  # before training, which moves what batch normalisation keeps
        (epoch,) = fitted(replace(pair, guide=guide), ELBO(50, estimator(pair)))
        found = log_px(pair, e.log_px, e.log_px_se)
        if e.khat_bad > 0:  # then log p(x) is said to be known as a lower bound only, datum by datum
            found = found._replace(low=-float("inf"))
        bound = Claim("ELBO(50)", epoch.train, -float("inf"), pair.reported + 0.15)
        return [found, bound, *known]

    return way


def evidence(method: Callable, guided: bool = False, **settings) -> Way:
    """An estimate of log p(x) by the model, or by the pair."""

    def way(program: Brought) -> list[Claim]:
        pair = program.pair()
        programs = (pair.model, pair.guide) if guided else (pair.model,)
        return estimate(pair, method(*programs, pair.batches, **settings))

    return way


def taken_apart(program: Brought) -> list[Claim]:
    """The ELBO that ``views`` divides."""
    pair = program.pair()
    found = views(pair.model, pair.guide, pair.batches, num_particles=20, draws=100)
    right, spread = expected(program, pair, mean, 1, training=False)
    within = SIGMAS * (2 * spread + found.elbo.se) + pair.tolerance + 1e-2
    low, high = sorted((right, right - pair.reported + pair.right))  # what counts once a batch may be in it or not
    elbo = Claim("elbo", float(found.elbo.value), low - within, high + within)
    return [elbo, near("num_data", found.num_data, pair.num_data, 0)]


def simulated(program: Brought) -> list[Claim]:
    """As many new data as the first batch has."""
    pair = program.pair()
    with quiet():
        rows = rows_of(pair)
        found = simulate(pair.model, rows, example=pair.first)
    return [near("num_data", found.num_data, rows, 0)]


WAYS: dict[str, Way] = {
    "ELBO(3)": ours(ELBO, 3),
    "ELBO(analytic_kl)": ours(ELBO, 100, analytic_kl=True, noise=0.25),
    "ELBO(STL)": shown(lambda: ELBO(1, inference.STL())),
    "IWAE(5, DReG)": shown(lambda: IWAE(5, inference.DReG())),
    "IWAE(5, VIMCO)": shown(lambda: IWAE(5, inference.VIMCO())),
    "IWAE(5, GumbelSoftmax)": shown(lambda: IWAE(5, inference.GumbelSoftmax(0.5))),
    "MIWAE(2, 3)": ours(inference.MIWAE, 2, 3),
    "PIWAE(2, 3)": ours(inference.PIWAE, 2, 3),
    "CIWAE(0.5, 5)": ours(inference.CIWAE, 0.5, 5),
    "Renyi(0.5, 5)": ours(inference.Renyi, 0.5, 5),
    "VRMax(5)": ours(inference.VRMax, 5),
    "TVO(5)": ours(inference.TVO, 5),
    "CUBO(2, 5)": ours(inference.CUBO, 2.0, 5),
    "WakeSleep(3)": shown(lambda: inference.WakeSleep(3)),
    "RWS(5)": shown(lambda: inference.RWS(5)),
    "tempered(IWAE(5))": objective(lambda pair: inference.tempered(IWAE(5, estimator(pair)), 0.5)),
    "free_bits(ELBO)": objective(lambda pair: inference.free_bits(ELBO(1, estimator(pair)), 0.1)),
    "capacity(ELBO)": objective(lambda pair: inference.capacity(ELBO(1, estimator(pair)), 0.5, 1.0)),
    "total_correlation(ELBO)": objective(lambda pair: inference.total_correlation(ELBO(1, estimator(pair)), 2.0)),
    "MaximumLikelihood": shown(inference.MaximumLikelihood),
    "Trace_ELBO(2)": stocks(lambda: infer.Trace_ELBO(2)),
    "Trace_ELBO(5, vectorized)": stocks(lambda: infer.Trace_ELBO(5, NESTING, vectorize_particles=True)),
    "TraceMeanField_ELBO": stocks(infer.TraceMeanField_ELBO),
    "TraceGraph_ELBO": stocks(infer.TraceGraph_ELBO),
    "TraceEnum_ELBO": stocks(lambda: infer.TraceEnum_ELBO(max_plate_nesting=NESTING)),
    "RenyiELBO(0.5, 3)": stocks(lambda: infer.RenyiELBO(0.5, 3)),
    "TraceTailAdaptive_ELBO(4)": stocks(
        lambda: infer.TraceTailAdaptive_ELBO(4, NESTING, vectorize_particles=True),
        lambda: infer.Trace_ELBO(4, NESTING, vectorize_particles=True),
    ),
    "ReweightedWakeSleep(3)": shown(lambda: infer.ReweightedWakeSleep(3, max_plate_nesting=NESTING)),
    "Diagonal": guided(guides.Diagonal),
    "FullRank": guided(guides.FullRank),
    "IAF": guided(partial(guides.IAF, width=16)),
    "prior_sampling": evidence(prior_sampling, num_particles=PARTICLES, engine="eager"),
    "defensive": evidence(defensive, True, num_particles=PARTICLES),
    "enumerated": evidence(enumerated),
    "quadrature": evidence(quadrature),
    "views": taken_apart,
    "simulate": simulated,
    "losses captured": partial(losses, engine="captured"),
    "fit auto": partial(fit_elbo, engine="auto"),
}
