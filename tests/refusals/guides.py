"""What the amortised guides refuse, and the specs that they are built from."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from pyro.distributions import constraints
from torch import nn

import dlvm.guides as room
from dlvm.distributions import Codebook, DiagonalNormal
from dlvm.guides import (
    Amortized,
    Chain,
    Dequantiser,
    Diagonal,
    ExactPosterior,
    Feedback,
    FromModel,
    Joint,
    Ladder,
    Latent,
    Local,
    Plate,
    Quantiser,
    TopDownPosterior,
    latents,
    local_sites,
)
from dlvm.models import PPCA
from dlvm.nets import MLP, Pyramid, ReadAll
from refusals import diffusion, guides_calls, guides_over_time, guides_programs, objects, semi_supervised
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_NUMBERS, Case
from refusals.guides_parts import (
    MISMATCHED,
    NOT_ENCODERS,
    NOT_FAMILIES,
    NOT_HIDDEN,
    NOT_SPECS,
    NOT_WIDTHS,
    SITES,
    encoder,
)
from refusals.nets import NOT_MODULES
from refusals.pairs import GUIDE, MODEL, X

ROOM = room
TWO = {**SITES, "y": SITES["z"]}
MAPS, PYRAMID = {"z": Latent(torch.Size([2, 1, 1]), plates=SITES["z"].plates)}, Pyramid(16, (1,), 2)
FLOWS = ["Planar", "Radial", "Householder", "Sylvester"]
FAMILIES = ["Diagonal", "FullRank", "LowRank", "Mixture", "StudentT", "IAF", "NeuralSpline", "RealNVP", *FLOWS]
NOT_FINITE_NUMBERS = st.one_of(NOT_NUMBERS, st.sampled_from([None, float("nan"), float("inf"), torch.zeros(2)]))
NOT_ACTIVATIONS = st.sampled_from([None, "relu", 3, nn.ELU(), torch.relu, torch.tanh, lambda: torch.relu, nn.Linear])
NOT_ONE_OF = st.sampled_from([None, "", "Top_down", 1, True, [1], {"top_down": 1}, ("top_down",), b"top_down", nn.ReLU])
NOT_WIDTH = st.one_of(NOT_WIDTHS, st.sampled_from([0, -1, True, float("nan"), 1e9]))


def spec(**changed: object) -> Diagonal:
    """A guide of one site whose spec is changed."""
    return Diagonal({"z": Latent(torch.Size([2]))._replace(**changed)}, encoder())


def around(**changed: object) -> Diagonal:
    """A guide of one site whose plate is changed."""
    return spec(plates=(Plate()._replace(**changed),))


def make(name: str, **settings: object) -> Amortized:
    return getattr(room, name)(**dict(latents=SITES, encoder=encoder()) | settings)


def without_plate() -> None:
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def amortized(**settings: object) -> Amortized:
    return Amortized(SITES, encoder(), **{"family": DiagonalNormal} | settings)


SHAPES = st.sampled_from(
    [2, 2.5, None, "2", (0,), (-1,), (2.5,), (None,), ("2",), (True,), {2}, torch.zeros(2), (2, 0)]
)
SUPPORTS = st.sampled_from(
    [None, "real", dist.Normal, constraints.interval, constraints.dependent, 3, constraints.nonnegative_integer]
    + [constraints.corr_cholesky, constraints.lower_cholesky, constraints.unit_lower_cholesky]
    + [constraints.positive_definite, constraints.interval(torch.zeros(3), torch.ones(3)), dist.Normal(0.0, 1.0)]
    + [constraints.interval(torch.zeros(5, 2), torch.ones(5, 2)), constraints.integer_interval(1, 3)]
)
PLATES = st.sampled_from(
    [None, (), Plate(), "data", ("data",), [None], {Plate()}, 3, (Plate(), Plate("rows", -2)), [Plate(dim=-2)]]
)
POSITIONS = st.sampled_from(["z", -1, 1.0, True, (0,), float("nan"), torch.tensor(1)])

SPHERE = constraints.sphere
NO_DIRECTION = st.sampled_from([(), (1,), (3, 3), (1, 3)])
EVERYWHERE = [*FAMILIES, "Chain", "Joint", "Point"]
NOT_INDICES = NOT_CALLABLE.filter(lambda v: v is not None)
NOT_SIZES = NOT_COUNTS.filter(lambda v: v is not None)


def cases(parameter: str, names: list[str], bad: st.SearchStrategy) -> list[Case]:
    """A case for the parameter of each of the guides."""
    return [Case(name, parameter, lambda v, name=name: make(name, **{parameter: v}), bad) for name in names]


SPECS = [
    Case("Latent", "shape", lambda v: spec(shape=v), SHAPES),
    Case("Latent", "shape", lambda v: local_sites({"z": Latent(v)}), SHAPES),
    Case("Latent", "support", lambda v: spec(shape=(4,), support=v), SUPPORTS),
    Case("Latent", "plates", lambda v: spec(plates=v), PLATES, "plate"),
    Case("Latent", "position", lambda v: spec(position=v), POSITIONS),
    Case("Plate", "name", lambda v: around(name=v), st.sampled_from([None, "", 3, ("data",), b"data", "z"]), "plate"),
    Case("Plate", "dim", lambda v: around(dim=v), st.sampled_from([None, 0, 1, -2, -1.0, "-1", True, torch.ones(1)])),
    Case("Plate", "size", lambda v: around(size=v), NOT_SIZES),
    Case("Latent", "mask", lambda v: spec(mask=v), st.sampled_from([True, 3, "mask", torch.ones(6) > 0, ("mask",)])),
    Case("local_sites", "latents", local_sites, NOT_SPECS.filter(lambda v: v != {})),
    Case("local_sites", "plate", lambda v: local_sites(SITES, v), st.sampled_from([None, 3, "", ("data",), Plate()])),
]
AMORTIZED = [
    *cases("latents", EVERYWHERE, NOT_SPECS),
    *cases("encoder", EVERYWHERE, NOT_ENCODERS),
    *cases("depth", FAMILIES[5:], NOT_COUNTS),
    *cases("width", FAMILIES[5:8], NOT_WIDTH),
    *cases("activation", FAMILIES[5:8], NOT_ACTIVATIONS),
    *cases("width", ["RealNVP"], st.none()),
    Case("IAF", "width", lambda v: make("IAF", width=v), st.sampled_from([1, (1,), (128, 1)]), "at least dim=2"),
    *cases("bias", ["IAF"], NOT_FINITE_NUMBERS),
    *cases("bias", ["IAF"], st.sampled_from([-1e3, -1e300, 10**400])),
    *cases("rank", ["LowRank"], NOT_COUNTS),
    *cases("components", ["Mixture"], NOT_COUNTS),
    *cases("start", ["StudentT"], NOT_FINITE_NUMBERS),
    *cases("start", ["StudentT"], st.sampled_from([0, -1.0, 1, 2, 2.0])),
    *cases("kind", ["NeuralSpline"], NOT_ONE_OF),
    *cases("bins", ["NeuralSpline"], NOT_COUNTS),
    *cases("bound", ["NeuralSpline"], NOT_FINITE_NUMBERS),
    *cases("bound", ["NeuralSpline"], st.sampled_from([0, -4.0])),
    *cases("basis", ["Sylvester"], NOT_CALLABLE),
    *cases("basis", ["Sylvester"], st.sampled_from([nn.ReLU(), nn.ELU, dist.Normal])),
    *cases("family", ["Chain", "Joint"], NOT_FAMILIES),
    *cases("hidden", ["Joint"], NOT_HIDDEN),
    Case("Chain", "hidden", lambda v: Chain(SITES | {"y": SITES["z"]}, encoder(), hidden=v), NOT_HIDDEN),
    Case("Joint", "latents", lambda v: Joint({v: Latent((2,))}, encoder()), st.just("joint"), "rename it"),
    Case("Diagonal", "latents", lambda v: Diagonal(SITES | {"y": v}, encoder()), st.sampled_from([None, (2,)])),
    Case("Diagonal", "latents", lambda v: Diagonal(v, encoder()), MISMATCHED, "latent sites lie in different plates"),
    Case("Joint", "latents", lambda v: Joint(v, encoder()), MISMATCHED, "latent sites lie in different plates"),
    Case("Diagonal", "latents", lambda v: Diagonal({"z": Latent(v, SPHERE)}, encoder()), NO_DIRECTION, "(d,)"),
    Case("Diagonal", "latents", lambda v: Diagonal(latents(v), encoder()), st.just(without_plate), "global"),
]
OTHERS = [
    Case("Amortized", "latents", lambda v: Amortized(v, encoder(), DiagonalNormal), NOT_SPECS),
    Case("Amortized", "encoder", lambda v: Amortized(SITES, v, DiagonalNormal), NOT_ENCODERS),
    Case("Amortized", "family", lambda v: amortized(family=v), NOT_FAMILIES),
    Case("Amortized", "order", lambda v: amortized(order=v), NOT_ONE_OF),
    Case("Amortized", "hidden", lambda v: amortized(hidden=v), NOT_HIDDEN),
    Case("Amortized", "hidden", lambda v: amortized(hidden={"z": v}), NOT_HIDDEN),
    Case("Amortized", "hidden", lambda v: amortized(hidden={v: (3,)}), st.sampled_from(["w", 1, None, "Z", ""])),
    Case("Amortized", "posteriors", lambda v: amortized(posteriors=v), st.sampled_from([3, "z", [], DiagonalNormal])),
    Case("Amortized", "posteriors", lambda v: amortized(posteriors={"z": v}), NOT_FAMILIES),
    Case("Amortized", "posteriors", lambda v: amortized(posteriors={v: DiagonalNormal}), st.sampled_from(["w", 1])),
    Case("Amortized", "present", lambda v: amortized(present=v), NOT_INDICES),
    Case("Dequantiser", "guide", lambda v: Dequantiser(v, SITES["z"]), st.one_of(NOT_CALLABLE, st.just(type(MODEL)))),
    Case("Dequantiser", "noise", lambda v: Dequantiser(GUIDE, v), st.sampled_from([None, 3, (4,), SITES, Latent, X])),
    Case(
        "Dequantiser",
        "posterior",
        lambda v: Dequantiser(GUIDE, SITES["z"], v),
        NOT_MODULES.filter(lambda v: v is not None),
    ),
    Case("posterior_of", "guide", lambda v: room.posterior_of(v, "z"), st.one_of(NOT_CALLABLE, NOT_MODULES)),
    Case("posterior_of", "guide", lambda v: room.posterior_of(v, "joint"), st.builds(lambda: Joint(SITES, encoder()))),
    Case("posterior_of", "site", lambda v: room.posterior_of(Diagonal(SITES, encoder()), v), NOT_ONE_OF),
    Case("Ladder", "latents", lambda v: Ladder(v, encoder(), MODEL), NOT_SPECS),
    Case("Ladder", "encoder", lambda v: Ladder(SITES, v, MODEL), NOT_ENCODERS),
    Case("Ladder", "model", lambda v: Ladder(SITES, encoder(), v), st.one_of(NOT_CALLABLE, st.just(type(MODEL)))),
    Case("Ladder", "merge", lambda v: Ladder(SITES, encoder(), MODEL, v), NOT_ONE_OF),
    Case("Ladder", "family", lambda v: Ladder(SITES, encoder(), MODEL, family=v), NOT_FAMILIES),
    Case("Ladder", "hidden", lambda v: Ladder(SITES, encoder(), MODEL, hidden=v), NOT_HIDDEN),
    Case("ExactPosterior", "model", ExactPosterior, st.one_of(NOT_CALLABLE, st.sampled_from([MODEL, PPCA, GUIDE]))),
    Case("FromModel", "latents", lambda v: FromModel(v, encoder(), MODEL, ("z",)), NOT_SPECS),
    Case("FromModel", "encoder", lambda v: FromModel(TWO, v, MODEL, ("y",)), NOT_ENCODERS),
    Case("FromModel", "model", lambda v: FromModel(TWO, encoder(), v, ("y",)), NOT_CALLABLE),
    Case(
        "FromModel",
        "left",
        lambda v: FromModel(TWO, encoder(), MODEL, v),
        st.sampled_from(["y", None, 1, (), ("z", "y"), ("w",), {"y"}]),
    ),
    Case("FromModel", "family", lambda v: FromModel(TWO, encoder(), MODEL, ("y",), v), NOT_FAMILIES),
    Case("FromModel", "hidden", lambda v: FromModel(TWO, encoder(), MODEL, ("y",), hidden=v), NOT_HIDDEN),
    Case("Feedback", "latents", lambda v: Feedback(v, ReadAll(4), MODEL, 2), NOT_SPECS),
    Case("Feedback", "encoder", lambda v: Feedback(SITES, v, MODEL, 2), NOT_ENCODERS),
    Case(
        "Feedback", "model", lambda v: Feedback(SITES, ReadAll(4), v, 2), st.one_of(NOT_CALLABLE, st.just(type(MODEL)))
    ),
    Case("Feedback", "state", lambda v: Feedback(SITES, ReadAll(4), MODEL, v), NOT_COUNTS),
    Case("Feedback", "width", lambda v: Feedback(SITES, ReadAll(4), MODEL, 2, v), NOT_COUNTS),
    Case("Feedback", "family", lambda v: Feedback(SITES, ReadAll(4), MODEL, 2, family=v), NOT_FAMILIES),
    Case("TopDownPosterior", "latents", lambda v: TopDownPosterior(v, PYRAMID, MODEL), NOT_SPECS),
    Case("TopDownPosterior", "latents", lambda v: TopDownPosterior(v, PYRAMID, MODEL), st.just(SITES)),
    Case("TopDownPosterior", "encoder", lambda v: TopDownPosterior(MAPS, v, MODEL), NOT_ENCODERS),
    Case(
        "TopDownPosterior",
        "model",
        lambda v: TopDownPosterior(MAPS, PYRAMID, v),
        st.one_of(NOT_CALLABLE, st.just(type(MODEL))),
    ),
    Case(
        "TopDownPosterior",
        "middle",
        lambda v: TopDownPosterior(MAPS, PYRAMID, MODEL, v),
        NOT_COUNTS.filter(lambda v: v is not None),
    ),
    Case("Local", "latents", lambda v: Local(v, 5), NOT_SPECS),
    Case("Local", "num_data", lambda v: Local(SITES, v), NOT_COUNTS),
    Case("Local", "family", lambda v: Local(SITES, 5, v), NOT_FAMILIES),
    Case("Local", "index", lambda v: Local(SITES, 5, index=v), NOT_INDICES),
    Case("Local", "width", lambda v: Local(SITES, 5, width=v), NOT_SIZES),
]
CASES = [
    *SPECS,
    *AMORTIZED,
    *OTHERS,
    *guides_calls.CASES,
    *guides_over_time.CASES,
    *guides_programs.CASES,
    *objects.GUIDES,
]
CASES += diffusion.GUIDES
BOOK = Codebook(3, 2)
CASES += [
    Case("Quantiser", "codebook", lambda v: Quantiser(v, encoder()), st.sampled_from([None, 3, Codebook, "book", X])),
    Case("Quantiser", "encoder", lambda v: Quantiser(BOOK, v), st.one_of(NOT_ENCODERS, st.just(MLP(4, 5)))),
    Case("Quantiser", "commitment", lambda v: Quantiser(BOOK, encoder(), v), NOT_FINITE_NUMBERS),
    Case("Quantiser", "commitment", lambda v: Quantiser(BOOK, encoder(), v), st.just(-0.1)),
    *semi_supervised.GUIDES,
]
ANY: dict[str, str] = {"Refined(through)": "any truth value", "Plate(given)": "any truth value"}
RECORDS: set[str] = {"NoLatents"}
