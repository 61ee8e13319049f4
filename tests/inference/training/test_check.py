"""What `check` lets pass and what it refuses: a matrix of pairs that work and pairs that cannot."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import TWO_LAYER
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, config_enumerate
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import (
    ELBO,
    IWAE,
    RWS,
    STL,
    SVI,
    VIMCO,
    DReG,
    Renyi,
    Separate,
    WakeSleep,
    check,
    tempered,
)
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
FAMILIES = {"diagonal": Diagonal, "full_rank": FullRank, "iaf": IAF}
OBJECTIVES = [
    Trace_ELBO(),
    TraceMeanField_ELBO(),
    TraceGraph_ELBO(),
    RenyiELBO(num_particles=2),
    IWAE(2),
    Renyi(0.5, 2),
]


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def hierarchy(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", normal(torch.zeros(2)))
        z1 = pyro.sample("z1", normal(z2 @ torch.ones(2, 3)))
        pyro.sample("x", normal(z1 @ torch.ones(3, 4)), obs=x)


def program(site="z", width=2, plate="data", size=None, scale=None, fn=None, free=True):
    """A guide with one site and one parameter, to be wrong in one way at a time."""

    def guide(x):
        shift = pyro.param("shift", lambda: torch.zeros(())) if free else torch.zeros(())
        with pyro.plate(plate, size or len(x), subsample_size=len(x)):
            pyro.sample(site, normal(shift.expand(width)) if fn is None else fn(shift))

    return guide if scale is None else poutine.scale(guide, scale)


def one_site(prior=None, full_size=None, scale=None, free=False):
    def model(x):
        shift = pyro.param("bias", lambda: torch.zeros(())) if free else torch.zeros(())
        with pyro.plate("data", full_size or len(x), subsample_size=len(x)):
            z = pyro.sample("z", normal(torch.zeros(2)) if prior is None else prior)
            mean = z.float().reshape(len(x), -1).sum(-1, keepdim=True) + shift
            pyro.sample("x", normal(mean.expand(-1, 4)), obs=x)

    return model if scale is None else poutine.scale(model, scale)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("guide", FAMILIES)
def test_every_guide_fits_every_objective(guide, objective):
    model = PPCA(torch.ones(4, 2), torch.zeros(4), 1.0)
    analytic = isinstance(objective, TraceMeanField_ELBO) and guide != "iaf"
    terms = check(model, FAMILIES[guide](latents(model, X), MLP(4, 8)), objective, X)
    assert terms == {"z": "analytic" if analytic else "Monte Carlo"}


@pytest.mark.parametrize(
    ("guide", "term"), [("diagonal", "analytic"), ("full_rank", "analytic"), ("iaf", "Monte Carlo")]
)
def test_analytic_means_that_the_kl_has_no_noise(guide, term, float64):
    """Given z, log p(x | z) is all that is random: with W = 0 an analytic loss is the same for every seed."""
    model = PPCA(torch.zeros(4, 2), torch.zeros(4), 1.0)
    q = FAMILIES[guide](latents(model, X.double()), MLP(4, 8))
    svi = SVI(model, q, torch.optim.SGD, TraceMeanField_ELBO())
    losses = []
    for seed in range(3):
        pyro.set_rng_seed(seed)
        losses.append(svi.evaluate_loss(X.double()))
    assert check(model, q, TraceMeanField_ELBO(), X.double()) == {"z": term}
    assert (max(losses) - min(losses) < 1e-10) == (term == "analytic")


def test_a_latent_off_the_real_line_has_a_monte_carlo_kl():
    model = one_site(dist.Gamma(torch.full((2,), 2.0), 1.0).to_event(1))
    assert check(model, Diagonal(latents(model, X), MLP(4, 8)), TraceMeanField_ELBO(), X) == {"z": "Monte Carlo"}


@pytest.mark.parametrize("order", ["top_down", "independent"])
def test_orders_that_an_analytic_kl_allows(order):
    guide = Diagonal(latents(hierarchy, X), MLP(4, 8), order=order)
    assert check(hierarchy, guide, TraceMeanField_ELBO(), X) == {"z2": "analytic", "z1": "analytic"}


def test_bottom_up_is_refused_for_an_analytic_kl_alone():
    guide = Diagonal(latents(hierarchy, X), MLP(4, 8), order="bottom_up")
    with pytest.raises(ValueError, match=r"wrong for latent site 'z1': \['z2'\] generate it in the model.*Trace_ELBO"):
        check(hierarchy, guide, TraceMeanField_ELBO(), X)
    for objective in (Trace_ELBO(), IWAE(2), Renyi(0.5, 2)):
        assert check(hierarchy, guide, objective, X) == {"z1": "Monte Carlo", "z2": "Monte Carlo"}


def test_bottom_up_with_an_analytic_kl_would_be_a_wrong_number(float64):
    """With the exact posterior in bottom-up order, the ELBO is log p(x) itself, and the per-site KL misses it."""
    x = torch.tensor([[0.5, -0.2, 0.8, 0.1]])

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", normal(torch.zeros(2)))
            z1 = pyro.sample("z1", normal(z2 @ TWO_LAYER.upper.T, TWO_LAYER.s1.sqrt()))
            pyro.sample("x", normal(z1 @ TWO_LAYER.lower.T, TWO_LAYER.s2.sqrt()), obs=x)

    lower, upper = TWO_LAYER.bottom_up(x)
    shift = nn.Parameter(torch.zeros(()))

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.MultivariateNormal(lower.loc + pyro.param("shift", shift), lower.cov))
            pyro.sample("z2", dist.MultivariateNormal(upper(z1).loc, upper.cov))

    def elbo(objective):
        return -SVI(model, guide, torch.optim.SGD, objective).evaluate_loss(x)

    truth = TWO_LAYER.log_px(x).item()
    assert elbo(Trace_ELBO()) == pytest.approx(truth, abs=1e-10)
    with pytest.warns(UserWarning, match="Failed to verify mean field restriction"):
        wrong = elbo(TraceMeanField_ELBO(num_particles=4000, vectorize_particles=True))
    assert abs(wrong - truth) > 0.1
    with pytest.raises(ValueError, match="TraceMeanField_ELBO is wrong"):
        check(model, guide, TraceMeanField_ELBO(), x)


def empty(x):
    pyro.param("shift", torch.zeros(()))


def gamma(shift):
    return dist.Gamma(2.0 + shift, torch.ones(2)).to_event(1)


def unseen(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", normal(torch.zeros(2)))


REFUSED = {
    "no site": (one_site(), empty, r"guide lacks the latent sites \['z'\] of the model; it has \[\]: add them"),
    "other site": (one_site(), program("w"), r"guide samples \['w'\], which are no latent sites of the model"),
    "observed site": (one_site(), program("x", 4), r"guide samples \['x'\], which are no latent sites"),
    "width": (one_site(), program(width=3), r"'z' has event shape \(2,\) in the model and \(3,\) in the guide"),
    "plate": (one_site(), program(plate="rows"), r"'z' has plates .*'data'.* in the model and .*'rows'"),
    "unscaled": (
        one_site(full_size=400),
        program(),
        r"'z' has plates .* 400\).* in the model and .* 5\).* in the guide",
    ),
    "scale": (one_site(scale=3.0), program(), "'z' has scale 3.0 in the model and 1.0 in the guide; put poutine.scale"),
    "support": (
        one_site(dist.Gamma(torch.full((2,), 2.0), 1.0).to_event(1)),
        program(fn=lambda shift: normal(shift.expand(2) - 9)),
        r"guide draws values of 'z' outside the model's support .*biject_to\(support\)",
    ),
    "nothing observed": (unseen, program(), "model observes nothing when called with these arguments"),
    "nothing to train": (one_site(), program(free=False), "neither model nor guide has a parameter"),
}


@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(2)], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("case", REFUSED)
def test_pairs_that_cannot_work_are_refused(case, objective):
    model, guide, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        check(model, guide, objective, X)


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (one_site(), program()),
        (one_site(full_size=400), program(size=400)),
        (one_site(scale=3.0), program(scale=3.0)),
        (one_site(free=True), program(free=False)),
        (one_site(dist.Gamma(torch.full((2,), 2.0), 1.0).to_event(1)), program(fn=gamma)),
    ],
    ids=["plain", "subsampled", "scaled", "model alone has parameters", "support"],
)
@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(2)], ids=lambda o: type(o).__name__)
def test_their_right_counterparts_pass(model, guide, objective):
    assert check(model, guide, objective, X) == {"z": "Monte Carlo"}


class Noisy(nn.Module):
    """Two sites, of which the second hears the first through dropout."""

    def __init__(self):
        super().__init__()
        self.drop, self.second = nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", normal(x[:, :2]))
            pyro.sample("z1", normal(self.second(self.drop(torch.cat([z2, z2], -1)))))


@pytest.mark.parametrize(
    "objective",
    [
        IWAE(3, DReG()),
        ELBO(3, STL()),
        Separate(IWAE(3), IWAE(3, DReG())),
        tempered(ELBO(3, STL()), 0.5),
        RWS(3, doubly=True),
        RWS(3, 0.5, doubly=True),
    ],
    ids=repr,
)
def test_a_guide_with_dropout_is_refused_where_its_density_is_taken_twice(objective):
    with pytest.raises(ValueError, match="another density when it is run again.* leave out its dropout"):
        check(hierarchy, Noisy(), objective, X)
    assert check(hierarchy, Noisy().eval(), objective, X) == {"z2": "Monte Carlo", "z1": "Monte Carlo"}


def test_a_density_lost_to_rounding_is_not_called_dropout():
    torch.manual_seed(0)
    weight = torch.randn(6, 4)
    for dtype in (torch.float32, torch.float64):
        model = PPCA(10 * weight.to(dtype), torch.zeros(6, dtype=dtype), 5.0).to(dtype)
        x = model(n=200).detach()
        pyro.set_rng_seed(0)
        guide = FullRank(latents(model, x), MLP(6, 32).to(dtype)).to(dtype)
        if dtype is torch.float64:
            assert check(model, guide, IWAE(5, DReG()), x) == {"z": "Monte Carlo"}
            continue
        with pytest.raises(ValueError, match="rounding takes too much; standardise the data, compute in float64"):
            check(model, guide, IWAE(5, DReG()), x)


@pytest.mark.parametrize("objective", [IWAE(3), IWAE(3, VIMCO(everywhere=True)), RWS(3), WakeSleep()], ids=repr)
def test_a_guide_with_dropout_is_fine_where_its_density_is_taken_once(objective):
    assert check(hierarchy, Noisy(), objective, X) == {"z2": "Monte Carlo", "z1": "Monte Carlo"}


def test_a_site_too_many_is_named():
    def guide(x):
        program()(x)
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"guide samples \['w'\], which are no latent sites of the model; it has \['z'\]"
    ):
        check(one_site(), guide, Trace_ELBO(), X)


def test_auxiliary_sites_of_a_guide_are_its_own():
    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        program()(x)

    assert check(one_site(), guide, Trace_ELBO(), X) == {"z": "Monte Carlo"}


def coin(shift):
    return dist.Bernoulli(logits=shift.expand(2)).to_event(1)


@pytest.mark.parametrize("objective", [IWAE(2), Renyi(0.5, 2), TraceMeanField_ELBO()], ids=lambda o: type(o).__name__)
def test_a_discrete_latent_is_refused_where_gradients_go_through_it(objective):
    model = one_site(dist.Bernoulli(torch.full((2,), 0.5)).to_event(1))
    with pytest.raises(ValueError, match=r"differentiates through.*'z' \(Independent|Bernoulli\).*TraceEnum_ELBO"):
        check(model, program(fn=coin), objective, X)
    assert check(model, program(fn=coin), TraceGraph_ELBO(), X) == {"z": "Monte Carlo"}


def test_an_enumerated_site_needs_no_guide_under_enumeration_only():
    @config_enumerate
    def model(x):
        loc = pyro.param("loc", lambda: torch.zeros(2, 4))
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("x", normal(loc[y]), obs=x)

    def guide(x):
        pass

    assert check(model, guide, TraceEnum_ELBO(), X) == {}
    with pytest.raises(ValueError, match=r"guide lacks the latent sites \['y'\]"):
        check(model, guide, Trace_ELBO(), X)


@pytest.mark.parametrize(
    ("model", "guide"),
    [(one_site(full_size=400), program(size=400)), (one_site(scale=0.5), program(scale=0.5))],
    ids=["subsampled", "scaled"],
)
def test_pyros_renyi_is_refused_under_a_scale_and_ours_is_not(model, guide):
    with pytest.raises(ValueError, match=r"inside its logarithm.*use dlvm.inference.Renyi\(alpha, num_particles\)"):
        check(model, guide, RenyiELBO(alpha=0.5, num_particles=2), X)
    assert check(model, guide, Renyi(0.5, 2), X) == {"z": "Monte Carlo"}


@pytest.mark.parametrize("objective", [Trace_ELBO, IWAE, "elbo", None])
def test_an_objective_must_be_an_instance(objective):
    with pytest.raises(TypeError, match=r"objective must be an instance of pyro.infer.ELBO.*write Trace_ELBO\(\)"):
        check(one_site(), program(), objective, X)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.full((5, 4), 0.5), r"'x' holds values outside its likelihood's support Boolean\(\), such as \[0.5, 0.5"),
        (torch.full((5, 4), float("nan")), "such as .*nan.*remove NaN"),
        (torch.full((5, 4), 255.0), "such as .*255.0.*binarise grey levels"),
        (torch.zeros(5, 3), r"events of shape \(4,\) under the likelihood, but the data have shape \(5, 3\); make the"),
    ],
)
def test_data_that_the_likelihood_cannot_have_made_are_refused(x, words):
    model = VAE(2, Bernoulli(MLP(2, 4)))
    guide = Diagonal(latents(model, torch.zeros(5, 4)), MLP(x.shape[1], 8))
    with pytest.raises(ValueError, match=words):
        check(model, guide, Trace_ELBO(), x)


def test_a_guide_for_global_discrete_or_doubly_plated_latents_is_refused_by_name():
    def model(prior, where):
        def program(x):
            w = pyro.sample("w", dist.Normal(0.0, 1.0)) if where == "global" else 0.0
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", prior)
                pyro.sample("x", normal(z.float().reshape(len(x), -1).sum(-1, keepdim=True).expand(-1, 4) + w), obs=x)

        return program

    def nested(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("pixels", 4, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    for program, words in (
        (model(normal(torch.zeros(2)), "global"), "'w' is global"),
        (model(dist.Poisson(3.0), "data"), "'z' is discrete"),
        (nested, r"'z' lies in the plates \['data', 'pixels'\]"),
    ):
        with pytest.raises(ValueError, match=words):
            Diagonal(latents(program, X), MLP(4, 8))


def test_check_leaves_parameters_and_randomness_alone():
    model = PPCA(torch.ones(4, 2), torch.zeros(4), 1.0)
    guide = Diagonal(latents(model, X), MLP(4, 8))
    before = [v.detach().clone() for v in (*model.parameters(), *guide.parameters())]
    state = torch.get_rng_state()
    check(model, guide, TraceMeanField_ELBO(), X)
    assert torch.equal(torch.get_rng_state(), state) and not list(pyro.get_param_store().keys())
    assert all(torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True))


def test_a_model_is_held_against_the_rows_that_its_guide_picks():
    """What the guide subsamples the model follows; a bound of one latent by another holds at what the guide drew."""
    x = torch.rand(12, 1)

    def model(x):
        with pyro.plate("data", len(x)) as rows:
            top = pyro.sample("top", dist.Beta(torch.ones(len(rows)), 1.0))
            z = pyro.sample("z", dist.Uniform(torch.zeros(()), top))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x[rows])

    def guide(x):
        shape = pyro.param("shape", torch.tensor(1.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x), 4) as rows:
            top = pyro.sample("top", dist.Beta(shape.expand(len(rows)), 1.0))
            pyro.sample("z", dist.Uniform(torch.zeros(()), top))

    assert check(model, guide, Trace_ELBO(), x) == {"top": "Monte Carlo", "z": "Monte Carlo"}


def detaching(inner: nn.Module):
    """A linear model and guide whose nets are trained by nothing: the guide's output is a constant to all."""
    net = nn.Linear(3, 1)
    net.register_forward_hook(lambda module, inputs, output: output.detach())

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(inner(z).detach(), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    return model, guide, net


@pytest.mark.parametrize("objective", [Trace_ELBO(), ELBO(), IWAE(3)], ids=lambda each: type(each).__name__)
def test_a_pair_whose_parameters_get_no_gradient_is_refused(objective):
    model, guide, net = detaching(nn.Linear(1, 3))
    net.weight.grad = torch.ones_like(net.weight)
    before, state = net.weight.detach().clone(), torch.get_rng_state()
    with pytest.raises(ValueError, match="nothing would be trained by the gradient"):
        check(model, guide, objective, torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(net.weight, before) and torch.equal(net.weight.grad, torch.ones_like(before))
    assert torch.equal(torch.get_rng_state(), state)
    net._forward_hooks.clear()
    check(model, guide, objective, torch.zeros(5, 3))
    assert torch.equal(net.weight.grad, torch.ones_like(before)) and torch.equal(net.weight, before)
