"""AIR: the number of objects, densities by hand, log p(x) by a sum over numbers, and what absent objects cost."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.forcing import Lattice, gradient
from pyro import poutine
from torch import nn

from dlvm.experiments.data import Loader, load
from dlvm.experiments.data.named.scattered import scattered
from dlvm.experiments.setups.air import AIRSetup
from dlvm.guides import Attend, Diagonal, latents
from dlvm.inference import ELBO, IWAE, NVIL, SVI, VIMCO, ScoreFunction, check, evaluate
from dlvm.models import AIR
from dlvm.nets import MLP
from dlvm.nets.windows.placing import placed

SIDES = (6, 5)


def build(steps: int = 2, **settings) -> tuple[AIR, Attend, torch.Tensor]:
    """A pair whose weights are all far from where they start, and images."""
    pyro.set_rng_seed(2)
    x = torch.rand(4, 30).double()
    model = AIR(MLP(2, 5, 9), SIDES, what_dim=2, steps=steps, **settings).double()
    guide = Attend(latents(model, x), model, SIDES, size=3, hidden=6).double()
    with torch.no_grad():
        for parameter in (*model.parameters(), *guide.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, guide, x


def traced(model, guide, x):
    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    q.compute_log_prob()
    p.compute_log_prob()
    return q.nodes, p.nodes


def test_the_number_of_objects_is_geometric_and_cut():
    model, _, x = build(steps=3, presence=0.3)
    chance = dict.fromkeys(range(4), 0.0)
    for values in itertools.product((0.0, 1.0), repeat=3):
        data = {f"present_{t}": torch.full((4,), v).double() for t, v in enumerate(values, 1)}
        nodes = poutine.trace(poutine.condition(model, data)).get_trace(x).nodes
        logs = [nodes[name]["fn"].log_prob(nodes[name]["value"])[0] for name in data]
        chance[int(sum(values))] += float(sum(logs).exp())
        if list(values) != sorted(values, reverse=True):
            assert float(sum(logs)) < -45  # one behind an absent one
    assert [chance[k] for k in range(4)] == pytest.approx([0.7, 0.3 * 0.7, 0.09 * 0.7, 0.027], abs=1e-12)


def test_the_density_is_that_of_a_loop_by_hand():
    model, guide, x = build()
    _, p = traced(model, guide, x)
    for n in range(len(x)):
        log_p, canvas = torch.zeros(()).double(), torch.zeros(30).double()
        for t in (1, 2):
            there, where, what = (p[f"{kind}_{t}"]["value"][n] for kind in ("present", "where", "what"))
            log_p = log_p + dist.Normal(model.where_loc, model.where_scale).log_prob(where).sum()
            log_p = log_p + dist.Normal(0.0, 1.0).log_prob(what).sum() + p[f"present_{t}"]["log_prob"][n]
            canvas = canvas + there * placed(model.glyph(what).sigmoid().reshape(3, 3), where, SIDES).flatten()
        log_p = log_p + dist.Normal(canvas, 0.3).log_prob(x[n]).sum()
        names = [f"{kind}_{t}" for t in (1, 2) for kind in ("present", "where", "what")]
        assert_close(sum(p[name]["log_prob"][n] for name in (*names, "x")), log_p, 1e-9)


def test_absent_objects_cost_nothing_and_change_nothing():
    model, guide, x = build(steps=3)
    q, p = traced(model, guide, x.repeat(50, 1))
    there = torch.stack([q[f"present_{t}"]["value"] for t in (1, 2, 3)])
    assert (there[1:] <= there[:-1]).all() and 0.1 < there.mean() < 0.95
    for t in (1, 2, 3):
        absent = there[t - 1] == 0
        for kind in ("where", "what"):
            apart = p[f"{kind}_{t}"]["log_prob"] - q[f"{kind}_{t}"]["log_prob"]
            assert_close(apart[absent], torch.zeros(int(absent.sum())).double(), 1e-12)
            assert apart[~absent].abs().min() > 1e-6
    moved = {f"what_{t}": torch.where(there[t - 1, :, None] == 1, q[f"what_{t}"]["value"], 7.0) for t in (1, 2, 3)}
    values = {name: q[name]["value"] for name in guide.latents} | moved
    again = poutine.trace(poutine.condition(model, values)).get_trace(x.repeat(50, 1)).nodes["x"]["fn"].mean
    assert_close(again, p["x"]["fn"].mean, 1e-12)


@pytest.mark.slow
def test_log_px_is_a_sum_over_numbers_of_objects_where_each_can_look_but_one_way():
    model, guide, x = build(presence=0.4, scale=0.5)
    with torch.no_grad():
        for parameter in model.glyph.parameters():
            parameter.zero_()
    one = model.drawn(model.where_loc, torch.zeros(2).double())
    logs = [
        math.log(share) + dist.Normal(k * one, 0.5).log_prob(x).sum(-1)
        for k, share in enumerate((0.6, 0.4 * 0.6, 0.16))
    ]
    with torch.no_grad():  # a guide of that place, to which every number of objects is likely enough to be drawn
        guide.presence.weight.zero_()
        guide.presence.bias.fill_(0.3)
        guide.where.head.weight.zero_()
        guide.where.head.bias.copy_(torch.cat([model.where_loc, torch.full((3,), -11.5).double()]))
        model.where_scale.copy_(guide.where(torch.zeros(6).double()).stddev)  # 3e-4, as narrow as the family allows
        guide.what.head.weight.zero_()
        guide.what.head.bias.zero_()
    found = evaluate(model, guide, x, num_particles=1000, engine="eager")
    assert found.log_px == pytest.approx(torch.stack(logs).logsumexp(0).mean().item(), abs=5 * found.log_px_se + 0.005)


class AtOneNoise(Lattice):
    """All numbers of objects, with the noise of places and contents as it was drawn once for each particle."""

    def outcomes(self, num_particles):
        values, _, log_mass = Lattice(self.model, self.guide, self.x, self.values).outcomes(num_particles)
        particles, generator = () if num_particles == 1 else (num_particles,), torch.Generator().manual_seed(7)
        noise = {
            name: torch.randn(*particles, 1, width, generator=generator)
            .double()
            .expand(*particles, len(log_mass), width)
            for name, width in self.noise.items()
        }
        return values, noise, log_mass


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(ELBO(1, ScoreFunction()), id="score", marks=pytest.mark.slow),
        pytest.param(ELBO(2, ScoreFunction(NVIL(nn.Linear(30, 1).double()))), id="nvil", marks=pytest.mark.slow),
        pytest.param(IWAE(2, ScoreFunction(NVIL(nn.Linear(30, 1).double()))), id="nvil of two", marks=pytest.mark.slow),
        pytest.param(IWAE(2, VIMCO()), id="vimco"),
    ],
)
def test_the_mean_gradient_over_numbers_of_objects_is_that_of_the_bound(objective):
    """At fixed noise: the second presence hangs on where and what the first object is, through their derivatives."""
    model, guide, x = build(scale=2.0)
    bits, noise = torch.tensor([0.0, 1.0]).double(), {"where_1": 3, "what_1": 2, "where_2": 3, "what_2": 2}
    lattice = AtOneNoise(model, guide, x[:1], {"present_1": bits, "present_2": bits}, noise)
    parameters = [*model.parameters(), *guide.parameters()]
    expected = gradient(lattice.expected(objective.bound, objective.num_particles), parameters)
    assert all(part.abs().max() > 1e-3 for part in expected.split([p.numel() for p in parameters]))
    assert_close(lattice.expected_gradient(objective, parameters), expected, 1e-9)


def test_any_guide_fits():
    model, guide, x = build(steps=1)
    for each in (guide, Diagonal(latents(model, x), MLP(30, 4)).double()):
        assert set(check(model, each, ELBO(2, ScoreFunction()), x)) == {"present_1", "where_1", "what_1"}


@pytest.mark.slow
def test_captured_steps_are_those_of_pyro():
    model, guide, x = build()
    for pair in ((model, guide), (model, Diagonal(latents(model, x), MLP(30, 4)).double())):
        told = {}
        for engine in ("eager", "captured"):
            state = [{k: v.clone() for k, v in part.state_dict().items()} for part in pair]
            svi = SVI(*pair, lambda p: torch.optim.SGD(p, 1e-5), IWAE(3, VIMCO()), engine=engine)
            pyro.set_rng_seed(3)
            told[engine] = [svi.step(x) for _ in range(5)]
            for part, saved in zip(pair, state, strict=True):
                part.load_state_dict(saved)
        assert told["eager"] == told["captured"]


def test_what_the_guide_cannot_look_at_is_refused():
    model, guide, x = build()
    with pytest.raises(ValueError, match="latents must be present_1, where_1, what_1, present_2"):
        Attend({"z": latents(model, x)["what_1"]}, model, SIDES, 3)
    with pytest.raises(ValueError, match=r"x must be flat images of \(6, 5\) pixels"):
        guide(x[:, :20])
    with pytest.raises(ValueError, match="glyph must have a square of pixels, got 8"):
        AIR(MLP(2, 8), SIDES, what_dim=2)


def test_digits_that_are_scattered_do_not_overlap_and_are_as_many_as_the_label():
    pictures = torch.ones(3, 4, 4)
    x, y = scattered(pictures, 300, 12, 5)
    assert x.max() == 1 and torch.equal(x.sum(-1), 16.0 * y)
    assert torch.equal(scattered(pictures, 300, 12, 5)[0], x)
    assert (y.bincount(minlength=3) > 70).all()


def test_the_measure_is_the_share_of_right_numbers_where_labels_are_numbers():
    x, y = scattered(torch.ones(3, 4, 4), 60, 12, 5)
    setup = AIRSetup(steps=2, what_dim=2, picture=3, hidden=(4,), width=8)
    data = Loader(x, labels=y, image_shape=(12, 12))
    guide = setup.guide(setup.model(data), data)
    for bias, number in ((-60.0, 0), (60.0, 2)):
        guide.presence.bias.data.fill_(bias)
        found = setup.measures(guide.model, guide, data)
        assert found["count accuracy"] == pytest.approx((y == number).double().mean().item())
        assert found["by chance"] == pytest.approx(y.bincount().max().item() / 60)
    for labels, names in (
        (y, ("cat", "dog", "none")),
        (y + 1, None),
        (y - 1, None),
    ):  # classes, and one too many or few
        assert (
            setup.measures(guide.model, guide, Loader(x, labels=labels, image_shape=(12, 12), label_names=names)) == {}
        )
    named = Loader(x, labels=y, image_shape=(12, 12), label_names=("0", "1", "2"))
    assert setup.measures(guide.model, guide, named) == found


@pytest.mark.slow
def test_multi_digits_are_always_the_same():
    one, other = load("multi_digits"), load("multi_digits", seed=4)
    assert torch.equal(one.train.x, other.train.x) and one.test["y"].max() == 2 and one.train.image_shape == (24, 24)
