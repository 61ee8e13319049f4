"""Rows of data are held against the likelihood, have one weight each, and none that is NaN."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.inference.particles.row_weights import RowWeights, refuse_nan
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair

X = torch.linspace(-1, 1, 6)


class Counted:
    """A program that is counted, and can go wrong in several ways."""

    def __init__(self, observes: bool, fault: str = ""):
        self.observes, self.fault, self.calls = observes, fault, []

    def __call__(self, x):
        self.calls.append(len(x))
        shared = pyro.sample("w", dist.Normal(0.0, 1.0)) if self.fault == "shared" else 0.0
        with pyro.plate("data", len(x)):
            scale = math.nan if self.fault == "nan" and not self.observes else 1.0
            z = pyro.sample("z", dist.Normal(shared + torch.zeros(len(x)), scale))
            if self.observes:
                z = z.reshape(len(x)) if self.fault == "flat" else z
                pyro.sample("x", dist.Normal(z, 1.0, validate_args=False), obs=x)


def pair(fault=""):
    return Pair(Counted(True, fault), Counted(False, fault))


def test_weights_are_those_of_the_pair_under_one_stream(float64):
    rows = RowWeights(programs := pair())
    torch.manual_seed(0)
    found = rows((X,), 4)
    torch.manual_seed(0)
    programs.model(X)  # the check against the likelihood draws from the same stream
    expected = weigh(programs, (X,), {}, 4)
    assert torch.equal(found.log_w, expected.log_w) and found.log_w.shape == (4, 6)


def test_every_row_is_checked_and_particles_are_tried_once_on_three_data():
    rows = RowWeights(programs := pair())
    rows.check((X,), 4, rows=2)
    looked, calls = [6, 1], programs.model.__wrapped__.calls  # rows and one alone, to know that batches can be cut
    assert calls[:5] == [*looked, 2, 2, 2] and set(calls[5:]) == {3}
    tried = len(programs.model.__wrapped__.calls)
    rows.check((X,), 4)
    rows.check((X,), 1)
    assert programs.model.__wrapped__.calls[tried:] == [6, 6]
    alone = RowWeights(programs := pair("flat"))
    alone.check((X,), 1)
    assert programs.model.__wrapped__.calls == [6]
    assert programs.guide.__wrapped__.calls == []
    assert alone.parallel is None
    alone.check((X,), 2)
    assert alone.parallel is False and rows.parallel is True


def test_what_is_made_of_particles_comes_before_a_look_at_their_weights():
    def doubled(found):
        return found.changed({name: term._replace(factor=2.0) for name, term in found.terms.items()})

    torch.manual_seed(0)
    plain = RowWeights(pair())((X,), 3)
    torch.manual_seed(0)
    found = RowWeights(pair(), doubled)((X,), 3)
    assert torch.equal(found.log_w, plain.log_likelihood - 2 * plain.log_ratio)


@pytest.mark.parametrize(
    "fault, said",
    [
        ("shared", "1 weights for 6 data: .*that all data share"),
        ("nan", "6 data have NaN weights: .*not finite"),
    ],
)
def test_what_is_no_weight_of_a_datum_is_refused(fault, said):
    with pyro.validation_enabled(False), pytest.raises(ValueError, match=said):
        RowWeights(pair(fault))((X,), 1)


def normal(name: str, shape=(), event=0, obs=None):
    return pyro.sample(name, dist.Normal(torch.zeros(shape), 1.0).to_event(event), obs=obs)


def rows_and_columns(x):
    return pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", x.shape[1], dim=-1)


def crossed(x, observes):
    rows, columns = rows_and_columns(x)
    with rows:
        a = normal("a", (len(x), 1))
    with columns:
        b = normal("b", (x.shape[1],))
    if observes:
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)


def in_both(x, observes):
    rows, columns = rows_and_columns(x)
    with rows, columns:
        normal("z", x.shape)
        if observes:
            normal("x", x.shape, obs=x)


def without_a_plate(x, observes):
    normal("z", (len(x),), 1)
    if observes:
        normal("x", x.shape, 2, obs=x)


def in_two(x, observes):
    with pyro.plate("latents", len(x)):
        normal("z", (len(x),))
    if observes:
        with pyro.plate("observations", len(x)):
            normal("x", x.shape, 1, obs=x)


def with_weights(x, observes):
    with pyro.plate("weights", 7):
        w = normal("w", (7,))
    with pyro.plate("data", len(x)):
        normal("z", (len(x),))
        if observes:
            pyro.sample("x", dist.Normal(w.sum(), torch.ones(4, 3)).to_event(1), obs=x)


def named_otherwise(x, observes):
    with pyro.plate("data" if observes else "rows", len(x)):
        normal("z", (len(x),))
        if observes:
            normal("x", x.shape, 1, obs=x)


@pytest.mark.parametrize(
    "program, said",
    [
        (
            crossed,
            r"1 weights for 4 data: .*\{'a': \['rows'\], 'b': \['columns'\]\} and the data in \['rows', 'columns'\]",
        ),
        (in_both, r"12 weights for 4 data: all sites lie in plates \['rows', 'columns'\].*to_event"),
        (without_a_plate, "1 weights for 4 data: no site of the model lies in a plate.*write with pyro.plate"),
        (in_two, r"\{'z': \['latents'\]\} and the data in \['observations'\].*into one plate"),
        (with_weights, r"latent sites \['w'\] that all data share"),
        (named_otherwise, r"the model's sites lie in plates \['data'\] and the guide's in \['rows'\]"),
    ],
)
def test_where_data_have_no_weight_each_it_is_said_what_makes_it_so(program, said):
    programs = Pair(partial(program, observes=True), partial(program, observes=False))
    with pytest.raises(ValueError, match=said):
        RowWeights(programs)((torch.zeros(4, 3),), 1)


def test_rows_outside_the_support_are_refused_before_they_are_weighed():
    rows = RowWeights(programs := pair())
    with pytest.raises(ValueError, match="observed site 'x' holds values outside"):
        rows((torch.full((6,), math.nan),), 4)
    assert programs.guide.__wrapped__.calls == []


def test_data_with_a_weight_that_is_nan_are_counted_and_those_of_no_weight_are_none():
    refuse_nan(torch.tensor([[0.0, -math.inf]]))
    with pytest.raises(ValueError, match="^2 data have NaN weights"):
        refuse_nan(torch.tensor([[math.nan, 0.0, math.nan], [math.nan, 0.0, 0.0]]))
