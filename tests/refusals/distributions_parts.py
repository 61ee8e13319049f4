"""What the parts of flows, mixtures, directions and divergences refuse."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from torch import nn
from torch.distributions import constraints

import dlvm.distributions as room
from dlvm.distributions import (
    Affine,
    Autoregressive,
    Bernoulli,
    Coupling,
    Flow,
    FlowNormal,
    HouseholderBasis,
    OrthogonalBasis,
    PermutedBasis,
    RationalQuadratic,
    ReparametrisedMixture,
    VonMisesFisher,
    VonMisesFisherDirection,
)
from dlvm.distributions.flows.planar import PlanarStep
from dlvm.nets import NADE
from refusals.case import NOT_COUNTS, NOT_FINITE, NOT_NUMBERS, Case
from refusals.nets import NOT_MAKERS, NOT_MODULES, NOT_TENSORS, NOT_WIDTHS, WIDTHLESS


def net() -> nn.Module:
    return nn.Linear(4, 8)


STEPS = {"Coupling": Coupling, "Autoregressive": Autoregressive}
BASES = {"OrthogonalBasis": OrthogonalBasis, "HouseholderBasis": HouseholderBasis, "PermutedBasis": PermutedBasis}
NOT_INTEGERS = NOT_COUNTS.filter(lambda v: isinstance(v, bool) or not isinstance(v, int))
NOT_SCALES = st.one_of(NOT_NUMBERS, NOT_FINITE, st.sampled_from([None, 0, -1.0, 1e300, 1e-300, torch.ones(2)]))
NOT_BIJECTIONS = st.sampled_from([3, "affine", Affine, RationalQuadratic, torch.exp, nn.ReLU(), net(), [Affine()], ()])
NOT_STEPS = st.sampled_from([None, 3, "planar", PlanarStep(8, 2), lambda: nn.ReLU(), lambda *_: None, Affine, nn.ReLU])
NOT_ROWS = st.sampled_from([None, 3, "x", [[1.0]], torch.ones(3, 4).long(), torch.ones(4), torch.ones(0, 4)])
OUTSIDE = st.sampled_from([torch.full((3, 4), v) for v in (-0.1, 1.1, 255.0, float("nan"), float("inf"))])
NOT_SUPPORTS = st.sampled_from([None, 3, "real", constraints.simplex, constraints.boolean, torch.zeros(2)])
NOT_POSTERIORS = st.one_of(NOT_MODULES, st.builds(lambda: nn.Linear(4, 2)), st.builds(lambda: room.Binary(net(), 0)))
NO_DIRECTIONS = st.sampled_from([torch.zeros(s) for s in ((5, 1), (), (1,), (0,), (3, 5))])
NOT_FOUR = st.sampled_from([None, 4, "22", (3,), (2, 3), (4, 0), (-2, -2), (2.0, 2.0)])
NOT_VECTORS = st.sampled_from([torch.zeros(s) for s in ((5, 2), (), (1,), (0,))] + [torch.zeros(3).long()])
NOT_SHAPES = st.sampled_from([torch.zeros(s) for s in ((5, 2), (5, 4), (5, 1), (), (0,), (3, 5))])
OF_NO_GAUSSIAN = st.sampled_from(
    [None, 3, "q", torch.zeros(3), dist.Normal, dist.Normal(0.0, 1.0), dist.Delta(torch.zeros(3))]
)
EYE = torch.eye(3)
FULL = dist.MultivariateNormal(torch.zeros(3), EYE)
LOW = dist.LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3))
DIAGONAL = dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1)
BITS = Bernoulli(nn.Identity())(torch.zeros(3))
NORTH, ONE = torch.tensor([[0.0, 0.0, 1.0]] * 5), torch.ones(5)
PAIRS = {
    "full_rank_to_diagonal": (FULL, DIAGONAL),
    "low_rank_to_diagonal": (LOW, DIAGONAL),
    "diagonal_to_low_rank": (DIAGONAL, LOW),
    "low_rank_to_full_rank": (LOW, FULL),
    "binary_to_binary": (BITS, BITS),
    "direction_to_uniform": (VonMisesFisher(NORTH[0], ONE[0]), room.SphericalUniform(torch.zeros(3))),
}
WIDER = {
    VonMisesFisher: VonMisesFisher(torch.tensor([0.0, 1.0]), torch.tensor(1.0)),
    room.SphericalUniform: room.SphericalUniform(torch.zeros(2)),
    type(FULL): dist.MultivariateNormal(torch.zeros(4), torch.eye(4)),
    type(LOW): dist.LowRankMultivariateNormal(torch.zeros(1), torch.ones(1, 1), torch.ones(1)),
    type(DIAGONAL): dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1),
    type(BITS): dist.Bernoulli(torch.full((4,), 0.5)).to_event(1),
}
WEIGHTS, NORMALS = dist.Categorical(torch.ones(2) / 2), dist.Normal(torch.zeros(2, 3), 1.0)
NOT_COMPONENTS = st.sampled_from(
    [NORMALS, NORMALS.to_event(2), dist.Normal(torch.zeros(4, 3), 1.0).to_event(1), FULL, DIAGONAL, nn.ReLU()]
    + [dist.Laplace(torch.zeros(2, 3), 1.0).to_event(1), FULL.expand([2]), None, 3, dist.Normal]
)
NOT_WEIGHTS = st.sampled_from(
    [None, 3, torch.ones(2), dist.Categorical, dist.Bernoulli(0.5), dist.OneHotCategorical(torch.ones(2)), NORMALS]
    + [dist.Categorical(torch.ones(s)) for s in ((3,), (1,), (5, 2), (2, 1))]
)


NOT_WIDTHS_OR_NONE = NOT_COUNTS.filter(lambda v: v is False or v != 0)


NOT_CODES = st.sampled_from([3, "uniform", room.ARDNormal(2), room.BernoulliPrior(3), room.CategoricalPrior(2, 3)])

CASES = [
    *(Case(name, "levels", getattr(room, name), st.one_of(NOT_COUNTS, st.just(1))) for name in ("Greys", "Tokens")),
    Case("ChainRule", "net", lambda v: room.ChainRule(v, room.Bits()), st.one_of(NOT_MODULES, st.builds(nn.Identity))),
    Case("ChainRule", "net", lambda v: room.ChainRule(NADE(4, 3, outputs=v), room.Bits()), st.integers(2, 4)),
    Case("MixedGreys", "components", room.MixedGreys, NOT_COUNTS),
    Case("MixedGreys", "levels", lambda v: room.MixedGreys(2, v), st.one_of(NOT_COUNTS, st.just(1))),
    Case("ChainRule", "element", lambda v: room.ChainRule(NADE(4, 3), v), st.one_of(NOT_MODULES, st.just(room.Bits))),
    Case(
        "ChainRule",
        "decoder",
        lambda v: room.ChainRule(NADE(4, 3, context=2), room.Bits(), v),
        NOT_MODULES.filter(lambda v: v is not None),
    ),
    Case(
        "ChainRule",
        "start",
        lambda v: room.ChainRule(NADE(4, 3), room.Bits(), start=v),
        st.one_of(NOT_TENSORS.filter(lambda v: v is not None), st.sampled_from([torch.zeros(4), torch.zeros(1, 4)])),
    ),
    Case("ChainRule.forward", "context", lambda v: room.ChainRule(NADE(4, 3), room.Bits())(v), NOT_TENSORS),
    *(Case(s, "dim", lambda v, make=make: make(v, 4), NOT_COUNTS) for s, make in STEPS.items()),
    Case("Autoregressive", "context", lambda v: Autoregressive(3, v), NOT_COUNTS),
    Case("Coupling", "context", lambda v: Coupling(3, v), NOT_WIDTHS_OR_NONE),
    Case("Coupling", "dim", lambda v: Coupling(v, 0), st.just(1)),
    Case("Coupling.forward", "h", lambda v: Coupling(3, 0)(torch.zeros(5, 3), v), st.just(torch.zeros(5, 4))),
    Case("Coupling.forward", "h", lambda v: Coupling(3, 4)(torch.zeros(5, 3), v), st.none()),
    *(Case(s, "hidden", lambda v, make=make: make(3, 4, hidden=v), NOT_WIDTHS) for s, make in STEPS.items()),
    Case("Autoregressive", "hidden", lambda v: Autoregressive(3, 4, hidden=v), st.sampled_from([(2,), (8, 1)])),
    *(Case(s, "activation", lambda v, make=make: make(3, 4, activation=v), NOT_MAKERS) for s, make in STEPS.items()),
    *(Case(s, "bijection", lambda v, make=make: make(3, 4, bijection=v), NOT_BIJECTIONS) for s, make in STEPS.items()),
    Case("Coupling.forward", "y", lambda v: Coupling(3, 4)(v, torch.zeros(5, 4)), st.one_of(NOT_SHAPES, NOT_TENSORS)),
    Case(
        "Coupling.inverse", "y", lambda v: Coupling(3, 4).inverse(v, torch.zeros(4)), st.one_of(NOT_SHAPES, NOT_TENSORS)
    ),
    Case(
        "Autoregressive.forward",
        "value",
        lambda v: Autoregressive(3, 4)(v, torch.zeros(4)),
        st.one_of(NOT_SHAPES, NOT_TENSORS),
    ),
    Case(
        "Autoregressive.forward",
        "context",
        lambda v: Autoregressive(3, 6)(torch.zeros(5, 3), v),
        st.one_of(NOT_SHAPES, NOT_TENSORS),
    ),
    Case("RationalQuadratic", "bins", RationalQuadratic, st.one_of(NOT_COUNTS, st.sampled_from([1, 501, 10**9]))),
    Case("RationalQuadratic", "bound", lambda v: RationalQuadratic(bound=v), NOT_SCALES),
    *(Case(b, "width", lambda v, make=make: make(v, 3), NOT_COUNTS) for b, make in BASES.items()),
    *(Case(b, "dim", lambda v, make=make: make(8, v), NOT_COUNTS) for b, make in BASES.items()),
    *(Case(b, "t", lambda v, make=make: make(8, 3, v), NOT_INTEGERS) for b, make in BASES.items()),
    Case(
        "OrthogonalBasis", "rank", lambda v: OrthogonalBasis(8, 3, rank=v), NOT_COUNTS.filter(lambda v: v is not None)
    ),
    Case("OrthogonalBasis", "rank", lambda v: OrthogonalBasis(8, 3, rank=v), st.integers(4, 99)),
    Case("HouseholderBasis", "reflections", lambda v: HouseholderBasis(8, 3, reflections=v), NOT_COUNTS),
    Case("Flow", "net", lambda v: Flow(v, 2, 1, PlanarStep), WIDTHLESS),
    Case("Flow", "dim", lambda v: Flow(net(), v, 1, PlanarStep), NOT_COUNTS),
    Case("Flow", "depth", lambda v: Flow(net(), 2, v, PlanarStep), NOT_COUNTS),
    Case("Flow", "make", lambda v: Flow(net(), 2, 1, v), NOT_STEPS.filter(lambda v: v is not nn.ReLU)),
    *(Case(p, "dim", getattr(room, p), NOT_COUNTS) for p in ("ARDNormal", "MixturePrior", "FlowPrior")),
    Case("BernoulliPrior", "dim", room.BernoulliPrior, NOT_COUNTS),
    Case("CategoricalPrior", "variables", lambda v: room.CategoricalPrior(v, 2), NOT_COUNTS),
    Case("CategoricalPrior", "classes", lambda v: room.CategoricalPrior(2, v), st.one_of(NOT_COUNTS, st.just(1))),
    Case("Codebook", "codes", lambda v: room.Codebook(v, 2), st.one_of(NOT_COUNTS, st.just(1))),
    Case("Codebook", "dim", lambda v: room.Codebook(3, v), NOT_COUNTS),
    Case("CodePrior", "codebook", lambda v: room.CodePrior(v, 2), st.sampled_from([None, 3, room.Codebook, "book"])),
    Case("CodePrior", "positions", lambda v: room.CodePrior(room.Codebook(3, 2), v), NOT_COUNTS),
    Case("CodePrior", "codes", lambda v: room.CodePrior(room.Codebook(3, 2), 2, v), NOT_CODES),
    Case("MixturePrior", "components", lambda v: room.MixturePrior(2, v), NOT_COUNTS),
    Case("FlowPrior", "depth", lambda v: room.FlowPrior(2, depth=v), NOT_COUNTS),
    Case("FlowPrior", "step", lambda v: room.FlowPrior(2, v), NOT_STEPS.filter(lambda v: v is not nn.ReLU)),
    Case("VampPrior", "posterior", lambda v: room.VampPrior(v, room.FixedInputs(torch.ones(3, 4))), NOT_POSTERIORS),
    Case("VampPrior", "pseudo_inputs", lambda v: room.VampPrior(room.DiagonalNormal(net(), 2), v), NOT_MODULES),
    Case("LearnedInputs", "start", room.LearnedInputs, NOT_ROWS),
    Case("LearnedInputs", "start", lambda v: room.LearnedInputs(v, constraints.unit_interval), OUTSIDE),
    Case("LearnedInputs", "support", lambda v: room.LearnedInputs(torch.ones(3, 4), v), NOT_SUPPORTS),
    Case("ReshapedPrior", "prior", lambda v: room.ReshapedPrior(v, (2, 2)), NOT_MODULES),
    Case("ReshapedPrior", "prior", lambda v: room.ReshapedPrior(v, (4,)), st.builds(lambda: room.SphericalPrior(4))),
    Case("ReshapedPrior", "shape", lambda v: room.ReshapedPrior(room.ARDNormal(4), v), NOT_FOUR),
    Case("FixedInputs", "values", room.FixedInputs, NOT_ROWS),
    Case("FlowNormal", "net", lambda v: FlowNormal(v, 2, Coupling), WIDTHLESS),
    Case("FlowNormal", "dim", lambda v: FlowNormal(net(), v, Coupling), NOT_COUNTS),
    Case("FlowNormal", "depth", lambda v: FlowNormal(net(), 2, Coupling, v), NOT_COUNTS),
    Case("FlowNormal", "step", lambda v: FlowNormal(net(), 2, v), NOT_STEPS.filter(lambda v: v is not nn.ReLU)),
    Case("FlowNormal", "step", lambda v: FlowNormal(net(), 2, partial(Coupling, bijection=v)), NOT_BIJECTIONS),
    Case(
        "ReparametrisedMixture",
        "mixture_distribution",
        lambda v: ReparametrisedMixture(v, NORMALS.to_event(1)),
        NOT_WEIGHTS,
    ),
    Case(
        "ReparametrisedMixture", "component_distribution", lambda v: ReparametrisedMixture(WEIGHTS, v), NOT_COMPONENTS
    ),
    Case("SphericalUniform", "like", room.SphericalUniform, st.one_of(NOT_TENSORS, NOT_VECTORS)),
    Case("SphericalPrior", "dim", room.SphericalPrior, st.one_of(NOT_COUNTS, st.just(1))),
    Case("VonMisesFisher", "loc", lambda v: VonMisesFisher(v, ONE), st.one_of(NOT_TENSORS, NO_DIRECTIONS)),
    Case("VonMisesFisher", "loc", lambda v: VonMisesFisher(v, ONE), st.just(torch.zeros(5, 3, dtype=torch.int64))),
    Case("VonMisesFisher", "concentration", lambda v: VonMisesFisher(NORTH, v), NOT_TENSORS),
    Case(
        "VonMisesFisher",
        "concentration",
        lambda v: VonMisesFisher(NORTH, v),
        st.sampled_from([torch.ones(4), torch.ones(5, dtype=torch.int64)]),
    ),
    Case("VonMisesFisherDirection", "net", VonMisesFisherDirection, WIDTHLESS),
    Case(
        "VonMisesFisherDirection",
        "dim",
        lambda v: VonMisesFisherDirection(net(), v),
        st.one_of(NOT_COUNTS, st.just(1)),
    ),
    *(Case(f, "q", lambda v, f=f: getattr(room, f)(v, PAIRS[f][1]), OF_NO_GAUSSIAN) for f in PAIRS),
    *(Case(f, "p", lambda v, f=f: getattr(room, f)(PAIRS[f][0], v), OF_NO_GAUSSIAN) for f in PAIRS),
    *(Case(f, "q", lambda v, f=f: getattr(room, f)(v, PAIRS[f][1]), st.just(WIDER[type(PAIRS[f][0])])) for f in PAIRS),
    *(Case(f, "p", lambda v, f=f: getattr(room, f)(PAIRS[f][0], v), st.just(WIDER[type(PAIRS[f][1])])) for f in PAIRS),
]
