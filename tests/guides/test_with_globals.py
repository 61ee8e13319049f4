"""Global sites under an automatic guide, local ones under an amortised guide: exact where all is Gaussian."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from itertools import combinations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import LinearGaussian, assert_close
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from pyro.poutine.messenger import Messenger
from torch import nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides import IAF, Diagonal, Joint, Ladder, Local, latents
from dlvm.guides.with_globals import WithGlobals, local_sites
from dlvm.inference import ELBO, IWAE, SVI, check, evaluate, fit
from dlvm.nets import MLP

FAMILIES = {
    "normal": AutoNormal,
    "diagonal": AutoDiagonalNormal,
    "full": AutoMultivariateNormal,
    "low_rank": partial(AutoLowRankMultivariateNormal, rank=1),
    "iaf": partial(AutoIAFNormal, hidden_dim=[6]),
    "delta": AutoDelta,
}
EVERY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
Adam = partial(torch.optim.Adam, lr=1e-2, foreach=False, fused=False)
X = torch.linspace(-1, 1, 24).reshape(6, 4)

FEATURES = torch.tensor([[1.0, 0.2], [1.0, -0.7], [1.0, 1.3], [1.0, 0.4], [1.0, -1.1]], dtype=torch.float64)
Y = torch.tensor([0.3, -1.0, 1.7, 0.1, -0.4], dtype=torch.float64)
NOISE = torch.tensor(0.3, dtype=torch.float64)
N, K = FEATURES.shape
REGRESSION = LinearGaussian(FEATURES, torch.zeros(N, dtype=torch.float64), NOISE)
RANDOM_EFFECTS = LinearGaussian(
    torch.cat([FEATURES, torch.eye(N, dtype=torch.float64)], 1), torch.zeros(N, dtype=torch.float64), NOISE
)


def regression(y, f):
    """y_n = w'f_n + e_n."""
    w = pyro.sample("w", dist.Normal(torch.zeros(K), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((w * f).sum(-1), NOISE.sqrt()), obs=y)


def random_effects(y, f):
    """y_n = w'f_n + z_n + e_n."""
    w = pyro.sample("w", dist.Normal(torch.zeros(K), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("y", dist.Normal((w * f).sum(-1) + z[..., 0], NOISE.sqrt()), obs=y)


class Offset(PyroModule):
    """x_n = net(z_n) + w + s e_n with a global vector w and a global scale s > 0; of `full` data x is a batch."""

    def __init__(self, full: int | None = None):
        super().__init__("model")
        self.net, self.full = nn.Linear(2, 4), full

    def forward(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
        with pyro.plate("data", self.full or len(x), subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z) + w, s.unsqueeze(-1)).to_event(1), obs=x)


def offset(family=AutoNormal, full=None):
    model = Offset(full)
    return model, WithGlobals(Diagonal(local_sites(latents(model, X)), MLP(4, 5)), model, family, X)


class Readout(nn.Module):
    """Features that are linear in (y, f)."""

    out_features = 3

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1 + K, 3)

    def forward(self, y, f):
        return self.net(torch.cat([y[:, None], f], 1))


class _Cubature(Messenger):
    """Noise of w and z at the points +- sqrt(D) e_i, of equal weight: expectations of quadratics are exact."""

    def __init__(self, dims: int):
        super().__init__()
        points = dims**0.5 * torch.eye(dims)
        self.eps = torch.cat([points, -points]).unsqueeze(1)

    def _pyro_sample(self, msg):
        fn, name = msg["fn"], msg["name"]
        if "_particles" in name or isinstance(fn, dist.Delta) or name == "data":
            return
        eps = self.eps[..., K:].transpose(1, 2) if name == "z" else self.eps[..., :K]
        if hasattr(fn, "covariance_matrix"):
            step = (torch.linalg.cholesky(fn.covariance_matrix) @ eps.unsqueeze(-1)).squeeze(-1)
        else:
            step = fn.stddev * eps
        msg["value"] = value = fn.mean + step
        msg["fn"], msg["done"] = fn.expand(value.shape[: value.dim() - fn.event_dim]), True


def trained(model, guide, dims: int) -> float:
    """The exact ELBO at its maximum over the guide, by L-BFGS."""
    objective = Trace_ELBO(num_particles=2 * dims, vectorize_particles=True, max_plate_nesting=1)
    placed, parameters = _Cubature(dims)(guide), list(guide.parameters())
    settings = dict(max_iter=800, tolerance_grad=1e-9, tolerance_change=1e-13, history_size=40)
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **settings)

    def closure():
        optimizer.zero_grad()
        loss = objective.differentiable_loss(model, placed, Y, FEATURES)
        loss.backward()
        return loss

    optimizer.step(closure)
    return -objective.loss(model, placed, Y, FEATURES)


GAUSSIAN = {
    "full": (AutoMultivariateNormal, [list(range(K))]),
    "low_rank": (partial(AutoLowRankMultivariateNormal, rank=1), [list(range(K))]),
    "normal": (AutoNormal, [[j] for j in range(K)]),
    "diagonal": (AutoDiagonalNormal, [[j] for j in range(K)]),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family, blocks", GAUSSIAN.values(), ids=list(GAUSSIAN))
def test_without_local_sites_the_gap_is_that_of_the_family_of_the_weights(family, blocks):
    """None with a full covariance, which two dimensions have with one factor."""
    elbo = trained(regression, WithGlobals(None, regression, family, Y, FEATURES), K)
    gap = REGRESSION.block_gap(blocks)
    assert (gap.abs() < 1e-12) == (len(blocks) == 1)
    assert_close(REGRESSION.log_px(Y) - elbo, gap, 1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family, blocks", GAUSSIAN.values(), ids=list(GAUSSIAN))
def test_with_local_sites_the_gap_is_that_of_independent_blocks(family, blocks):
    """q(w) prod_n q(z_n | y_n): the best ELBO of a mean field over these blocks, and no amortisation gap."""
    local = Diagonal(local_sites(latents(random_effects, Y, FEATURES)), Readout())
    elbo = trained(random_effects, WithGlobals(local, random_effects, family, Y, FEATURES), K + N)
    gap = RANDOM_EFFECTS.block_gap(blocks + [[K + n] for n in range(N)])
    assert gap > 0.1
    assert_close(RANDOM_EFFECTS.log_px(Y) - elbo, gap, 1e-6)


@pytest.mark.usefixtures("float64")
def test_a_point_of_the_weights_is_the_posterior_mean():
    guide = WithGlobals(None, regression, AutoDelta, Y, FEATURES)
    elbo = trained(regression, guide, K)
    best = REGRESSION.posterior(Y).loc
    assert_close(guide.shared.w, best, 1e-6)
    assert_close(torch.tensor(elbo), REGRESSION.log_joint(Y, best), 1e-8)


@pytest.mark.filterwarnings("ignore:bias was not registered")
@EVERY
def test_all_parameters_exist_and_nothing_else_is_touched(family):
    model = Offset()
    model.net.bias.requires_grad_(False)
    local = Diagonal(local_sites(latents(model, X)), MLP(4, 5))
    before, random = {n: p.clone() for n, p in model.named_parameters()}, torch.get_rng_state()
    guide = WithGlobals(local, model, family, X)
    assert torch.equal(torch.get_rng_state(), random) and not list(pyro.get_param_store().keys())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not model.net.bias.requires_grad and model.net.weight.requires_grad
    made = {n: id(p) for n, p in guide.named_parameters()}
    for _ in range(2):
        values = guide(X)
    assert {n: id(p) for n, p in guide.named_parameters()} == made
    assert {id(p) for p in guide.parameters()}.isdisjoint({id(p) for p in model.parameters()})
    assert {n.split(".")[0] for n in guide.state_dict()} == {"local", "shared"}
    assert {n: tuple(v.shape) for n, v in values.items()} == {"w": (4,), "s": (), "z": (6, 2)}


@EVERY
def test_a_saved_guide_is_loaded_into_a_fresh_one(family):
    model, guide = offset(family)
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine="eager")
    for _ in range(3):
        svi.step(X)
    again = WithGlobals(Diagonal(local_sites(latents(model, X)), MLP(4, 5)), model, family, X)
    again.load_state_dict(guide.state_dict())
    losses = []
    for one in (guide, again):
        pyro.set_rng_seed(2)
        losses.append(Trace_ELBO().loss(model, one, X))
        pyro.clear_param_store()
    assert losses[0] == losses[1]


@EVERY
def test_every_parameter_learns_in_stock_svi_and_in_ours(family):
    model, guide = offset(family)
    parameters = {**dict(model.named_parameters(prefix="p")), **dict(guide.named_parameters(prefix="q"))}
    before = {n: p.detach().clone() for n, p in parameters.items()}
    pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(X)
    assert not [n for n, p in parameters.items() if torch.equal(p, before[n])]
    stored = {id(p) for _, p in pyro.get_param_store().named_parameters()}
    assert stored == {id(p) for p in parameters.values()}
    pyro.clear_param_store()
    before = {n: p.detach().clone() for n, p in parameters.items()}
    SVI(model, guide, Adam, ELBO(3), engine="eager").step(X)
    assert not [n for n, p in parameters.items() if torch.equal(p, before[n])]
    assert not list(pyro.get_param_store().keys())


@EVERY
def test_a_pair_passes_the_check(family):
    pair = offset(family)
    for objective in (Trace_ELBO(), ELBO(), ELBO(3), IWAE(3)):
        assert set(check(*pair, objective, X).values()) == {"Monte Carlo"}


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.slow, id=n) for n, f in FAMILIES.items()])
def test_captured_steps_are_the_eager_ones(family):
    outcomes = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(4)
        model, guide = offset(family, full=60)
        svi = SVI(model, guide, Adam, ELBO(2), engine=engine)
        losses = [svi.step(X) for _ in range(5)]
        state = [torch.get_rng_state(), *model.state_dict().values(), *guide.state_dict().values()]
        outcomes.append((losses, [value.clone() for value in state]))
        assert svi.running == engine
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(outcomes[0][1], outcomes[1][1], strict=True))


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal], ids=["normal", "full"])
def test_a_kl_of_a_constrained_global_site_counts_the_map_to_its_support(family):
    """With Pyro's own Delta, TraceMeanField_ELBO leaves out log |ds/du|; here both objectives agree draw by draw."""

    def model(x):
        s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(4), s.unsqueeze(-1)).to_event(1), obs=x)

    def losses(guide):
        found = []
        for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
            pyro.set_rng_seed(7)
            found.append(objective.loss(model, guide, X))
        return found

    guide, stock = WithGlobals(None, model, family, X), family(model)
    stock(X)
    ours, theirs = losses(guide), losses(stock)
    assert ours[0] == pytest.approx(ours[1], abs=1e-4) and ours[0] == pytest.approx(theirs[0], abs=1e-4)
    assert abs(theirs[0] - theirs[1]) > 1e-3


class Subsampled(PyroModule):
    """random_effects of N data, of which `rows` are seen."""

    def __init__(self):
        super().__init__("model")

    def forward(self, y, f, rows):
        w = pyro.sample("w", dist.Normal(torch.zeros(K), 1.0).to_event(1))
        with pyro.plate("data", N, subsample=rows):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("y", dist.Normal((w * f).sum(-1) + z[..., 0], NOISE.sqrt()), obs=y)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("objective", [Trace_ELBO(), ELBO()], ids=["stock", "ours"])
def test_the_mean_over_all_minibatches_is_the_loss_on_all_data(size, objective):
    """For one draw of w and of every z, and that loss is the one computed by hand."""
    model, all_rows = Subsampled(), torch.arange(N)

    class Encoder(nn.Module):
        out_features = 3

        def __init__(self):
            super().__init__()
            self.net = Readout()

        def forward(self, y, f, rows):
            return self.net(y, f)

    first = (Y[:2], FEATURES[:2], all_rows[:2])
    local = Diagonal(local_sites(latents(model, *first)), Encoder())
    guide = WithGlobals(local, model, AutoNormal, *first)
    w, z = torch.randn(K), torch.randn(N, 1)

    def loss(rows):
        fixed = poutine.condition(guide, data={})  # the same program, drawn at the values below

        class At(Messenger):
            def _pyro_sample(self, msg):
                if msg["name"] in ("w_unconstrained", "z"):
                    msg["value"], msg["done"] = (w if msg["name"][0] == "w" else z[rows]), True

        return objective.loss(model, At()(fixed), Y[rows], FEATURES[rows], rows)

    whole = loss(all_rows)
    parts = [loss(torch.tensor(rows)) for rows in combinations(range(N), size)]
    assert max(parts) - min(parts) > 0.1
    assert_close(sum(parts) / len(parts), whole, 1e-9)

    standard = dist.Normal(0.0, 1.0)
    q_w = dist.Normal(guide.shared.locs.w, guide.shared.scales.w)
    with poutine.trace() as traced:
        local(Y, FEATURES, all_rows)
    log_q = q_w.log_prob(w).sum() + traced.trace.nodes["z"]["fn"].log_prob(z).sum()
    error = dist.Normal(FEATURES @ w + z[:, 0], NOISE.sqrt()).log_prob(Y).sum()
    assert_close(-whole, error + standard.log_prob(w).sum() + standard.log_prob(z).sum() - log_q, 1e-9)


def test_bounds_without_an_unbiased_subsample_are_refused():
    model, guide = offset(full=60)
    with pytest.raises(ValueError, match="plate 'data' around site 'z' is subsampled .* is not around every site"):
        IWAE(3).loss(model, guide, X)
    with pytest.raises(ValueError, match="plate 'data' around site 'z' is subsampled .* is not around every site"):
        check(model, guide, IWAE(3), X)


@pytest.mark.parametrize("full, said", [(None, "1 weights for 6 data|that all data share"), (60, "is subsampled")])
def test_an_evaluation_per_datum_is_refused(full, said):
    model, guide = offset(full=full)
    with pytest.raises(ValueError, match=said):
        evaluate(model, guide, X, num_particles=10)


def test_at_given_weights_the_local_part_is_evaluated_alone():
    """log p(y_n | w) in closed form; 4 standard errors."""
    x = Y.float()[:, None] + torch.linspace(-1, 1, 4)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(w + z, 0.8).to_event(1), obs=x)

    guide = WithGlobals(Diagonal(local_sites(latents(model, x)), MLP(4, 5)), model, AutoNormal, x)
    w = guide.shared.median(x)["w"]
    given = poutine.block(poutine.condition(model, data={"w": w}), hide=["w"])
    found = evaluate(given, guide.local, x, num_particles=3000)
    expected = dist.Normal(w, (1 + 0.8**2) ** 0.5).to_event(1).log_prob(x).mean()
    assert abs(found.log_px - expected) < 4 * found.log_px_se < 0.2


def test_it_fits_over_batches():
    model, guide = offset(full=12)
    batches = [(X,), (X.flip(0),)]
    bounds = [epoch.train for epoch in fit(model, guide, Trace_ELBO(), batches, epochs=15, seed=1, progress=False)]
    assert sum(bounds[-3:]) > sum(bounds[:3]) + 1


class Linear(PyroModule):
    """A linear layer with random weights, which may have particles in front."""

    def __init__(self, n: int, m: int):
        super().__init__()
        self.weight = PyroSample(dist.Normal(torch.zeros(m, n), 1.0).to_event(2))
        self.bias = PyroSample(dist.Normal(torch.zeros(m), 1.0).to_event(1))

    def forward(self, z):
        return torch.einsum("...oi,...i->...o", self.weight, z) + self.bias


class Bayesian(PyroModule):
    """A VAE whose decoder has random weights."""

    def __init__(self, decoder: nn.Module, name: str = "model"):
        super().__init__(name)
        self.decoder = decoder

    def forward(self, x):
        plate = pyro.plate("data", len(x))
        with plate:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mean = self.decoder(z)  # outside the plate: one decoder for all data
        with plate:
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


def converted() -> nn.Module:
    """An MLP of torch layers, made random as Pyro's documentation does it."""
    net = MLP(2, 5, 4)
    to_pyro_module_(net)
    for layer in net.layers:
        for name, value in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, PyroSample(dist.Normal(torch.zeros_like(value), 1.0).to_event(value.dim())))
    return net


def own_layers() -> nn.Module:
    return PyroModule[nn.Sequential](Linear(2, 5), PyroModule[nn.Tanh](), Linear(5, 4))


def bayesian(decoder, family=AutoNormal, name="model"):
    model = Bayesian(decoder, name)
    return model, WithGlobals(Diagonal(local_sites(latents(model, X)), MLP(4, 5)), model, family, X)


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal], ids=["normal", "full"])
@pytest.mark.parametrize("make, particles", [(converted, 1), (own_layers, 1), (own_layers, 3)])
def test_a_decoder_of_random_weights_learns(family, make, particles):
    model, guide = bayesian(make(), family)
    objective = Trace_ELBO() if particles == 1 else ELBO(particles)
    assert len(check(model, guide, objective, X)) == 5
    before = {n: p.detach().clone() for n, p in guide.named_parameters()}
    svi = SVI(model, guide, Adam, objective, engine="eager")
    losses = [svi.step(X) for _ in range(20)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert not [n for n, p in guide.named_parameters() if torch.equal(p, before[n])]


def test_layers_that_particles_do_not_fit_draw_them_one_after_the_other():
    """The mean over particles of the same noise, with weights of their own."""
    model, guide = bayesian(converted())
    assert len(check(model, guide, ELBO(3), X)) == 5
    torch.manual_seed(0)
    alone = [Trace_ELBO().loss(model, guide, X) for _ in range(3)]
    torch.manual_seed(0)
    assert ELBO(3).loss(model, guide, X) == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_particles_in_parallel_are_the_mean_over_particles():
    """Each with weights of its own: the same draws one after another give the same losses."""
    model, guide = bayesian(own_layers())
    guide_trace = poutine.trace(pyro.plate("particles", 3, dim=-2)(guide)).get_trace(X)
    model_trace = poutine.trace(poutine.replay(pyro.plate("particles", 3, dim=-2)(model), guide_trace)).get_trace(X)
    together = model_trace.nodes["x"]["fn"].log_prob(X).sum(-1)
    drawn = {n: s["value"] for n, s in guide_trace.iter_stochastic_nodes() if n in model_trace.nodes}
    assert drawn["model.decoder.0.weight"].shape == (3, 1, 5, 2)
    for k in range(3):
        data = {n: v[k] if n == "z" else v[k, 0] for n, v in drawn.items() if n == "z" or n.startswith("model")}
        alone = poutine.trace(poutine.condition(model, data=data)).get_trace(X)
        assert_close(alone.nodes["x"]["fn"].log_prob(X).sum(), together[k], 1e-4)


def test_a_point_of_random_weights_needs_a_root_of_another_name():
    with pytest.raises(ValueError, match="AutoDelta has an attribute 'model' of its own .* another name"):
        bayesian(own_layers(), AutoDelta)
    _, guide = bayesian(own_layers(), AutoDelta, name="p")
    assert sum(name.startswith("shared.p.decoder") for name, _ in guide.named_parameters()) == 4


def layered(x):
    w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(0.5 * z2, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(w, 1.0 + z1[..., :1].square()).to_event(1), obs=x)


LOCAL = {
    "iaf": lambda sites: IAF(sites, MLP(4, 5), width=5),
    "bottom_up": lambda sites: Diagonal(sites, MLP(4, 5), order="bottom_up"),
    "joint": lambda sites: Joint(sites, MLP(4, 5), DiagonalNormal),
    "local": lambda sites: Local(sites, len(X)),
    "ladder": lambda sites: Ladder(sites, MLP(4, 5), layered),
}


@pytest.mark.parametrize("make", LOCAL.values(), ids=list(LOCAL))
def test_any_guide_serves_the_local_sites(make):
    sites = local_sites(latents(layered, X))
    assert list(sites) == ["z2", "z1"]
    guide = WithGlobals(make(sites), layered, AutoNormal, X)
    assert {"w", "z1", "z2"} <= set(check(layered, guide, ELBO(2), X))
    before = {n: p.detach().clone() for n, p in guide.named_parameters()}
    SVI(layered, guide, Adam, ELBO(2), engine="eager").step(X)
    assert not [n for n, p in guide.named_parameters() if torch.equal(p, before[n])]


def test_sites_of_another_plate_are_global():
    """One mean per group: three variational parameters, however the data are batched."""

    def model(x, group):
        with pyro.plate("groups", 3):
            mean = pyro.sample("mean", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean[..., group, :], 1.0).to_event(1), obs=x)

    group = torch.tensor([0, 1, 2, 2, 1, 0])
    guide = WithGlobals(None, model, AutoNormal, X, group)
    assert guide.shared.locs.mean.shape == (3, 4) and guide(X[:2], group[:2])["mean"].shape == (3, 4)


def test_a_copy_runs_on_its_own():
    model, guide = offset()
    other = deepcopy(guide)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    losses = []
    for one in (guide, guide, other):
        pyro.set_rng_seed(1)
        losses.append(ELBO().loss(model, one, X))
        pyro.clear_param_store()
    assert losses[0] == losses[1] != losses[2]


def test_what_cannot_be_put_together_is_refused():
    model = Offset()
    sites = latents(model, X)
    local = Diagonal(local_sites(sites), MLP(4, 5))

    def flat(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"model has no global site: \['z'\] lie in the plate 'data'"):
        WithGlobals(local, flat, AutoNormal, X)
    with pytest.raises(ValueError, match=r"local is None, but the model has the local sites \['z'\]"):
        WithGlobals(None, model, AutoNormal, X)
    with pytest.raises(TypeError, match="local must be a guide of the local sites or None, got dict"):
        WithGlobals(local_sites(sites), model, AutoNormal, X)
    with pytest.raises(TypeError, match="family must make one of Pyro's AutoGuides .* got Diagonal"):
        WithGlobals(local, model, lambda program: local, X)

    def classes(x):
        pyro.sample("k", dist.Categorical(torch.ones(3)))
        flat(x)

    with pytest.raises(ValueError, match="cannot handle discrete sample site 'k'"):
        WithGlobals(local, classes, AutoNormal, X)
    with pytest.raises(ValueError, match="latent site 'w' is global"):
        Diagonal(sites, MLP(4, 5))


@pytest.mark.slow
@pytest.mark.parametrize("full, count", [(None, 6), (12, 12), (60, 60)])
def test_fit_reports_nats_per_datum(full, count):
    model, guide = offset(full=full)
    still = partial(torch.optim.SGD, lr=0.0)
    (epoch,) = fit(model, guide, ELBO(), [(X,)], epochs=1, optimizer=still, seed=1, progress=False, engine="eager")
    losses = [ELBO().loss(model, guide, X) for _ in range(60)]
    assert abs(epoch.train + sum(losses) / len(losses) / count) < 6 * torch.tensor(losses).std() / count


def test_our_bound_on_a_subsample_passes_the_check():
    assert set(check(*offset(full=60), ELBO(3), X).values()) == {"Monte Carlo"}


@pytest.mark.parametrize("chunk", [None, 1])
def test_no_datum_alone_has_a_weight(chunk):
    model, guide = offset()
    with pytest.raises(ValueError, match=r"latent sites \['w', 's'\] that all data share"):
        evaluate(model, guide, [(x[None],) for x in X], num_particles=10, chunk=chunk)
