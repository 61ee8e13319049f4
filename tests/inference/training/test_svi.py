"""Our SVI against Pyro's own: the same losses and the same parameters, step by step, for every pair and objective."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, SVI, Renyi
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

LR = 1e-2
Adam = partial(torch.optim.Adam, lr=LR, foreach=False, fused=False)


class Hierarchy(PyroModule):
    def __init__(self):
        super().__init__("model")
        self.upper, self.lower = nn.Linear(2, 3), nn.Linear(3, 4)

    def forward(self, x=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.upper(z2), 0.7).to_event(1))
            return pyro.sample("x", dist.Normal(self.lower(z1), 0.5).to_event(1), obs=x)


class Positive(PyroModule):
    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(2, 4)

    def forward(self, x=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.full((2,), 2.0), torch.ones(2)).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


MODELS = {
    "vae": lambda: VAE(2, Bernoulli(MLP(2, 6, 4))),
    "ppca": lambda: PPCA(torch.randn(4, 2), torch.zeros(4), 0.5),
    "hierarchy": Hierarchy,
    "gamma": Positive,
}
GUIDES = {"diagonal": Diagonal, "full_rank": FullRank, "iaf": partial(IAF, width=6)}
OBJECTIVES = {
    "elbo": Trace_ELBO,
    "mean_field": TraceMeanField_ELBO,
    "iwae": lambda: IWAE(3),
    "renyi": lambda: Renyi(0.5, 3),
}


# Every model with every objective, and every guide with each of them: a step takes the guide's draws as it finds them.
GRID = [(i, j, model, objective) for i, model in enumerate(MODELS) for j, objective in enumerate(OBJECTIVES)]
PAIRS = [(model, [*GUIDES][(i + j) % 3], objective) for i, j, model, objective in GRID]
# Each of them at least twice: what many steps add to one lies in the optimizer and in the captured step.
SOME = [trio for n, trio in enumerate(PAIRS) if n % 4 in (n // 4, (n // 4 + 1) % 4)]


def pair(model: str, guide: str):
    """Model, guide and data; the same ones at every call."""
    pyro.set_rng_seed(11)
    x = torch.randn(6, 4) if model != "vae" else torch.rand(6, 4).round()
    p = MODELS[model]()
    return p, GUIDES[guide](latents(p, x), MLP(4, 8)), x


def values(*modules: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(left, right) for left, right in zip(a, b, strict=True))


def steps(svi, x: torch.Tensor, count: int) -> list[float]:
    pyro.set_rng_seed(2)
    return [svi.step(x) for _ in range(count)]


def both(model, guide, objective):
    """Our SVI and Pyro's on equal pairs: (svi, parameters as they are now) of each, and the data."""
    (p, q, x), (stock_p, stock_q, _) = pair(model, guide), pair(model, guide)
    ours = SVI(p, q, Adam, OBJECTIVES[objective]())
    stock = pyro.infer.SVI(stock_p, stock_q, pyro.optim.Adam({"lr": LR}), OBJECTIVES[objective]())
    return (ours, partial(values, p, q)), (stock, partial(values, stock_p, stock_q)), x


@pytest.mark.parametrize(("model", "guide", "objective"), PAIRS)
def test_our_first_step_is_that_of_stock_pyro(model, guide, objective, float64):
    """To the last bit in double precision, and every parameter moves."""
    (ours, ours_now), (stock, stock_now), x = both(model, guide, objective)
    start = ours_now()
    assert same(start, stock_now())
    assert steps(ours, x, 1) == steps(stock, x, 1)
    assert same(ours_now(), stock_now())
    assert all((a != b).any() for a, b in zip(start, stock_now(), strict=True))


@pytest.mark.parametrize(("model", "guide", "objective"), SOME)
def test_our_thirty_steps_are_those_of_stock_pyro(model, guide, objective, float64):
    (ours, ours_now), (stock, stock_now), x = both(model, guide, objective)
    assert steps(ours, x, 30) == steps(stock, x, 30)
    assert same(ours_now(), stock_now())


def test_single_precision_agrees_to_rounding():
    (ours, ours_now), (stock, stock_now), x = both("vae", "full_rank", "mean_field")
    assert steps(ours, x, 30) == pytest.approx(steps(stock, x, 30), abs=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours_now(), stock_now(), strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_stock_pyro_trains_every_model(model):
    p, q, x = pair(model, "diagonal")
    svi = pyro.infer.SVI(p, q, pyro.optim.Adam({"lr": LR}), Trace_ELBO(num_particles=50, vectorize_particles=True))
    before = svi.evaluate_loss(x)
    steps(svi, x, 30)
    assert svi.evaluate_loss(x) < before - 1


@pytest.mark.parametrize("objective", [TraceGraph_ELBO, lambda: RenyiELBO(alpha=0.5, num_particles=3)])
def test_other_objectives_of_pyro_take_stock_steps(objective, float64):
    (p, q, x), (stock_p, stock_q, _) = pair("ppca", "diagonal"), pair("ppca", "diagonal")
    stock = pyro.infer.SVI(stock_p, stock_q, pyro.optim.Adam({"lr": LR}), objective())
    assert steps(SVI(p, q, Adam, objective()), x, 5) == steps(stock, x, 5)
    assert same(values(p, q), values(stock_p, stock_q))


def test_an_enumerated_site_takes_stock_steps(float64):
    @pyro.infer.config_enumerate
    def model(x):
        loc = pyro.param("loc", lambda: torch.tensor([-1.0, 1.5]))
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample("x", dist.Normal(loc[y], 1.0), obs=x)

    def guide(x):
        pass

    x = torch.tensor([-2.0, 0.3, 1.0])
    ours = steps(SVI(model, guide, Adam, TraceEnum_ELBO()), x, 5)
    mixture = [0.4 * dist.Normal(-1.0, 1.0).log_prob(x).exp(), 0.6 * dist.Normal(1.5, 1.0).log_prob(x).exp()]
    assert ours[0] == pytest.approx(-sum(mixture).log().sum().item(), abs=1e-12)
    pyro.clear_param_store()
    assert ours == steps(pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": LR}), TraceEnum_ELBO()), x, 5)


def functions():
    """A model and a guide that are plain functions, with pyro.module and (constrained) pyro.param."""
    torch.manual_seed(4)
    net = nn.Linear(2, 4)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", lambda: torch.zeros(len(x), 2))
        scale = pyro.param("scale", lambda: torch.ones(2), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide, net


def test_functions_with_declared_parameters_take_stock_steps(float64):
    x, runs = torch.randn(6, 4), []
    for make, optimizer in ((SVI, Adam), (pyro.infer.SVI, pyro.optim.Adam({"lr": LR}))):
        pyro.clear_param_store()
        model, guide, net = functions()
        losses = steps(make(model, guide, optimizer, Trace_ELBO()), x, 10)
        store = pyro.get_param_store()
        runs.append((losses, [*values(net), store["loc"].detach().clone(), store["scale"].detach().clone()]))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1])
    assert (runs[0][1][-1] > 0).all() and (runs[0][1][-1] != 1).all()


def test_lazily_created_parameters_are_found_and_trained():
    model, _, x = pair("ppca", "diagonal")
    guide = AutoNormal(model)
    assert "locs.z" not in dict(guide.named_parameters())
    svi = SVI(model, guide, Adam, Trace_ELBO())
    svi.prepare(x)
    before = guide.locs.z.detach().clone()
    svi.step(x)
    assert (guide.locs.z != before).all() and (guide.locs.z - before).abs().max() < 1.01 * LR


@pytest.mark.parametrize("clip_norm", [0.5, 1e9, None])
def test_clip_norm_bounds_the_whole_update(clip_norm, float64):
    p, q, x = pair("ppca", "diagonal")
    before = torch.cat([v.flatten() for v in values(p, q)])
    svi = SVI(p, q, partial(torch.optim.SGD, lr=1.0), Trace_ELBO(), clip_norm=clip_norm)
    svi.step(x)
    update = (torch.cat([v.flatten() for v in values(p, q)]) - before).norm().item()
    assert svi.grad_norm > 1
    assert update == pytest.approx(0.5 if clip_norm == 0.5 else svi.grad_norm, rel=1e-10)


def test_clipping_keeps_the_direction(float64):
    updates = []
    for clip_norm in (None, 0.5):
        p, q, x = pair("ppca", "diagonal")
        before = values(p, q)
        steps(SVI(p, q, partial(torch.optim.SGD, lr=1.0), Trace_ELBO(), clip_norm=clip_norm), x, 1)
        updates.append(torch.cat([(b - a).flatten() for a, b in zip(before, values(p, q), strict=True)]))
    assert torch.cosine_similarity(*updates, dim=0).item() == pytest.approx(1, abs=1e-12)


def test_frozen_parameters_do_not_move():
    p, q, x = pair("vae", "diagonal")
    p.requires_grad_(False)
    frozen, free = values(p), values(q)
    svi = SVI(p, q, partial(torch.optim.Adam, lr=LR, weight_decay=0.1), IWAE(3))
    steps(svi, x, 3)
    assert same(values(p), frozen) and not same(values(q), free)
    assert all(parameter.grad is None for parameter in p.parameters())


def test_one_optimizer_holds_every_parameter_once():
    p, q, x = pair("vae", "iaf")
    q.shared = p.likelihood
    svi = SVI(p, q, Adam, Trace_ELBO())
    svi.prepare(x)
    held = [parameter for group in svi.optimizer.param_groups for parameter in group["params"]]
    assert {id(v) for v in held} == {id(v) for v in (*p.parameters(), *q.parameters())}
    assert len(held) == len({id(v) for v in held})


def test_evaluate_loss_leaves_parameters_and_optimizer_untouched():
    p, q, x = pair("vae", "diagonal")
    svi = SVI(p, q, Adam, Trace_ELBO())
    steps(svi, x, 2)
    before, state = values(p, q), [v["exp_avg"].clone() for v in svi.optimizer.state.values()]
    pyro.set_rng_seed(5)
    loss = svi.evaluate_loss(x)
    assert same(values(p, q), before) and same([v["exp_avg"] for v in svi.optimizer.state.values()], state)
    assert all(parameter.grad is None for parameter in (*p.parameters(), *q.parameters()))
    pyro.set_rng_seed(5)
    assert svi.step(x) == pytest.approx(loss, abs=1e-5)
    assert all(parameter.grad is None for parameter in (*p.parameters(), *q.parameters()))


def test_keyword_arguments_reach_both_programs():
    p, _, x = pair("ppca", "diagonal")
    loc = nn.Parameter(torch.zeros(2))

    def guide(x=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", loc), 1.0).to_event(1))

    losses = [steps(SVI(p, guide, partial(torch.optim.SGD, lr=0.0), Trace_ELBO()), x, 1)]
    pyro.set_rng_seed(2)
    losses.append([SVI(p, guide, partial(torch.optim.SGD, lr=0.0), Trace_ELBO()).step(x=x)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            dict(optimizer=pyro.optim.Adam({"lr": 1e-3})),
            TypeError,
            "optimizer must make a torch optimizer.*got PyroOptim",
        ),
        (dict(optimizer=torch.optim.SGD([torch.zeros(1)], lr=1.0)), TypeError, "optimizer must make .*got SGD"),
        (dict(optimizer="adam"), TypeError, r"got str; write partial\(torch.optim.Adam, lr=1e-3\)"),
        (dict(objective=Trace_ELBO), TypeError, r"instance of pyro.infer.ELBO.*write Trace_ELBO\(\)"),
        (dict(objective=IWAE(2).bound), TypeError, "objective must be an instance of pyro.infer.ELBO"),
        (dict(clip_norm=0.0), ValueError, "clip_norm must be positive or None, got 0.0"),
        (dict(clip_norm=float("nan")), ValueError, "clip_norm must be positive or None, got nan"),
    ],
)
def test_wrong_settings_are_refused(settings, error, words):
    p, q, _ = pair("vae", "diagonal")
    with pytest.raises(error, match=words):
        SVI(p, q, **({"optimizer": Adam, "objective": Trace_ELBO()} | settings))


def test_a_pair_without_parameters_is_refused_at_the_first_step():
    p, q, x = pair("vae", "diagonal")
    for part in (p, q):
        part.requires_grad_(False)
    with pytest.raises(ValueError, match="neither model nor guide has a parameter that requires a gradient"):
        SVI(p, q, Adam, Trace_ELBO()).step(x)


def test_a_step_is_skipped_exactly_where_the_gradient_is_above_the_threshold():
    """Parameters and the optimizer's state stay; what is drawn, and so every later loss, is what it would have been."""
    p, q, x = pair("ppca", "diagonal")
    svi = SVI(p, q, partial(torch.optim.SGD, lr=1e-3, momentum=0.9), Trace_ELBO())
    steps(svi, x, 1)
    norm, first = svi.grad_norm, values(p, q)
    for skip_norm, skips in ((norm, False), (norm * (1 - 1e-6), True)):
        p, q, x = pair("ppca", "diagonal")
        before, svi = values(p, q), SVI(p, q, svi._make_optimizer, Trace_ELBO(), skip_norm=skip_norm)
        steps(svi, x, 1)
        assert svi.skipped is skips and svi.grad_norm == norm
        assert same(values(p, q), before if skips else first)
        assert bool(svi.optimizer.state) is not skips
        assert all(parameter.grad is None for parameter in (*p.parameters(), *q.parameters()))
