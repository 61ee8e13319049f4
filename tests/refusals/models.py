"""What the models refuse."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from torch import nn

import dlvm.models as room
from dlvm.distributions import (
    Bernoulli,
    Bits,
    ChainRule,
    Codebook,
    CodePrior,
    DiagonalNormal,
    SelfMasking,
    StandardNormal,
)
from dlvm.models import (
    ARD,
    CVAE,
    DRAW,
    GMVAE,
    HVAE,
    NICE,
    PPCA,
    VAE,
    VDVAE,
    VQVAE,
    Bayesian,
    BernoulliMixture,
    CategoricalVAE,
    Conditional,
    Dequantised,
    FactorAnalysers,
    FanIn,
    FullyVisible,
    GaussianMixture,
    MixedVAE,
    NotAtRandom,
    RealNVP,
    SigmoidBeliefNetwork,
    TopDown,
    burda,
)
from dlvm.nets import MLP, NADE, Joined, Readout
from refusals import diffusion, mixtures, objects, semi_supervised, sequences, text
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.data_flows import NOT_FLOWS, NOT_NOISES
from refusals.nets import NOT_MAKERS, NOT_MODULES, NOT_SQUARES, NOT_TENSORS, NOT_WIDTHS

ROOM = room


class Fixed(nn.Module):
    """A prior that returns whatever it is told."""

    def __init__(self, value: object):
        super().__init__()
        self.__dict__["value"] = value

    def forward(self) -> object:
        return self.value


class Broken(nn.Module):
    """A prior that fails in the middle, with an error of its own."""

    def forward(self):
        return dist.Normal(torch.zeros(2) + "1", 1.0)


LIKELIHOOD, WEIGHT, LOC, X = Bernoulli(MLP(2, 4)), torch.ones(3, 2), torch.zeros(3), torch.zeros(5, 4)
NOT_PRIORS = st.one_of(
    NOT_MODULES.filter(lambda v: v is not None),
    st.sampled_from([LIKELIHOOD, DiagonalNormal(MLP(2, 4), 2), nn.ReLU(), Broken(), MLP(2, 2), StandardNormal]),
    st.sampled_from([None, 3, torch.zeros(2), dist.Normal, (dist.Normal(0.0, 1.0),)]).map(Fixed),
    st.sampled_from([dist.Normal(torch.zeros(2), 1.0), dist.Normal(torch.zeros(3, 2), 1.0).to_event(1)]).map(Fixed),
)
OF_OTHER_SHAPE = st.sampled_from([dist.Normal(torch.zeros(3), 1.0).to_event(1), dist.Normal(0.0, 1.0)]).map(Fixed)
NOT_DATA = st.one_of(
    st.sampled_from(
        [torch.zeros(s) for s in ((5, 1), (5, 3), (5, 5), (4,), (1,), (), (0, 4), (5, 0), (2, 5, 4), (5, 2, 2))]
    ),
    NOT_TENSORS.filter(lambda v: v is not None),
)
NOT_MATRICES = [torch.ones(s) for s in ((3,), (3, 2, 1), (2, 3), (3, 0), (0, 2), ())] + [WEIGHT.to(torch.int64), None]
WITH_NAN = [torch.tensor([[0.0, 1.0], [v, 0.0], [0.0, 0.0]]) for v in (float("nan"), float("inf"))]
NOT_LOCS = [torch.zeros(s) for s in ((2,), (4,), (1,), (0,), (), (3, 1))]
OTHER_LOCS = [torch.zeros(3, dtype=d) for d in (torch.float64, torch.float16, torch.int64)] + [
    torch.full((3,), torch.nan)
]
NOT_SCALES = st.one_of(
    NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, -1.0, 1e300, 1e-300, torch.ones(1), torch.ones(3)])
)
NOT_MEANS = st.sampled_from(
    [0.5, "mean", [0.5] * 64, torch.full((3,), 0.5), torch.full((64,), 2.0), torch.full((64,), torch.nan)]
)
NOT_MAPS = st.one_of(
    st.sampled_from(
        ["maps", 3, {}, [], [2, 4], [(2,)], [(2, 4, 1)], [(2, 0)], [(0, 4)], [(2, 3)], [(2, 16)], [(2, 4), (2, 8)]]
    ),
    NOT_COUNTS.map(lambda v: [(2, v)]),
    NOT_COUNTS.map(lambda v: [(v, 4), (8, 1)]),
)
NOT_GROUPS = st.one_of(
    st.sampled_from(
        ["groups", 3, {}, [], [1, 4], [(1,)], [(1, 2, 3)], [(4, 1), (1, 1)], [(2, 1), (3, 1)], [(2, 1)] * 2]
    ),
    NOT_COUNTS.map(lambda v: [(1, v)]),
    NOT_COUNTS.map(lambda v: [(v, 1)]),
)
NOT_STARTS = st.sampled_from([0.5, "mean", [0.5] * 4, torch.zeros(3), torch.zeros(5, 4), torch.full((4,), torch.nan)])
CODE_PRIOR = CodePrior(Codebook(3, 2), 1)
PROGRAMS = {
    "FullyVisible": FullyVisible(ChainRule(NADE(4, 3), Bits())),
    "VAE": VAE(2, LIKELIHOOD),
    "HVAE": HVAE(StandardNormal(2), [DiagonalNormal(MLP(2, 3), 2)], LIKELIHOOD),
    "TopDown": TopDown(4, maps=[(1, 2), (2, 1)], width=2),
    "PPCA": PPCA(torch.ones(4, 2), torch.zeros(4), 1.0),
    "AIR": objects.model(sides=(2, 2), steps=1, glyph=MLP(2, 4)),
    "DRAW": DRAW(Bernoulli(MLP(4)), MLP(2, 4), 1, 2, 2),
    "VDVAE": VDVAE(Bernoulli(Readout(2, 4, 1)), [(1, 1), (2, 1)], width=2),
    "Dequantised": Dequantised(PPCA(torch.ones(4, 2), torch.zeros(4), 1.0)),
    "FactorAnalysers": FactorAnalysers(2, 4, 2),
    "NotAtRandom": NotAtRandom(2, LIKELIHOOD, SelfMasking(4)),
    "GMVAE": GMVAE(GaussianMixture(2, 2), LIKELIHOOD),
    "GaussianMixture": GaussianMixture(2, 4),
    "BernoulliMixture": BernoulliMixture(2, 4),
    "CategoricalVAE": CategoricalVAE(1, 2, LIKELIHOOD),
    "MixedVAE": MixedVAE(1, 1, LIKELIHOOD),
    "SigmoidBeliefNetwork": SigmoidBeliefNetwork(4, (2,)),
    "VQVAE": VQVAE(CODE_PRIOR, LIKELIHOOD),
    "NICE": NICE(4, (3,)),
    "RealNVP": RealNVP(4),
}
LINEAR = PROGRAMS["PPCA"]
GIVEN = CVAE(2, Bernoulli(Joined(MLP(4, 4), [MLP(2), MLP(2)])))
IN_PART = CVAE(2, Bernoulli(Joined(MLP(4, 3), [MLP(2), MLP(2)])), seen=torch.arange(5) < 2)
GIVEN_Y = torch.zeros(5, 2)
NOT_Y = st.one_of(NOT_TENSORS, st.sampled_from([torch.zeros(s) for s in ((4, 2), (1, 2), (0, 2), ())]))
NOT_THREE = st.sampled_from([torch.zeros(5, 5), torch.zeros(5, 1), torch.zeros(5, 0)])
NOT_SEEN = st.sampled_from(
    [True, "x", 3, [True, False], torch.ones(3), torch.ones(2, 2).bool(), torch.ones(3).bool(), torch.zeros(3).bool()]
)
NOT_ROWS = st.one_of(
    NOT_DATA.filter(lambda v: getattr(v, "shape", None) != (0, 4)), st.sampled_from([X.double(), X.long(), None])
)

NOT_DEVIATIONS = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, 0.0, -1.0, True, torch.ones(2)]))
NOT_WEIGHT_PRIORS = st.one_of(
    NOT_DEVIATIONS, st.sampled_from([FanIn, lambda name, value: value, lambda name, value: dist.Normal(value[:1], 1.0)])
)
NOT_NAMES = st.sampled_from([3, ("z",), "z", (3,), [None], torch.ones(2), ("likelihood.net.layers.2",), object()])
NOT_ONE_NAME = st.sampled_from([None, "", 3, ("data",), object()])

CASES = [
    Case("CVAE", "z_dim", lambda v: CVAE(v, LIKELIHOOD), NOT_COUNTS),
    Case("CVAE", "likelihood", lambda v: CVAE(2, v), NOT_MODULES),
    Case("CVAE", "prior", lambda v: CVAE(2, LIKELIHOOD, v), NOT_MODULES.filter(lambda v: v is not None)),
    Case("CVAE", "seen", lambda v: CVAE(2, LIKELIHOOD, seen=v), NOT_SEEN),
    Case("CVAE.forward", "x", lambda v: GIVEN(v, GIVEN_Y), NOT_DATA),
    Case("CVAE.forward", "y", lambda v: GIVEN(X, v), NOT_Y),
    Case("CVAE.forward", "y", lambda v: GIVEN(y=v), NOT_TENSORS),
    Case("CVAE.forward", "n", lambda v: GIVEN(y=GIVEN_Y, n=v), NOT_COUNTS),
    Case("CVAE.whole", "x", lambda v: IN_PART.whole(v, torch.zeros(5, 2)), st.one_of(NOT_TENSORS, NOT_THREE)),
    Case("CVAE.whole", "y", lambda v: IN_PART.whole(torch.zeros(5, 3), v), st.one_of(NOT_TENSORS, NOT_THREE)),
    Case("Conditional", "likelihood", Conditional, NOT_MODULES),
    Case("Conditional", "target", lambda v: Conditional(LIKELIHOOD, v), st.sampled_from([-1, "0", 1.5, True])),
    Case("Bayesian", "model", lambda v: Bayesian(v, 5), NOT_MODULES),
    Case("Bayesian", "num_data", lambda v: Bayesian(VAE(2, Bernoulli(MLP(2, 4))), v), NOT_COUNTS),
    Case("Bayesian", "prior", lambda v: Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 5, v), NOT_WEIGHT_PRIORS),
    Case("Bayesian", "only", lambda v: Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 5, only=v), NOT_NAMES),
    Case("Bayesian", "plate", lambda v: Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 5, plate=v), NOT_ONE_NAME),
    Case("FanIn", "scale", FanIn, NOT_DEVIATIONS),
    Case("ARD", "columns", ARD, NOT_COUNTS),
    Case("ARD", "scale", lambda v: ARD(2, v), NOT_DEVIATIONS),
    Case("FullyVisible", "likelihood", FullyVisible, st.one_of(NOT_PRIORS, st.none())),
    Case("VAE", "z_dim", lambda v: VAE(v, LIKELIHOOD), NOT_COUNTS),
    Case("VAE", "likelihood", lambda v: VAE(2, v), NOT_MODULES),
    Case("VAE", "prior", lambda v: VAE(2, LIKELIHOOD, v), st.one_of(NOT_PRIORS, OF_OTHER_SHAPE)),
    Case("NotAtRandom", "z_dim", lambda v: NotAtRandom(v, LIKELIHOOD, SelfMasking(4)), NOT_COUNTS),
    Case("NotAtRandom", "likelihood", lambda v: NotAtRandom(2, v, SelfMasking(4)), NOT_MODULES),
    Case("NotAtRandom", "mechanism", lambda v: NotAtRandom(2, LIKELIHOOD, v), NOT_MODULES),
    Case(
        "NotAtRandom",
        "prior",
        lambda v: NotAtRandom(2, LIKELIHOOD, SelfMasking(4), v),
        st.one_of(NOT_PRIORS, OF_OTHER_SHAPE),
    ),
    Case("CategoricalVAE", "variables", lambda v: CategoricalVAE(v, 2, LIKELIHOOD), NOT_COUNTS),
    Case("CategoricalVAE", "classes", lambda v: CategoricalVAE(2, v, LIKELIHOOD), st.one_of(NOT_COUNTS, st.just(1))),
    Case("CategoricalVAE", "likelihood", lambda v: CategoricalVAE(1, 2, v), NOT_MODULES),
    Case("MixedVAE", "bits", lambda v: MixedVAE(v, 1, LIKELIHOOD), NOT_COUNTS),
    Case("MixedVAE", "z_dim", lambda v: MixedVAE(1, v, LIKELIHOOD), NOT_COUNTS),
    Case("MixedVAE", "likelihood", lambda v: MixedVAE(1, 1, v), NOT_MODULES),
    Case("SigmoidBeliefNetwork", "x_dim", SigmoidBeliefNetwork, NOT_COUNTS),
    Case("SigmoidBeliefNetwork", "sizes", lambda v: SigmoidBeliefNetwork(4, v), NOT_WIDTHS),
    Case("SigmoidBeliefNetwork", "sizes", lambda v: SigmoidBeliefNetwork(4, v), st.just(())),
    Case("SigmoidBeliefNetwork", "mean", lambda v: SigmoidBeliefNetwork(64, (2,), mean=v), NOT_MEANS),
    Case("VQVAE", "prior", lambda v: VQVAE(v, LIKELIHOOD), st.one_of(NOT_MODULES, st.just(StandardNormal(2)))),
    Case("VQVAE", "likelihood", lambda v: VQVAE(CODE_PRIOR, v), NOT_MODULES),
    Case("HVAE", "prior", lambda v: HVAE(v, [], LIKELIHOOD), NOT_PRIORS),
    Case("HVAE", "prior", lambda v: HVAE(v, [], LIKELIHOOD), st.none()),
    Case(
        "HVAE", "conditionals", lambda v: HVAE(StandardNormal(2), v, LIKELIHOOD), NOT_MODULES.filter(lambda v: v != [])
    ),
    Case("HVAE", "conditionals", lambda v: HVAE(StandardNormal(2), [LIKELIHOOD, v], LIKELIHOOD), NOT_MODULES),
    Case("HVAE", "likelihood", lambda v: HVAE(StandardNormal(2), [], v), NOT_MODULES),
    Case("Dequantised", "model", Dequantised, NOT_MODULES),
    Case("Dequantised", "levels", lambda v: Dequantised(LINEAR, v), st.one_of(NOT_COUNTS, st.just(1))),
    Case("burda", "x_dim", burda, NOT_COUNTS),
    Case("burda", "sizes", lambda v: burda(4, v, (3, 3)), NOT_WIDTHS),
    Case("burda", "sizes", lambda v: burda(4, v, (3, 3)), st.sampled_from([(), (2,), (2, 2, 2)])),
    Case("burda", "hidden", lambda v: burda(4, (2, 2), v), NOT_WIDTHS),
    Case("burda", "likelihood", lambda v: burda(4, likelihood=v), NOT_MODULES.filter(lambda v: v is not None)),
    Case("TopDown", "likelihood", lambda v: TopDown(64, likelihood=v), NOT_MAKERS.filter(lambda v: v is not None)),
    Case("burda", "mean", lambda v: burda(64, mean=v), NOT_MEANS),
    Case("TopDown", "x_dim", TopDown, NOT_SQUARES),
    Case("TopDown", "maps", lambda v: TopDown(64, v), NOT_MAPS),
    Case("TopDown", "maps", TopDown, st.sampled_from([1, 4, 9, 25, 49, 36])),
    Case("TopDown", "width", lambda v: TopDown(64, width=v), NOT_COUNTS),
    Case("DRAW", "likelihood", lambda v: DRAW(v, MLP(2, 4)), NOT_MODULES),
    Case("DRAW", "write", lambda v: DRAW(LIKELIHOOD, v), st.one_of(NOT_MODULES, st.just(nn.ReLU()))),
    *(
        Case("DRAW", name, lambda v, name=name: DRAW(LIKELIHOOD, MLP(2, 4), **{name: v}), NOT_COUNTS)
        for name in ("z_dim", "steps", "width")
    ),
    Case("DRAW", "start", lambda v: DRAW(LIKELIHOOD, MLP(2, 4), start=v), NOT_STARTS),
    Case("VDVAE", "likelihood", VDVAE, NOT_MODULES),
    Case("VDVAE", "groups", lambda v: VDVAE(LIKELIHOOD, v), NOT_GROUPS),
    Case("VDVAE", "channels", lambda v: VDVAE(LIKELIHOOD, channels=v), NOT_COUNTS),
    Case("VDVAE", "width", lambda v: VDVAE(LIKELIHOOD, width=v), NOT_COUNTS),
    Case("VDVAE", "middle", lambda v: VDVAE(LIKELIHOOD, middle=v), NOT_COUNTS.filter(lambda v: v is not None)),
    Case("TopDown", "prior", lambda v: TopDown(64, prior=v), NOT_PRIORS.filter(lambda v: v is not None)),
    Case("TopDown", "mean", lambda v: TopDown(64, mean=v), NOT_MEANS),
    Case(
        "PPCA", "weight", lambda v: PPCA(v, LOC, 1.0), st.one_of(NOT_NUMBERS, st.sampled_from(NOT_MATRICES + WITH_NAN))
    ),
    Case("PPCA", "loc", lambda v: PPCA(WEIGHT, v, 1.0), st.one_of(NOT_NUMBERS, st.sampled_from(NOT_LOCS + OTHER_LOCS))),
    Case("PPCA", "scale", lambda v: PPCA(WEIGHT, LOC, v), NOT_SCALES),
    Case("PPCA.maximum_likelihood", "x", lambda v: PPCA.maximum_likelihood(v, 2), NOT_DATA),
    Case(
        "PPCA.maximum_likelihood",
        "x",
        lambda v: PPCA.maximum_likelihood(v, 1),
        st.sampled_from([X, X / 0, X.long(), None]),
    ),
    Case("PPCA.maximum_likelihood", "z_dim", lambda v: PPCA.maximum_likelihood(torch.eye(9, 4), v), NOT_COUNTS),
    Case("PPCA.maximum_likelihood", "z_dim", lambda v: PPCA.maximum_likelihood(torch.eye(9, 4), v), st.integers(4, 99)),
    Case("PPCA.log_px", "x", LINEAR.log_px, NOT_ROWS),
    Case("PPCA.posterior", "x", LINEAR.posterior, NOT_ROWS),
    Case("PPCA.expected_statistics", "x", LINEAR.expected_statistics, NOT_ROWS),
    *(Case(f"{name}.forward", "x", program, NOT_DATA) for name, program in PROGRAMS.items()),
    *(Case(f"{name}.forward", "n", lambda v, p=program: p(n=v), NOT_COUNTS) for name, program in PROGRAMS.items()),
    *(Case(kind.__name__, "x_dim", kind, st.one_of(NOT_COUNTS, st.just(1))) for kind in (NICE, RealNVP)),
    *(Case(kind.__name__, "noise", lambda v, kind=kind: kind(4, noise=v), NOT_NOISES) for kind in (NICE, RealNVP)),
    Case("NICE", "hidden", lambda v: NICE(4, v), NOT_WIDTHS),
    Case("NICE", "depth", lambda v: NICE(4, depth=v), NOT_COUNTS),
    Case("NICE", "activation", lambda v: NICE(4, activation=v), NOT_MAKERS),
    Case("NICE", "before", lambda v: NICE(4, before=v), NOT_FLOWS.filter(lambda v: v is not None), "maps[0]"),
    Case("RealNVP", "flow", lambda v: RealNVP(3, v), NOT_FLOWS.filter(lambda v: v is not None)),
    *semi_supervised.models(NOT_PRIORS, OF_OTHER_SHAPE, NOT_DATA),
    *mixtures.CASES,
    *diffusion.MODELS,
    *sequences.MODELS,
    *objects.MODELS,
    *text.MODELS,
]
FLAGS = (
    "RandomLayer(continuous)",
    "AutoregressiveHMM(sum_out)",
    "FactorialHMM(sum_out)",
    "HiddenMarkov(sum_out)",
    "SwitchingSSM(sum_out)",
    "CategoricalVAE(learned)",
    "SigmoidBeliefNetwork(nonlinear)",
)
ANY: dict[str, str] = dict.fromkeys(FLAGS, "any truth value")
RECORDS: set[str] = set()
