"""What the estimators of evidence refuse."""

from __future__ import annotations

import inspect

import torch
from hypothesis.strategies import SearchStrategy, integers, sampled_from
from pyro.infer import Trace_ELBO

import dlvm.evidence as room
from dlvm.evidence import Estimate, Simulated
from dlvm.guides import Diagonal, FullRank
from dlvm.inference import ELBO, IWAE
from dlvm.models import VAE
from refusals import evidence_parts
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_DATA, NOT_FINITE, NOT_NUMBERS, NOT_SEEDS, Case
from refusals.evidence_programs import (
    BAYESIAN,
    LABELS,
    OF_ROWS,
    OF_WEIGHTS,
    PAIR,
    ROWS,
    VALID,
    Knows,
    another_site,
    coins,
    nothing,
    nothing_latent,
    shared,
    too_wide,
)
from refusals.pairs import LINEAR, MODEL, X

ROOM = room
NOT_COUNTS_OR_NONE = NOT_COUNTS.filter(lambda v: v is not None)
NOT_PROGRAMS = NOT_CALLABLE | sampled_from([VAE, Diagonal, {}, object(), True, room])
NOT_ENGINES = NOT_CALLABLE | sampled_from(["fast", "", True, ["auto"], {}])
NOT_SHARES = NOT_NUMBERS | NOT_FINITE | sampled_from([None, 0.0, 1.0, 0, 1, -0.1, 1.1, True, torch.tensor([0.5])])
NOT_POSITIVE = NOT_NUMBERS | NOT_FINITE | sampled_from([None, 0, 0.0, -1.0, False, torch.ones(2)])
NO_BATCHES = NOT_DATA | sampled_from(
    [None, {}, [], (), [3], ["x"], [[]], [()], [(X, X), None], [None, X], {"x": X}, iter([]), b"x", X.numpy()]
    + [torch.zeros(0, 4), [X, torch.zeros(0, 4)], torch.zeros(4, 4, requires_grad=True)]
)
WRONG_SHAPES = sampled_from([(6, 5), (6, 0), (6,), (3, 6, 5), (1,), (6, 4, 1), (6, 1)]).map(torch.zeros)
HOLED = sampled_from([3, 5]).map(lambda row: X.index_fill(0, torch.tensor([row]), torch.nan))

USUAL = [
    ("model", NOT_PROGRAMS, None),
    ("model", sampled_from([PAIR["guide"]]), None),
    ("guide", NOT_PROGRAMS.filter(lambda v: v is not None), None),
    ("guide", sampled_from([another_site, nothing]), None),
    ("data", NO_BATCHES, "batch"),
    ("data", WRONG_SHAPES, "shape"),
    ("data", HOLED, "NaN"),
    ("num_particles", NOT_COUNTS, None),
    ("num_chains", NOT_COUNTS, None),
    ("temperatures", NOT_COUNTS, None),
    ("leaps", NOT_COUNTS, None),
    ("rows", NOT_COUNTS_OR_NONE, None),
    ("chunk", NOT_COUNTS_OR_NONE, None),
    ("seed", NOT_SEEDS, None),
    ("engine", NOT_ENGINES, None),
    ("target_acceptance", NOT_SHARES, None),
]
NOT_SCHEDULES = NOT_CALLABLE | sampled_from(
    [
        lambda t: None,
        lambda t: "rising",
        lambda t: [0.0, 1.0],
        lambda t: [0.0, 0.5, torch.nan],
        lambda t: [[0.0], [0.5, 1.0]],
        lambda t: torch.linspace(1, 0, t + 1),
        lambda t: torch.linspace(0, 1, t + 1)[None],
        lambda t: torch.linspace(0.1, 1, t + 1),
        lambda t: torch.zeros(t + 1),
    ]
)
NOT_SIMULATED = sampled_from(
    [None, {}, {"w": torch.zeros(6, 2)}, {"z": None}, {"z": torch.zeros(6, 2), "y": torch.zeros(6)}]
    + [{"z": torch.zeros(n, width)} for n, width in ((6, 3), (5, 2), (7, 2), (1, 2), (6, 0))]
    + [{"z": torch.zeros(2)}, {"z": torch.full((6, 2), torch.nan)}, {"z": torch.full((6, 2), torch.inf)}]
).map(lambda values: Simulated((X,), values))
NOT_LEVELS = (
    NOT_NUMBERS
    | NOT_FINITE.map(lambda v: (0.5, v))
    | sampled_from(
        [None, 0.5, "0.5", (0,), (1.0,), (-0.1, 0.5), ("0.5",), (None,), (1j,), (True,), [[0.5]], {0.5}, iter([0.5])]
    )
)
NOT_EXAMPLES = sampled_from([3, "x", X, (), [], (3,), (None,), (torch.tensor(1.0),), [X] * 4, {"x": X}, object()])
NOT_SITES = sampled_from([3, "y", "z", "", object(), ["x"], {}, 1.5, True, ("x",)])
NOT_IMAGES = sampled_from(
    [3, "22", (4,), (2, 3), (0, 4), (-2, -2), (2.0, 2.0), (1, 1, 2, 2), (None, 4), ("2", "2"), (), X, (4, True), {2: 2}]
)
NOT_LOCAL = sampled_from([1, "FullRank", [], {}, PAIR["guide"], FullRank, torch.nn.Linear]) | sampled_from(
    [lambda spec: None, lambda spec, n: None, lambda spec, n: 3, lambda spec, n: another_site, lambda spec, n: FullRank]
)
NOT_OBJECTIVES = sampled_from([3, "ELBO", ELBO, Trace_ELBO, IWAE, object(), torch.nn.MSELoss(), [], True])
NOT_ESTIMATES = sampled_from([3.0, X, "exact", object(), Estimate, Estimate.exactly("", torch.zeros(5)), [], {}])
NOT_ANSWERS = sampled_from([None, 3, lambda x: None, lambda x: 3.0, lambda x: x, lambda x: x.sum(-1) * torch.nan])
FAILING = sampled_from([lambda x: x @ x, lambda x: x.double() @ torch.ones(4, 1), lambda x: x[:, :3].view(-1, 4)])

NOT_STEPS = sampled_from([-1, 2.5, "3", None, [1], True])
NOT_BAYESIAN = NOT_PROGRAMS | sampled_from([LINEAR, PAIR["guide"]])
OF_PAIRS = [
    ("model", lambda v: room.posterior_predictive(v, OF_WEIGHTS), NOT_BAYESIAN),
    ("guide", lambda v: room.posterior_predictive(BAYESIAN, v), NOT_BAYESIAN),
]


CHAINS_OF_X = room.PosteriorChains(LINEAR, X, leaps=1)
NOT_INDICES = sampled_from(
    [3, [0], "x", X, torch.tensor(0), torch.tensor([6]), torch.tensor([-1]), torch.tensor([1, 1])]
)
BY_ROWS = {"move": lambda v: CHAINS_OF_X.move(rows=v), "values": CHAINS_OF_X.values, "index": CHAINS_OF_X.index}


def of(name: str, parameter: str, bad: SearchStrategy, named: str | None = None) -> Case:
    return Case(name, parameter, lambda v: getattr(room, name)(**VALID[name] | {parameter: v}), bad, named)


def usual() -> list[Case]:
    """What parameters of the same name refuse in every function."""
    takes = {name: inspect.signature(getattr(room, name)).parameters for name in VALID}
    kinds = [(name, *kind) for name in VALID for kind in USUAL if kind[0] in takes[name]]
    return [of(*kind) for kind in kinds if kind[:2] != ("sandwich", "data")]


CASES = [
    *usual(),
    *evidence_parts.CASES,
    *(of(name, "schedule", NOT_SCHEDULES) for name in ("annealed", "reverse_annealed")),
    *(of(name, "model", sampled_from([coins]), "discrete") for name in ("annealed", "defensive", "quadrature")),
    of("annealed", "model", sampled_from([shared]), "latent site 'z'"),
    of("annealed", "model", sampled_from([nothing_latent])),
    of("annealed", "guide", sampled_from([too_wide])),
    of("PosteriorChains", "model", sampled_from([coins]), "site"),
    of("PosteriorChains", "model", sampled_from([shared]), "latent site 'z'"),
    of("PosteriorChains", "model", sampled_from([nothing_latent])),
    of("PosteriorChains", "start", NOT_PROGRAMS.filter(lambda v: v is not None)),
    of("PosteriorChains", "start", sampled_from([torch.zeros(1, 5, 2), torch.zeros(1, 6, 2) / 0, torch.zeros(6, 2)])),
    of("PosteriorChains", "start", sampled_from([another_site, too_wide, nothing]), "guide"),
    Case("PosteriorChains.move", "times", CHAINS_OF_X.move, NOT_COUNTS),
    *(Case(f"PosteriorChains.{name}", "rows", call, NOT_INDICES) for name, call in BY_ROWS.items()),
    of("calibrate_scale", "model", sampled_from([coins, MODEL, nothing_latent])),
    of("calibrate_scale", "site", NOT_SITES),
    of("calibration", "example", NOT_EXAMPLES),
    of("calibration", "levels", NOT_LEVELS),
    of("calibration", "num_data", integers(1, 19)),
    of("calibration", "num_data", NOT_COUNTS),
    of("calibration", "num_particles", sampled_from([1])),
    of("decoder_report", "image_shape", NOT_IMAGES),
    of("decoder_report", "site", NOT_SITES),
    of("defensive", "num_particles", sampled_from([1])),
    of("defensive", "share", NOT_SHARES),
    of("enumerated", "model", sampled_from([LINEAR]), "continuous"),
    of("enumerated", "model", sampled_from([nothing_latent])),
    of("enumerated", "most", NOT_COUNTS | sampled_from([1])),
    of("exact", "model", NOT_ANSWERS.filter(lambda v: v is not None).map(Knows)),
    of("exact", "model", FAILING.map(Knows)),
    of("exact", "model", sampled_from([MODEL, coins])),
    of("exact_gaps", "model", sampled_from([coins]), "discrete"),
    of("exact_gaps", "points", NOT_COUNTS | integers(1, 9)),
    of("fit_mcmc_em", "batch_size", NOT_COUNTS),
    of("fit_mcmc_em", "chains", NOT_CALLABLE | sampled_from([MODEL, PAIR["guide"], X, room.PosteriorChains])),
    of("fit_mcmc_em", "epochs", NOT_COUNTS),
    of("fit_mcmc_em", "moves", NOT_COUNTS),
    of("fit_mcmc_em", "optimizer", NOT_CALLABLE | sampled_from([lambda p: None, torch.optim.LBFGS, torch.nn.ReLU])),
    of("gaps", "guide", sampled_from([LINEAR.posterior, MODEL])),
    of("gaps", "local", NOT_LOCAL),
    of("gaps", "log_px", NOT_ESTIMATES),
    of("gaps", "num_particles", sampled_from([1])),
    of("gaps", "objective", NOT_OBJECTIVES),
    of("gaps", "rate", NOT_POSITIVE),
    of("gaps", "richer", NOT_LOCAL),
    of("gaps", "steps", NOT_COUNTS),
    of("predictive", "num_weights", NOT_COUNTS),
    *(Case("posterior_predictive", *rest) for rest in OF_PAIRS),
    Case("laplace", "model", lambda v: room.laplace(v, OF_WEIGHTS, [X]), NOT_BAYESIAN),
    Case("laplace", "guide", lambda v: room.laplace(BAYESIAN, v, [X]), NOT_BAYESIAN),
    Case("laplace", "data", lambda v: room.laplace(ROWS, OF_ROWS, v), sampled_from([3, X, [], [(X,)], None])),
    Case("laplace", "newton_steps", lambda v: room.laplace(ROWS, OF_ROWS, [(X[:5], LABELS)], v), NOT_STEPS),
    *(
        Case(
            name,
            rest[0],
            lambda v, name=name, i=i: getattr(room, name)(*(v, OF_WEIGHTS) if i else (BAYESIAN, v)),
            rest[2],
        )
        for name in ("LocallyReparametrised", "locally_reparametrised")
        for i, rest in zip((1, 0), OF_PAIRS, strict=True)
    ),
    Case("PosteriorPredictive", "model", lambda v: room.PosteriorPredictive(v, OF_WEIGHTS.shared), NOT_BAYESIAN),
    Case("PosteriorPredictive", "shared", lambda v: room.PosteriorPredictive(BAYESIAN, v), NOT_CALLABLE),
    Case("weight_posterior", "model", lambda v: room.weight_posterior(v, X), NOT_BAYESIAN),
    Case(
        "weight_posterior",
        "args",
        lambda v: room.weight_posterior(BAYESIAN, v),
        sampled_from([X.gt(0).float()]),
        "model",
    ),
    of("quadrature", "points", NOT_COUNTS | integers(1, 4) | sampled_from([6, 100])),
    of("quadrature", "reach", NOT_POSITIVE),
    of("quadrature", "tol", NOT_POSITIVE),
    of("reverse_annealed", "simulated", NOT_DATA | sampled_from([None, X, (X,), (X, {}), [X], Simulated])),
    of("reverse_annealed", "simulated", NOT_SIMULATED),
    of("reverse_annealed", "simulated", sampled_from([Simulated((), {}), Simulated((3,), {})]), "batch"),
    of("sandwich", "data", NO_BATCHES.filter(lambda v: not isinstance(v, int)), "batch"),
    of("sandwich", "data", integers(-9, 0) | sampled_from([True, False])),
    Case("sandwich", "example", lambda v: room.sandwich(**VALID["sandwich"] | dict(data=3, example=v)), NOT_EXAMPLES),
    of("simulate", "example", NOT_EXAMPLES),
    of("simulate", "model", sampled_from([another_site, nothing, lambda n: None, lambda x=None, n=1: None])),
    of("simulate", "n", NOT_COUNTS),
    of("views", "aggregate", NOT_COUNTS_OR_NONE),
    of("views", "data", sampled_from([[X, torch.zeros(3, 5)], [(X, X), (X,)], [(X,), (X, 1.0)]]), "batch"),
    of("views", "draws", NOT_COUNTS),
]
FLAGS = [
    "calibration(weighted)",
    "particle_filter(progress)",
    "exact_gaps(diagonal)",
    "sandwich(from_prior)",
    "Freed(weights)",
]
FLAGS += [f"{name}(progress)" for name in VALID if name not in ("PosteriorChains", "fit_mcmc_em", "simulate")]
ANY = dict.fromkeys(FLAGS, "any truth value")
RECORDS = {
    *("BernoulliDecoder", "Calibration", "Difference", "Estimate", "Gaps", "GaussianDecoder", "Sandwich"),
    *("LaplaceFit", "MCMCEMEpoch", "Predictive", "ScaleChange", "Simulated", "Views", "WeightPosterior"),
}
