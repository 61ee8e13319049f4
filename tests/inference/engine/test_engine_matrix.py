"""A captured step is the eager one, bit for bit: every objective, guide and kind of model, as far as they combine."""

from __future__ import annotations

from functools import partial
from itertools import combinations, product

import pyro
import pytest
import torch
from pairs import GUIDES, MODELS, pair
from pyro.infer import (
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from special import (
    bits,
    decaying,
    enumerated_in_guide,
    enumerated_in_model,
    nn_baseline,
    sequence,
    subsampled,
)
from stepping import run, same_by_both_engines

from dlvm.inference import IWAE, Renyi

pytestmark = pytest.mark.filterwarnings("ignore:Found vars in model but not guide", "ignore:num_particles")

OBJECTIVES = {
    "trace": Trace_ELBO,
    "loop": partial(Trace_ELBO, num_particles=3),
    "vectorized": partial(Trace_ELBO, num_particles=3, vectorize_particles=True),
    "mean_field": TraceMeanField_ELBO,
    "renyi_elbo": partial(RenyiELBO, alpha=0.5, num_particles=3),
    "renyi_vectorized": partial(RenyiELBO, alpha=0.5, num_particles=3, vectorize_particles=True),
    "iwae": partial(IWAE, 3),
    "renyi": partial(Renyi, 0.5, 3),
    "graph": TraceGraph_ELBO,
    "wake": partial(ReweightedWakeSleep, num_particles=3, vectorize_particles=True),
    "enum": TraceEnum_ELBO,
    "enum_vectorized": partial(TraceEnum_ELBO, num_particles=2, vectorize_particles=True),
}
SPECIAL_ONLY = {"enum", "enum_vectorized"}
SETTINGS = list(product((torch.float32, torch.float64), (True, False)))
# Any two of objective, guide and model meet, mostly twice with another third: the engine sees no program but the
# operations of one, so what it can get wrong lies in what one of them does, or in how two of them share what they do.
CELLS = [
    (objective, guide, model)
    for (i, objective), (j, guide), (k, model) in product(
        enumerate(name for name in OBJECTIVES if name not in SPECIAL_ONLY), enumerate(GUIDES), enumerate(MODELS)
    )
    if (k - i - j) % len(MODELS) < 2
]
FEW = [cell for number, cell in enumerate(CELLS) if number % 13 == 1]
SPECIAL = {
    "bits": (bits, ["trace", "graph", "vectorized", "renyi_vectorized", "wake"]),
    "decaying": (decaying, ["graph"]),
    "nn_baseline": (nn_baseline, ["graph"]),
    "enumerated_in_guide": (enumerated_in_guide, ["enum", "enum_vectorized"]),
    "enumerated_in_model": (enumerated_in_model, ["enum", "enum_vectorized"]),
    "sequence": (sequence, ["trace", "mean_field", "iwae", "wake"]),
    "subsampled": (subsampled, ["trace", "mean_field", "iwae", "graph"]),
}
SPECIAL_FEW = [(name, objectives[0]) for name, (_, objectives) in SPECIAL.items()]
SPECIAL_CELLS = [(name, objective) for name, (_, objectives) in SPECIAL.items() for objective in objectives]


def impossible(objective: str, guide: str, model: str) -> tuple[type[Exception], str] | None:
    """The error of a cell that no engine can step."""
    if (guide, model) == ("auto_diagonal", "minibatch") and objective in ("iwae", "renyi"):
        return ValueError, "plate 'data' around site 'z' is subsampled .* but is not around every site"
    return None


def setting(cell: tuple[str, str, str]) -> tuple[torch.dtype, bool]:
    number = CELLS.index(cell)
    return SETTINGS[(number + number // 12) % 4]


def check(make, objective, dtype, validation, steps=4):
    torch.set_default_dtype(dtype)
    with pyro.validation_enabled(validation):
        same_by_both_engines(make, OBJECTIVES[objective], steps)


def check_cell(cell, settings):
    objective, guide, model = cell
    error = impossible(*cell)
    if error is None:
        check(partial(pair, model, guide), objective, *settings)
        return
    for engine in ("eager", "captured", "auto"):
        with pytest.raises(error[0], match=error[1]):
            run(partial(pair, model, guide), OBJECTIVES[objective], engine)


@pytest.mark.parametrize("cell", FEW, ids="-".join)
def test_a_sample_of_all_cells(cell):
    check_cell(cell, SETTINGS[FEW.index(cell) % 4])


@pytest.mark.slow
@pytest.mark.parametrize("cell", SPECIAL_FEW, ids="-".join)
def test_discrete_latents_sequences_and_drawn_rows(cell):
    name, objective = cell
    check(SPECIAL[name][0], objective, *SETTINGS[SPECIAL_FEW.index(cell) % 4])


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[3]], ids=str)
def test_many_steps(settings):
    check(pair, "trace", *settings, steps=20)


def test_the_sample_holds_every_objective_guide_and_model():
    assert [set(column) for column in zip(*FEW, strict=True)] == [{*OBJECTIVES} - SPECIAL_ONLY, {*GUIDES}, {*MODELS}]


def test_any_two_of_objective_guide_model_and_setting_meet():
    columns = [{*OBJECTIVES} - SPECIAL_ONLY, {*GUIDES}, {*MODELS}, {*SETTINGS}]
    for a, b in combinations(range(4), 2):
        met = {(row[a], row[b]) for row in ((*cell, setting(cell)) for cell in CELLS)}
        assert met == {*product(columns[a], columns[b])}


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_cell(cell):
    check_cell(cell, setting(cell))


# Validation adds operations and a dtype changes them all alike: each cell has both of each, and each two of them cells.
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cell", SPECIAL_CELLS, ids="-".join)
def test_every_special_cell_in_either_type_with_and_without_validation(cell, dtype):
    validation = (SPECIAL_CELLS.index(cell) % 2 == 0) == (dtype == torch.float32)
    check(SPECIAL[cell[0]][0], cell[1], dtype, validation)
