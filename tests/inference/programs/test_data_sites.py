"""What a datum is: observed sites that are none, sites beside the plate, plates without a size, loops, scales."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from pyro.infer import Trace_ELBO

from dlvm.inference import ELBO, IWAE, SVI, DReG, evaluate, fit, log_weights
from dlvm.inference.programs.beside import beside
from dlvm.inference.programs.plates import data_plates, sample_sites

pytestmark = pytest.mark.usefixtures("float64")
W, B = torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64), torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
EXACT = dist.MultivariateNormal(B, torch.outer(W, W) + torch.eye(3, dtype=torch.float64)).log_prob(X)
PENALTY = -2.5
STILL = partial(torch.optim.SGD, lr=0.0)


def posterior(x, off=0.0):
    precision = 1 + W @ W
    return dist.Normal(((x - B) @ W / precision + off)[..., None], precision.rsqrt()).to_event(1)


def pair(before=lambda: None, inside=lambda x, loc: None, plate=lambda x: pyro.plate("data", len(x)), off=0.0):
    """p(z) p(x | z), x = W z + B + noise, with the posterior as its guide, moved by ``off``."""

    def model(x):
        level = pyro.param("level", torch.zeros(()))
        before()
        with plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            loc = z * W + B + level
            inside(x, loc)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        shift = pyro.param("shift", torch.zeros(()))
        with plate(x):
            pyro.sample("z", posterior(x, off + shift))

    return model, guide


def per_datum(model, guide, objective):
    data = [(X[:4],), (X[4:],)]
    return next(iter(fit(model, guide, objective, data, optimizer=STILL, epochs=1, seed=0, progress=False))).train


BESIDE = {
    "deterministic": (lambda: pyro.deterministic("norm", W.square()), 0.0),
    "factor": (lambda: pyro.factor("penalty", torch.tensor(PENALTY)), PENALTY),
    "known": (
        lambda: pyro.sample("known", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0)),
        dist.Normal(0.0, 1.0).log_prob(torch.tensor(3.0)).item(),
    ),
}


@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO(), ELBO(3), IWAE(5), IWAE(5, DReG())],
    ids=lambda o: type(o).__name__ + str(o.num_particles),
)
@pytest.mark.parametrize("before, once", BESIDE.values(), ids=BESIDE)
def test_what_is_observed_before_the_plate_counts_once_for_a_batch(objective, before, once):
    assert_close(per_datum(*pair(before), objective), (EXACT.sum() + 2 * once) / 6, 1e-6)


@pytest.mark.parametrize("before, once", BESIDE.values(), ids=BESIDE)
def test_it_is_in_no_datums_weight(before, once):
    assert_close(log_weights(*pair(before), X, num_particles=3), EXACT.expand(3, 6), 1e-9)
    found = evaluate(*pair(before), X, num_particles=30)
    assert_close(found.log_px, EXACT.mean(), 1e-9)
    assert found.num_data == 6
    assert_close(found.bits_per_dim, -EXACT.mean() / 3 / torch.tensor(2.0).log(), 1e-6)


def test_a_penalty_beside_the_data_trains_the_model_as_in_stock():
    weight = torch.nn.Parameter(torch.tensor(2.0))
    model, guide = pair(lambda: pyro.factor("penalty", -weight.square()))
    for objective in (ELBO(), IWAE(3), IWAE(3, DReG())):
        weight.grad = None
        objective.loss_and_grads(model, guide, X)
        assert_close(weight.grad, 4.0, 1e-9)
    pyro.set_rng_seed(0)
    ours = ELBO().loss(model, guide, X)
    pyro.set_rng_seed(0)
    assert_close(ours, Trace_ELBO().loss(model, guide, X), 1e-9)


def test_in_a_subsampled_plate_it_still_counts_once():
    programs = pair(
        lambda: pyro.factor("penalty", torch.tensor(PENALTY)), plate=lambda x: pyro.plate("data", 60, len(x))
    )
    for objective in (Trace_ELBO(), ELBO(), IWAE(3)):
        assert_close(objective.loss(*programs, X), -10 * EXACT.sum() - PENALTY, 1e-8)


@pytest.mark.parametrize("event_dim", [None, 1])
def test_what_is_only_written_down_in_the_plate_is_no_observed_number(event_dim):
    found = evaluate(*pair(inside=lambda x, loc: pyro.deterministic("loc", loc, event_dim=event_dim)), X, 30)
    assert_close(found.bits_per_dim, -EXACT.mean() / 3 / torch.tensor(2.0).log(), 1e-6)


def test_a_factor_in_the_plate_is_its_datums_and_no_observed_number():
    programs = pair(inside=lambda x, loc: pyro.factor("tilt", 0.5 * x[:, 0]))
    assert_close(log_weights(*programs, X)[0], EXACT + 0.5 * X[:, 0], 1e-9)
    assert_close(per_datum(*programs, IWAE(3)), (EXACT + 0.5 * X[:, 0]).mean(), 1e-6)
    found = evaluate(*programs, X, 30)
    assert_close(found.bits_per_dim * 3 * torch.tensor(2.0).log(), -(EXACT + 0.5 * X[:, 0]).mean(), 1e-6)


def test_what_depends_on_the_draws_makes_a_batch_one_datum_for_bounds_and_no_weights():
    def model(x):
        with pyro.plate("latents", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(z * W + B, 1.0).to_event(1), obs=x)

    def guide(x):
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("latents", len(x)):
            pyro.sample("z", posterior(x, shift))

    for objective in (Trace_ELBO(), ELBO(), IWAE(3)):
        assert_close(per_datum(model, guide, objective), EXACT.mean(), 1e-6)
    with pytest.raises(
        ValueError, match=r"latent sites lie in plates \['latents'\] and the data in \['observations'\]"
    ):
        log_weights(model, guide, X)


def test_an_observed_site_outside_the_plate_that_depends_on_the_draws_is_refused_where_each_datum_is_weighed():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * W + B, 1.0).to_event(1), obs=x)
        pyro.sample("sum", dist.Normal(z.sum((-2, -1)), 1.0), obs=torch.tensor(0.5))

    _, guide = pair()
    with pytest.raises(ValueError, match="observed site 'sum' depends on latent sites in a plate"):
        log_weights(model, guide, X)
    losses = []
    for objective in (ELBO(), Trace_ELBO()):
        pyro.set_rng_seed(0)
        losses.append(objective.loss(model, guide, X))
    assert_close(losses[0], losses[1], 1e-9)


def test_a_plate_without_a_size_has_as_many_data_as_its_sites_have_rows():
    bare = {"plate": lambda x: pyro.plate("data"), "off": 0.3}
    for objective in (Trace_ELBO(), ELBO(2), IWAE(5), IWAE(5, DReG())):
        assert per_datum(*pair(**bare), objective) == per_datum(*pair(off=0.3), objective)
    assert_close(log_weights(*pair(plate=bare["plate"]), X), EXACT[None], 1e-9)
    assert evaluate(*pair(**bare), X, 30) == evaluate(*pair(off=0.3), X, 30)


def looped(size=None, off=0.0, scale=lambda i: 1.0):
    def model(x):
        for i in pyro.plate("data", len(x), size):
            with poutine.scale(scale=scale(i)):
                z = pyro.sample(f"z_{i}", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample(f"x_{i}", dist.Normal(z * W + B, 1.0).to_event(1), obs=x[i])

    def guide(x):
        shift = pyro.param("shift", torch.zeros(()))
        for i in pyro.plate("data", len(x), size):
            with poutine.scale(scale=scale(i)):
                pyro.sample(f"z_{i}", posterior(x[i], off + shift))

    return model, guide


def test_each_turn_of_a_sequential_plate_is_a_datum():
    assert_close(log_weights(*looped(), X, num_particles=2), EXACT.expand(2, 6), 1e-9)
    for objective in (Trace_ELBO(), ELBO(), IWAE(4), IWAE(4, DReG())):
        assert_close(per_datum(*looped(), objective), EXACT.mean(), 1e-6)
    with pytest.raises(ValueError, match="runs through plate 'data' one datum at a time"):
        evaluate(*looped(), X)


@pytest.mark.slow
def test_a_bound_over_turns_is_that_over_rows():
    """With the guide off by 0.4, IWAE(5) of rows and of turns have one mean; of 400 estimates, 4 standard errors."""
    means, errors = [], []
    for programs in (looped(off=0.4), pair(off=0.4)):
        pyro.set_rng_seed(0)
        losses = torch.tensor([IWAE(5).loss(*programs, X) for _ in range(400)])
        means.append(losses.mean())
        errors.append(losses.std() / 20)
    assert abs(means[0] - means[1]) < 4 * (errors[0] ** 2 + errors[1] ** 2) ** 0.5


def test_turns_have_scales_of_their_own():
    weights = [0.5, 1.0, 2.0, 1.0, 0.25, 3.0]
    loss = IWAE(3).loss(*looped(scale=lambda i: weights[i]), X)
    assert_close(loss, -(EXACT * torch.tensor(weights)).sum(), 1e-9)


def test_a_subsampled_sequential_plate_stands_for_all_its_data():
    """Of six equal data, two are looked at."""
    x = X[:1].expand(6, 3)

    def rows():
        return pyro.plate("data", 6, subsample=torch.tensor([1, 4]))

    def model(x):
        pyro.param("level", torch.zeros(()))
        for i in rows():
            z = pyro.sample(f"z_{i}", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample(f"x_{i}", dist.Normal(z * W + B, 1.0).to_event(1), obs=x[i])

    def guide(x):
        shift = pyro.param("shift", torch.zeros(()))
        for i in rows():
            pyro.sample(f"z_{i}", posterior(x[i], shift))

    assert_close(log_weights(model, guide, x)[0], EXACT[0].expand(2), 1e-9)
    assert_close(IWAE(3).loss(model, guide, x), -6 * EXACT[0], 1e-9)
    record = next(iter(fit(model, guide, IWAE(3), [(x,)], optimizer=STILL, epochs=1, progress=False)))
    assert_close(record.train, EXACT[0], 1e-6)


def test_the_data_plate_is_that_of_the_latent_sites_and_not_what_observed_sites_share():
    """Ratings lie in users x items, what is known of items in items alone: users are the data."""

    def model():
        users, items = pyro.plate("users", 4, dim=-2), pyro.plate("items", 3, dim=-1)
        with items:
            pyro.sample("known", dist.Normal(torch.zeros(3), 1.0), obs=torch.ones(3))
        with users:
            z = pyro.sample("taste", dist.Normal(torch.zeros(4, 1), 1.0))
            with items:
                pyro.sample("rating", dist.Normal(z * W, 1.0), obs=X[:4])

    sites = sample_sites(poutine.trace(model).get_trace())
    assert [frame.name for frame in data_plates(sites)] == ["users"]
    assert [site["name"] for site in beside(sites)] == ["known"]


def test_weights_of_data_beside_a_global_latent_scale_these_alone():
    w, x = torch.tensor([0.4, 1.6]), X[:2, 0]

    def model():
        c = pyro.sample("c", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2), poutine.scale(scale=w):
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide():
        pyro.sample("c", dist.Normal(pyro.param("m", torch.tensor(0.3)), 0.8))

    for ours, theirs in ((ELBO(), Trace_ELBO()), (IWAE(1), Trace_ELBO())):
        losses = []
        for objective in (ours, theirs):
            pyro.set_rng_seed(0)
            losses.append(objective.loss(model, guide))
        assert_close(losses[0], losses[1], 1e-9)


def test_a_scale_on_the_likelihood_alone_is_in_the_weight():
    """log of the integral of N(z; 0, 1) N(x; W z + B, I)^0.5, by the Gaussian of twice the variance."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(z * W + B, 1.0).to_event(1), obs=x)

    def guide(x):
        precision = 1 + 0.5 * W @ W
        with pyro.plate("data", len(x)):
            loc = 0.5 * ((x - B) @ W) / precision + pyro.param("shift", torch.zeros(()))
            pyro.sample("z", dist.Normal(loc[:, None], precision.rsqrt()).to_event(1))

    twice = dist.MultivariateNormal(B, torch.outer(W, W) + 2 * torch.eye(3)).log_prob(X)
    exact = twice + 1.5 * torch.tensor(2 * torch.pi).log() * 0.5 + 1.5 * torch.tensor(2.0).log()
    assert_close(log_weights(model, guide, X)[0], exact, 1e-9)
    assert_close(per_datum(model, guide, IWAE(3)), exact.mean(), 1e-6)


def test_a_scale_that_fits_no_plate_is_refused_by_name():
    def program(x):
        with pyro.plate("data", 6, dim=-1), poutine.scale(scale=torch.ones(3, 1)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"site 'z' has a density of shape \(6,\) and a scale of shape \(3, 1\)"):
        ELBO().loss(program, program, X)


def test_the_engine_captures_what_is_beside_the_data():
    weight = torch.nn.Parameter(torch.tensor(2.0))

    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__("model")
            self.weight = weight

        def forward(self, x):
            pyro.factor("penalty", -self.weight.square())
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z * W + B, 1.0).to_event(1), obs=x)

    class Guide(pyro.nn.PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", posterior(x))

    losses = {}
    for engine in ("eager", "captured"):
        weight.data.fill_(2.0)
        svi = SVI(Model(), Guide("guide"), partial(torch.optim.SGD, lr=0.1), IWAE(3), engine=engine)
        losses[engine] = [svi.step(X) for _ in range(4)]
    assert_close(torch.tensor(losses["captured"]), torch.tensor(losses["eager"]), 1e-9)
    assert losses["eager"][0] - losses["eager"][1] > 1
