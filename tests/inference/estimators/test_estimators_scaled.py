"""Scales, masks and plates under every estimator: each datum's gradient counts as often as its bound, and no more."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.forcing import Forced, gradient
from pyro import infer, poutine
from pyro.nn import PyroModule
from torch import nn

import dlvm.inference as room

X = torch.tensor([[0.8, -0.4], [-0.3, 0.6], [1.1, 0.2], [-0.9, -0.5]], dtype=torch.float64)
GROUPS = [lambda k, e=None: room.MIWAE(k // 2, 2, e), lambda k, e=None: room.PIWAE(k // 2, 2, e)]
POWERS = [partial(room.Renyi, -0.5), partial(room.CIWAE, 0.3), partial(room.CUBO, 2)]
THERMODYNAMIC = [lambda k, e=None: room.TVO(k, estimator=e)]
BOUNDS = [room.ELBO, room.IWAE, *GROUPS, *POWERS, *THERMODYNAMIC, room.VRMax]
PATHS = [None, room.STL, room.DReG]
EVERYWHERE = [partial(room.ScoreFunction, everywhere=True), partial(room.VIMCO, everywhere=True)]
BASELINES = [lambda: room.ScoreFunction(room.MovingAverage()), lambda: room.ScoreFunction(room.NVIL(nn.Linear(2, 1)))]
DRAWING = [room.GumbelSoftmax, room.StraightThrough, room.GumbelRao, room.DisARM]
SCORES = [room.ScoreFunction, room.VIMCO, *EVERYWHERE, *BASELINES, *DRAWING]
WAKE = [partial(room.RWS, 4), partial(room.RWS, 4, 0.5), partial(room.WakeSleep, 4)]


def pairs(estimators, bounds=BOUNDS, k=4) -> dict:
    """{name: makes it anew} of all objectives that accept the estimator."""
    found = {}
    for bound in bounds:
        for estimator in estimators:
            make = partial(lambda b, e: b(k, e() if e else None), bound, estimator)
            try:
                found[repr(make())] = make
            except ValueError:
                continue
    return found


CONTINUOUS = pairs(PATHS) | {"RWS(doubly)": partial(room.RWS, 4, doubly=True)}
SCORED = pairs(SCORES, BOUNDS[:4]) | pairs([EVERYWHERE[1], room.ScoreFunction])
DISCRETE = SCORED | {repr(make()): make for make in WAKE}
RANDOM = ("DisARM", "Gumbel", "Through", "sleep=0.5", "WakeSleep")  # what draws more than the forced sites
STILL = [name for name in DISCRETE if not any(part in name for part in RANDOM)]
ALL = {**CONTINUOUS, **DISCRETE}


class Model(PyroModule):
    """y -> z -> x, or z -> x; data in a plate of any size."""

    def __init__(self, classes: bool = True, size: int | None = None):
        super().__init__("model")
        self.classes, self.size, self.seen = classes, size, torch.tensor(True)
        self.upper, self.lower = nn.Linear(1, 1), nn.Linear(1, 2)

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample_size=len(x), dim=-1):
            y = pyro.sample("y", dist.Bernoulli(x.new_tensor(0.3))) if self.classes else x.new_tensor(0.5)
            z = pyro.sample("z", dist.Normal(self.upper(y[..., None]), 1.0).to_event(1))
            with poutine.mask(mask=self.seen):
                pyro.sample("x", dist.Normal(torch.tanh(self.lower(z)), 0.7).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self, classes: bool = True, size: int | None = None):
        super().__init__("guide")
        self.classes, self.size = classes, size
        self.second, self.third = nn.Linear(2, 1), nn.Linear(1, 1)
        if classes:
            self.first = nn.Linear(2, 1)

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample_size=len(x), dim=-1):
            y = x.new_tensor(0.5)
            if self.classes:
                y = pyro.sample("y", dist.Bernoulli(logits=self.first(x).squeeze(-1)))
            pyro.sample("z", dist.Normal(self.second(x) + self.third(y[..., None]), 0.8).to_event(1))


def programs(classes: bool, size: int | None = None):
    pyro.set_rng_seed(1)
    return Model(classes, size), Guide(classes, size)


def outcome(rows=slice(None), k: int = 4) -> Forced:
    """What the rows' particles draw, the same whichever rows are asked for."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(k, len(X), 1, generator=generator, dtype=torch.float64)
    y = (torch.rand(k, len(X), generator=generator) < 0.5).double()
    return Forced({"y": y[:, rows]}, {"z": noise[:, rows]})


def slope(make, classes, wrap=lambda program: program, rows=slice(None), size=None, seen=None) -> torch.Tensor:
    """The gradient of a fresh objective on forced draws, all of it flat."""
    model, guide = programs(classes, size)
    parameters = [*model.parameters(), *guide.parameters()]
    model.seen = model.seen if seen is None else seen[rows]
    pyro.set_rng_seed(3)
    return gradient(make().differentiable_loss(wrap(model), wrap(outcome(rows)(guide)), X[rows]), parameters)


every_pair = pytest.mark.parametrize(
    "make, classes",
    [pytest.param(CONTINUOUS[name], False, id=name) for name in CONTINUOUS]
    + [pytest.param(DISCRETE[name], True, id=name) for name in STILL],
)


@pytest.mark.slow
@every_pair
@pytest.mark.usefixtures("float64")
def test_scales_masks_and_plates_multiply_what_each_datum_adds(make, classes):
    single = torch.stack([slope(make, classes, rows=slice(i, i + 1)) for i in range(4)])
    assert (single.abs().amax(1) > 1e-3).all()
    scale = torch.tensor([0.5, 2.0, 1.0, 3.0])
    assert_close(slope(make, classes), single.sum(0), 1e-9)
    assert_close(slope(make, classes, partial(poutine.scale, scale=2.5)), 2.5 * single.sum(0), 1e-9)
    assert_close(slope(make, classes, partial(poutine.scale, scale=scale)), scale @ single, 1e-9)
    assert_close(slope(make, classes, partial(poutine.scale, scale=scale), size=400), 100 * scale @ single, 1e-7)
    kept = torch.tensor([True, False, True, True])
    assert_close(slope(make, classes, partial(poutine.mask, mask=kept)), single[kept].sum(0), 1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("estimator", [None, room.DReG(), room.STL(), room.VIMCO(everywhere=True)], ids=repr)
def test_two_plates_over_data_are_one(estimator):
    """Rows and columns of one tensor, against the same numbers in a row; a scale per row counts for its columns."""
    loc = torch.tensor(0.3, requires_grad=True)
    x, noise = torch.randn(2, 3), torch.randn(4, 2, 3)
    scale = torch.tensor([[0.5], [2.0]])

    def program(x, q):
        z = pyro.sample("z", dist.Normal(loc * x if q else 0.0, 1.0))
        if not q:
            pyro.sample("x", dist.Normal(loc + z, 1.0), obs=x)

    def nested(x, q):
        with pyro.plate("rows", 20, subsample_size=2, dim=-2), pyro.plate("columns", 3, dim=-1):
            with poutine.scale(scale=scale):
                program(x, q)

    def flat(x, q):
        with pyro.plate("data", 6), poutine.scale(scale=10 * scale.expand(2, 3).reshape(6)):
            program(x, q)

    def found(run, x, noise):
        model, guide = partial(run, q=False), Forced({}, {"z": noise.unsqueeze(-1)})(partial(run, q=True))
        loss = room.IWAE(4, estimator).differentiable_loss(model, guide, x)
        return torch.stack([loss, *torch.autograd.grad(loss, [loc])])

    assert_close(found(nested, x, noise), found(flat, x.reshape(6), noise.reshape(4, 6)), 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [n for n in [*CONTINUOUS, *STILL] if n.startswith(("IWAE", "ELBO"))])
def test_a_mask_around_x_alone_leaves_the_latents_of_its_row(name):
    """Against a model that has the row to itself; the score of its draws is not masked away."""
    make, classes, seen = ALL[name], name in DISCRETE, torch.tensor([True, False, True, True])
    single = [slope(make, classes, rows=slice(i, i + 1), seen=seen) for i in range(4)]
    plain = slope(make, classes, rows=slice(1, 2))
    assert_close(slope(make, classes, seen=seen), sum(single), 1e-9)
    assert (single[1] - plain).abs().max() > 1e-3 and single[1].abs().max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_every_way_to_a_loss_gives_the_same_number(name):
    make, classes = ALL[name], name in DISCRETE
    model, guide = programs(classes)
    losses = []
    for way in ("loss", "differentiable_loss", "loss_and_grads", "__call__"):
        objective = make()
        pyro.set_rng_seed(3)
        x = X.float()
        loss = objective(model, guide)(x) if way == "__call__" else getattr(objective, way)(model, guide, x)
        losses.append(loss.item() if isinstance(loss, torch.Tensor) else loss)
    assert losses == losses[:1] * 4
    for part in (guide,) if name.startswith("CUBO") else (model, guide):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [name if i % 5 == 0 else pytest.param(name, marks=SLOW) for i, name in enumerate(ALL)])
def test_captured_steps_are_the_eager_ones_and_stock_svi_steps_too(name):
    make, classes = ALL[name], name in DISCRETE
    left = []
    for engine in ("eager", "captured", "stock"):
        pyro.clear_param_store()
        model, guide = programs(classes)
        pyro.set_rng_seed(4)
        objective = make()
        if engine == "stock":
            svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01, "foreach": False}), objective)
        else:
            svi = room.SVI(model, guide, partial(torch.optim.Adam, lr=0.01, foreach=False), objective, engine=engine)
        pyro.set_rng_seed(5)
        losses = [svi.step(X.float()) for _ in range(4)]
        parts = {f"{i}{n}": v for i, part in enumerate((model, guide, objective)) for n, v in part.state_dict().items()}
        left.append((losses, parts))
    (eager, a), (captured, b), (stock, c) = left
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert eager == pytest.approx(captured, rel=1e-6) and eager == pytest.approx(stock, rel=1e-4)
    assert all(torch.allclose(a[key], c[key], atol=1e-5) for key in a)
