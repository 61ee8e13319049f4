"""decode, reconstruct and generate against closed forms."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.inference import decode, encode, generate, interpolate, reconstruct, traverse
from dlvm.inference.use import encode as pieces
from dlvm.models import burda

from .pairs import CENTRES, CLASSES, LINEAR, LOC, MIXTURE, TABLE, WEIGHT, Table, X, posterior

LAYERS = burda(6, (4, 2), (8, 8))


def test_decode_is_the_mean_of_the_likelihood():
    z = torch.randn(7, 2)
    torch.testing.assert_close(decode(LINEAR, z), z @ WEIGHT.T + LOC)
    np.testing.assert_array_equal(decode(LINEAR, z.double().numpy()), decode(LINEAR, {"z": z}).numpy())


def test_decode_draws_where_it_is_asked_to():
    z = torch.zeros(4000, 2)
    x = decode(LINEAR, z, draw=True, seed=3)
    assert ((x.mean(0) - LOC) / (0.5 / 4000**0.5)).abs().max() < 4
    assert (x.std(0) - 0.5).abs().max() < 0.03


def test_layers_below_what_is_given_are_drawn_and_those_above_not_needed():
    top = torch.ones(3, 2)
    one, same, other = (decode(LAYERS, {"z2": top}, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    z1 = torch.ones(3, 4)
    assert torch.equal(decode(LAYERS, {"z1": z1}), decode(LAYERS, {"z1": z1, "z2": top}, seed=5))


def skipping(x=None, n=1):
    """x sees both layers, so that z1 alone does not say what x is."""
    with pyro.plate("data", n if x is None else len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z1 + z2, 1.0).to_event(1), obs=x)


def test_a_layer_that_is_missing_above_is_not_made_up():
    with pytest.raises(ValueError, match="z gives 'z1' and leaves out sites above it that 'x' depends on"):
        decode(skipping, {"z1": torch.ones(3, 1)})
    assert torch.equal(decode(skipping, {"z1": torch.ones(3, 1), "z2": torch.ones(3, 1)}), torch.full((3, 1), 2.0))


def test_reconstruct_averages_over_draws_or_takes_one():
    exact = LINEAR.posterior(X).loc @ WEIGHT.T + LOC
    many = reconstruct(LINEAR, posterior, X, num_particles=100)
    spread = (LINEAR.posterior(X).covariance_matrix @ WEIGHT.T).mT @ WEIGHT.T
    assert ((many - exact) / (spread.diagonal(dim1=-2, dim2=-1) / 100).sqrt()).abs().max() < 4.5
    one = reconstruct(LINEAR, posterior, X, num_particles=1)
    assert ((one - exact).square() / spread.diagonal(dim1=-2, dim2=-1)).mean() == pytest.approx(1, abs=0.4)


def test_reconstruct_gives_back_a_table_with_its_ids_and_columns():
    table = reconstruct(LINEAR, posterior, TABLE, num_particles=2)
    assert isinstance(table, Table) and table.index == TABLE.index and table.columns == TABLE.columns
    np.testing.assert_array_equal(table.numbers, reconstruct(LINEAR, posterior, X, num_particles=2).numpy())


def test_reconstruct_averages_angles_by_their_direction():
    """At the seam of the circle, where the mean of 3.1 and -3.1 as numbers is far from both."""

    def program(x, n=1):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(torch.pi, 9.0))
            pyro.sample("x", dist.VonMises(z, 4.0), obs=x)

    found = reconstruct(program, pyro.poutine.block(program, hide=["x"]), torch.zeros(3), num_particles=200)
    assert (found.abs() > 3.0).all()


def test_reconstruct_puts_what_many_sites_observe_where_it_was():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            for t in (1, 0):
                pyro.sample(f"x_{t}", dist.Normal(z + 10 * t, 1.0), obs=x[:, t])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1), 1e-6))

    x = torch.arange(6.0).reshape(3, 2)
    expected = x.sum(-1, keepdim=True) + torch.tensor([0.0, 10.0])
    torch.testing.assert_close(reconstruct(model, guide, x), expected, rtol=0, atol=1e-4)


def test_reconstruct_cuts_rows_in_order(monkeypatch):
    sharp = reconstruct(LINEAR, posterior, X, num_particles=40)
    monkeypatch.setattr(pieces, "NUMBERS_AT_ONCE", 4 * 7)
    assert (reconstruct(LINEAR, posterior, X, num_particles=40) - sharp).abs().max() < 0.45  # rows differ by 1 or so


def test_generate_draws_from_the_model():
    drawn = generate(LINEAR, 5000)
    x, cov = drawn["x"], WEIGHT @ WEIGHT.T + 0.25 * torch.eye(4)
    assert ((x.mean(0) - LOC) / (cov.diagonal() / 5000).sqrt()).abs().max() < 4
    assert (torch.cov(x.T) - cov).abs().max() < 0.2 and drawn["z"].shape == (5000, 2)


def test_generate_takes_what_is_given_above():
    y = np.array([0, 1, 2] * 700)
    drawn = generate(MIXTURE, 2100, given={"y": y})
    means = np.stack([drawn["x"][y == c].mean(0) for c in range(3)])
    assert abs(means - CENTRES.numpy()).max() < 4 / 700**0.5 and (drawn["y"] == y).all()


def test_generate_weighs_what_is_given_below(capsys):
    """p(y | x) of the mixture, by enumeration."""
    x = torch.tensor([[0.5, 0.3]])
    with pytest.raises(ValueError, match="given has 'x', which depends on sites that are drawn.*pass num_particles"):
        generate(MIXTURE, 4000, given={"x": x.expand(4000, 2)})
    y = generate(MIXTURE, 4000, given={"x": x.expand(4000, 2)}, num_particles=60)["y"]
    found, exact = torch.bincount(y, minlength=3) / 4000, MIXTURE.posterior(x)[0]
    assert ((found - exact).abs() < 4 * (exact * (1 - exact) / 4000).sqrt() + 0.01).all()
    assert (CLASSES - exact).abs().max() > 0.1


def test_a_site_that_all_data_share_is_generated_once_and_not_chosen_datum_by_datum():
    def model(x=None, n=1):
        mean = pyro.sample("mean", dist.Normal(5.0, 0.1))
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(mean, 0.1))
            return pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    values = generate(model, 7)
    assert values["mean"].shape == () and 4 < values["mean"] < 6 and values["x"].shape == (7,)
    given, fixed = {"x": torch.full((7,), 5.2)}, pyro.poutine.condition(model, data={"mean": torch.tensor(5.0)})
    with pytest.raises(ValueError, match="model draws 'mean', which all data share"):
        generate(model, 7, given, num_particles=10)
    assert (generate(fixed, 7, given, num_particles=300)["z"] - 5.1).abs().max() < 0.3  # N(5.1, 0.07)


@pytest.mark.parametrize(("data", "pixels"), [(-2, -1), (-1, -2)])
def test_rows_are_data_wherever_the_model_has_its_plate(data, pixels):
    """Three data of three numbers, in either order of plates: what is given comes back, and row i of z makes row i."""
    heights = torch.tensor([0.0, 10.0, 20.0])

    def model(offset, n=1):
        with pyro.plate("data", n, dim=data):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 3, dim=pixels):
                high = heights if pixels == -1 else heights[:, None]
                pyro.sample("x", dist.Normal(z + high + (offset or 0.0), 1.0))

    z = torch.tensor([1.0, 2.0, 3.0])
    rows = z[:, None] + heights
    torch.testing.assert_close(decode(model, z), rows)
    torch.testing.assert_close(traverse(model, "z", [0], [1.0, 2.0, 3.0])[0], rows)
    found = generate(model, 3, given={"x": rows}, num_particles=500)
    assert torch.equal(found["x"], rows)
    assert (found["z"] - 0.75 * z).abs().max() < 1.8  # N(3/4 z, 1/4)


def test_what_is_given_and_masked_says_nothing_of_what_lies_above():
    def model(x=None, known=None, n=1):
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.poutine.mask(mask=torch.tensor(True) if known is None else known):
                return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    given = {"x": torch.full((600,), 3.0), "known": torch.arange(600) < 300}
    z = generate(model, 600, given, num_particles=60)["z"]
    assert (z[:300].mean() - 1.5).abs() < 0.3 and z[300:].mean().abs() < 0.3


def test_inputs_are_given_by_the_names_of_arguments():
    def model(x=None, c=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1e-3))
            return pyro.sample("x", dist.Normal(z + c, 1e-3), obs=x)

    c = torch.arange(4.0)
    assert (generate(model, 4, given={"c": c})["x"] - c).abs().max() < 0.01
    assert (decode(model, {"z": torch.ones(4), "c": c}) - c - 1).abs().max() < 1e-6


def test_randomness_stays_as_it_was():
    before = torch.get_rng_state()
    one, same = (generate(LINEAR, 3, seed=4)["x"] for _ in range(2))
    assert torch.equal(one, same) and torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, generate(LINEAR, 3, seed=5)["x"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: decode(LAYERS, torch.ones(3, 4)), "z must be a dictionary .* latent sites 'z2', 'z1'"),
        (
            lambda: decode(LINEAR, {"w": torch.ones(3, 2)}),
            "z names 'w', which is no site of the model; there are 'z', 'x'",
        ),
        (lambda: decode(LINEAR, torch.ones(3, 3)), r"site 'z' has values of shape \(3, 2\) .* got \(3, 3\)"),
        (lambda: decode(MIXTURE, torch.tensor([0, 3])), "site 'y' takes values in"),
        (lambda: generate(LINEAR, 3, given={"z": torch.ones(2, 2)}), r"shape \(3, 2\) .* got \(2, 2\)"),
        (lambda: generate(lambda x: MIXTURE(x), 3), "cannot be asked for n data"),
        (lambda: encode(LINEAR, posterior, X, num_particles=1), "num_particles must be at least 2"),
        (lambda: encode(LINEAR, posterior, X, num_draws=101), "num_draws must be at most"),
    ],
)
def test_what_cannot_be_is_refused_in_words(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()


def test_a_likelihood_without_a_mean_is_drawn_from():
    def model(x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Categorical(logits=z), obs=x)

    z = 50 * torch.eye(3)
    with pytest.raises(ValueError, match="site 'x' has a distribution, Categorical, that knows no mean; draw from it"):
        decode(model, z)
    assert decode(model, z, draw=True).tolist() == [0, 1, 2]


def test_a_table_of_latents_becomes_one_of_data_with_its_ids():
    z = np.array([[1.0, 0.0], [2.0, 1.0]])
    table = decode(LINEAR, Table(z, ["p", "q"], ["u", "v"]))
    assert table.index == ["p", "q"] and table.columns == ["x_0", "x_1", "x_2", "x_3"]
    np.testing.assert_array_equal(table.numbers, decode(LINEAR, z))
    assert generate(LINEAR, 2, given={"z": Table(z, ["p", "q"], ["u", "v"])})["z"].columns == ["z_0", "z_1"]


def test_data_that_the_programs_subsample_are_refused():
    """Four of twelve rows have a code, and which they are is not known."""

    def model(x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=4):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    with pytest.raises(ValueError, match="plate 'data' holds a subsample of 4 out of 12"):
        encode(model, guide, torch.zeros(12, 1))


def test_frames_of_pandas_keep_their_ids_and_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.double().numpy(), index=TABLE.index, columns=TABLE.columns)
    back, code = reconstruct(LINEAR, posterior, frame), encode(LINEAR, posterior, frame)["z"].mean
    assert (
        list(back.columns) == TABLE.columns and list(back.index) == TABLE.index and list(code.columns) == ["z_0", "z_1"]
    )
    counts = pandas.DataFrame({name: pandas.array([1, 2], dtype="Int64") for name in "abcd"})
    expected = encode(LINEAR, posterior, np.array([[1.0] * 4, [2.0] * 4]))["z"].mean
    np.testing.assert_array_equal(encode(LINEAR, posterior, counts)["z"].mean.to_numpy(), expected)


def without_n(x):
    """LINEAR as tutorials write it."""
    return LINEAR(x)


def test_a_model_that_takes_data_alone_is_asked_by_an_example():
    z = torch.randn(7, 2)
    torch.testing.assert_close(decode(without_n, z, example=X), decode(LINEAR, z))
    drawn = generate(without_n, 4000, example=X[:3])
    assert drawn["z"].shape == (4000, 2) and (drawn["x"].mean(0) - LOC).abs().max() < 0.1
    assert (torch.cov(drawn["x"].T) - WEIGHT @ WEIGHT.T - 0.25 * torch.eye(4)).abs().max() < 0.2
    torch.testing.assert_close(
        interpolate(without_n, posterior, X[:2], X[2:4]), interpolate(LINEAR, posterior, X[:2], X[2:4])
    )
    torch.testing.assert_close(traverse(without_n, "z", example=X), traverse(LINEAR, "z"))


def test_an_example_whose_data_make_other_data_is_refused():
    """x_1 is drawn about x_0: where x_0 is the example's, x_1 is not of the model."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x_0", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("x_1", dist.Normal(x[:, 0], 1.0), obs=x[:, 1])

    with pytest.raises(ValueError, match="site 'x_1' has a distribution that is made of data"):
        generate(model, 5, example=X[:, :2])


def test_what_a_model_observes_by_itself_is_not_left_out():
    """A factor exp(z): z ~ N(1, 1) and not N(0, 1)."""

    def tilted(x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.factor("tilt", z)
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="model observes 'tilt', which depends on sites that are drawn"):
        generate(tilted, 5)
    assert generate(tilted, 2000, num_particles=100)["z"].mean().item() == pytest.approx(1, abs=0.12)
