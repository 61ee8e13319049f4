"""What is said of a model's data is what is done with them, or it is refused: numbers against closed forms."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, pyro_method
from torch import nn

from dlvm.evidence import calibration, defensive, importance, quadrature, sandwich, simulate, views
from dlvm.inference import IWAE, described, encode, evaluate, fit, reconstruct
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.row_arguments import rowed
from dlvm.inference.programs.rows import DataCount
from dlvm.inference.programs.statement import NOTHING, Statement, said_of
from dlvm.inference.use import encode as encoding

CELLS = torch.linspace(-2, 2, 16).reshape(4, 4).sin() * 2
SERIES = torch.linspace(-2, 2, 28).reshape(4, 7).cos() * 2
EACH = dist.Normal(0.0, math.sqrt(2.0)).log_prob(CELLS)


def plates(x):
    return pyro.plate("rows", len(x), dim=-2), pyro.plate("cols", x.shape[1], dim=-1)


def crossed(x):
    """A cell is x = z + noise: whether a datum is a cell, a row or a column is the user's to say."""
    rows, cols = plates(x)
    with rows, cols:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def crossed_posterior(x):
    rows, cols = plates(x)
    with rows, cols:
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))


def factors(x):
    """Of rows and of columns: the one is the other's mirror."""
    rows, cols = plates(x)
    with rows:
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
    with cols:
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
    with rows, cols:
        pyro.sample("x", dist.Normal(u * v, 1.0), obs=x)


def series(x):
    """Shape (time, batch)."""
    with pyro.plate("series", x.shape[1]):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("time", len(x), dim=-2):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class SeriesPosterior(nn.Module):
    """Exact at its start."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, time_major):
        self.seen.append(time_major.shape)
        length = len(time_major) + 1
        with pyro.plate("series", time_major.shape[1]):
            pyro.sample("z", dist.Normal(time_major.sum(0) / length + self.shift, length**-0.5))


def exact_of(x):
    return dist.MultivariateNormal(torch.zeros(len(x)), torch.eye(len(x)) + 1).log_prob(x.T)


@pytest.fixture(autouse=True)
def nothing_said():
    yield
    for model in (crossed, factors, series, turned):
        described(model)


@pytest.mark.parametrize(
    "plate, per_datum, exact",
    [
        ("rows", (), EACH.sum(1)),
        ("cols", {"x": 1}, EACH.sum(0)),
        ("cols", (), EACH.sum(0)),
        (("rows", "cols"), (), EACH.flatten()),
    ],
)
def test_the_plate_that_is_said_indexes_data_of_crossed_plates_of_one_size(plate, per_datum, exact):
    described(crossed, data_plate=plate, per_datum=per_datum)
    pair = Pair(crossed, crossed_posterior)
    assert DataCount(pair)((CELLS,)) == len(exact)
    torch.testing.assert_close(importance(crossed, crossed_posterior, CELLS, 2, chunk=8).log_px.float(), exact)
    assert abs(evaluate(crossed, crossed_posterior, CELLS, num_particles=4, chunk=8).log_px - exact.mean()) < 1e-4
    seen = views(crossed, crossed_posterior, CELLS, num_particles=400, draws=4)
    assert abs(seen.elbo.value - exact.mean()) < 5 * seen.elbo.se
    rate = (math.log(2) / 2 - 0.25 + CELLS.square() / 8).sum() / len(exact)
    assert abs(seen.rate.value - rate) < 1e-4
    loss = IWAE(3).loss(crossed, crossed_posterior, CELLS)  # as stock SVI calls it
    assert abs(loss + exact.sum()) < 1e-3


def test_without_a_word_cells_are_data_and_no_chunk_of_rows_is_one_of_data():
    assert DataCount(Pair(crossed, crossed_posterior))((CELLS,)) == 16
    with pytest.raises(ValueError, match="6 weights for 2 data.*described"):
        importance(crossed, crossed_posterior, torch.zeros(5, 3), 2, chunk=4)


@pytest.mark.parametrize("plate, count", [(None, 20), ("rows", 5), ("cols", 4)])
def test_latents_of_the_other_plate_are_shared_by_all_data(plate, count):
    described(factors, data_plate=plate)
    assert DataCount(Pair(factors))((CELLS.new_ones(5, 4),)) == count


def test_subsamples_inside_a_datum_make_no_more_data():
    def model(x):
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("cols", 40, subsample_size=x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    count = DataCount(Pair(described(model, data_plate="rows"), crossed_posterior))
    assert count((CELLS,)) == 4
    with pytest.raises(ValueError, match="no unbiased subsample"):
        IWAE(2).loss(model, crossed_posterior, CELLS)


@pytest.mark.parametrize("length", [4, 7])
def test_time_major_data_are_cut_along_the_axis_that_is_said(length):
    x, guide = SERIES[:4] if length == 4 else torch.cat([SERIES, SERIES[:3]]), SeriesPosterior()
    exact = exact_of(x)
    whole = importance(series, guide, x, num_particles=2).log_px
    assert rowed(Pair(series, guide), (x,)) is None and {shape[1] for shape in guide.seen} <= {1, 7}
    described(series, per_datum={"x": 1})
    assert rowed(Pair(series, guide), (x,)) == (1,)
    guide.seen.clear()
    found = importance(series, guide, x, num_particles=2, chunk=6).log_px
    assert {shape[1] for shape in guide.seen} <= {1, 2, 3} and {shape[0] for shape in guide.seen} == {length}
    torch.testing.assert_close(found.float(), exact)
    torch.testing.assert_close(whole.float(), exact)


def test_all_agree_on_nats_per_datum_of_time_major_data():
    guide, x, exact = SeriesPosterior(), SERIES, exact_of(SERIES)
    described(series, per_datum={"x": 1})
    (epoch,) = fit(series, guide, IWAE(2), [(x,)], optimizer=partial(torch.optim.SGD, lr=1e-9), epochs=1)
    assert abs(epoch.train - exact.mean()) < 1e-4
    torch.testing.assert_close(quadrature(series, x, chunk=130).log_px.float(), exact, atol=1e-3, rtol=0)
    assert (defensive(series, guide, x, num_particles=200).log_px - exact).abs().max() < 0.2
    found = views(series, guide, x, num_particles=50, draws=50)
    assert abs(found.elbo.value - exact.mean()) < 5 * found.elbo.se and found.information is not None


def turned(x):
    """The same, without a plate over time."""
    with pyro.plate("series", x.shape[1]):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, len(x)), 1.0).to_event(1), obs=x.T)


def test_simulated_series_lie_along_their_axis():
    guide = SeriesPosterior()
    with pytest.raises(ValueError, match="per_datum"):
        simulate(turned, 9, example=(SERIES,))
    found = simulate(described(turned, per_datum={"x": 1}), 9, example=(SERIES,))
    assert found.num_data == 9 and found.args[0].shape == (4, 9)
    assert (found.args[0].mean(0) - found.values["z"]).abs().max() < 2  # each lies beside its z
    assert calibration(turned, guide, num_data=40, num_particles=20, example=(SERIES,)).num_data == 40


@pytest.mark.slow
def test_what_is_made_of_a_pair_in_use_lies_where_the_data_lie(monkeypatch):
    described(turned, per_datum={"x": 1})
    whole = reconstruct(turned, SeriesPosterior(), SERIES, num_particles=400)
    monkeypatch.setattr(encoding, "MOST_ROWS", 3)
    found = reconstruct(turned, SeriesPosterior(), SERIES, num_particles=400)
    assert found.shape == SERIES.shape and (found - SERIES.sum(0) / 5).abs().max() < 0.1
    assert (whole - SERIES.sum(0) / 5).abs().max() < 0.1
    z = encode(turned, SeriesPosterior(), SERIES, num_particles=4)["z"]
    torch.testing.assert_close(z.mean, SERIES.sum(0) / 5)


@pytest.mark.slow
def test_a_bracket_of_simulated_series_holds_their_exact_log_px():
    found, guide = simulate(described(turned, per_datum={"x": 1}), 9, example=(SERIES,)), SeriesPosterior()
    bracket = sandwich(turned, guide, found, num_particles=5, num_chains=4, temperatures=20)
    torch.testing.assert_close(bracket.rows["IWAE"].log_px.float(), exact_of(found.args[0]))
    assert (bracket.rows["reverse AIS"].log_px - exact_of(found.args[0])).abs().max() < 1


def test_a_shared_table_as_long_as_the_batch_is_never_cut():
    """x = z + mean of the table where a datum is marked. The last is not, so that it weighs alone what it weighed."""
    x, marks, table = torch.linspace(-1, 1, 6), torch.tensor([1.0, 1, 1, 1, 1, 0]), torch.linspace(0, 6, 6)

    def model(x, marks, offsets):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + marks * offsets.mean(), 1.0), obs=x)

    def guide(x, marks, more):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 3 * marks) / 2, math.sqrt(0.5)))

    args, exact = [(x, marks, table)], dist.Normal(3 * marks, math.sqrt(2.0)).log_prob(x)
    told = importance(model, guide, args, 50, chunk=50).log_px
    assert (told - exact).abs().max() > 0.5  # what has no remedy but a word
    said = importance(described(model, shared="offsets"), guide, args, 50, chunk=50).log_px
    torch.testing.assert_close(said.float(), exact)
    first = described(lambda offsets, x, marks: model(x, marks, offsets), shared="offsets")
    args = [(torch.full((3,), 3.0), x, marks)]
    turned = importance(first, lambda more, x, marks: guide(x, marks, more), args, 50, chunk=50).log_px
    torch.testing.assert_close(turned.float(), exact)


@pytest.mark.parametrize(
    "model, said, words",
    [
        (crossed, {"data_plate": "data"}, "'data'.*plates \\['cols', 'rows'\\]"),
        (crossed, {"per_datum": {"x": 2}}, "shape \\(4, 4\\)"),
        (crossed, {"shared": "x"}, "no other tensor"),
    ],
)
def test_what_is_not_so_is_refused_when_programs_run(model, said, words):
    with pytest.raises(ValueError, match=words):
        importance(described(model, **said), crossed_posterior, CELLS, 2)


def test_latents_of_one_of_two_data_plates_are_shared_by_some_data_only():
    with pytest.raises(ValueError, match=r"latent site 'u' lies in \['rows'\] and not in \['cols'\]"):
        DataCount(Pair(described(factors, data_plate=("rows", "cols"))))((CELLS,))


def test_a_plate_without_data_is_no_data_plate():
    def model(x):
        with pyro.plate("weights", 3):
            pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"holds no observed site.*\['data'\]"):
        DataCount(Pair(described(model, data_plate="weights")))((torch.zeros(5),))


def test_a_word_against_what_is_seen_is_refused():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"per_datum=\{'x': 0, 'y': 0\}"):
        importance(described(model, shared="y"), guide, [(torch.zeros(6), torch.arange(6.0))], 2)
    with pytest.raises(ValueError, match="x: 6, y: 5"):
        importance(described(model, per_datum=("x", "y")), guide, [(torch.zeros(6), torch.arange(5.0))], 2)


def test_a_word_is_kept_beside_the_program_and_replaced_by_the_next():
    assert described(series, per_datum={"x": 1}) is series
    handled = pyro.poutine.scale(series, scale=2.0)
    assert said_of(handled) == Pair(series).said == Statement((), (("x", 1),)) and Pair(handled).axes == {0: 1}
    assert said_of(described(series, data_plate="series")) == Statement(("series",))
    assert said_of(described(series)) == NOTHING


def test_modules_methods_and_decorated_functions_keep_what_is_said():
    class Model(PyroModule):
        @described(shared="table")
        def forward(self, x, table):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(table.mean(), 1.0), obs=x)

        @pyro_method
        def other(self, x, table):
            return self(x, table)

    model = Model()
    assert Pair(model).axes == {1: None}
    described(model, data_plate="data")
    assert Pair(model).axes == {} and Pair(Model()).axes == {1: None} and Pair(model).said.plates == ("data",)
    described(model.other, per_datum="x")
    assert Pair(model.other).axes == {0: 0} and Pair(model).axes == {} and said_of(Model().other) == NOTHING
