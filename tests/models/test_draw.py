"""DRAW: both densities by hand, a guide that sees the model's own canvas, and a film of it."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from torch.nn import functional as F

from dlvm.distributions import Bernoulli
from dlvm.experiments.setups.draw import canvases
from dlvm.guides import Diagonal, Feedback, latents
from dlvm.inference import ELBO, SVI, evaluate
from dlvm.models import DRAW, VAE
from dlvm.nets import MLP, Read, ReadAll, Write

SITES = ("z_1", "z_2", "z_3")


def build(attention: bool = True) -> tuple[DRAW, Feedback, torch.Tensor]:
    """A pair whose weights are all far from where they start, and bits."""
    pyro.set_rng_seed(1)
    x = (torch.rand(4, 16) < 0.5).double()
    write = Write(6, (4, 4), size=3) if attention else MLP(6, 16)
    model = DRAW(Bernoulli(MLP(16)), write, z_dim=2, steps=3, width=6).double()
    read = Read(6, (4, 4), size=2) if attention else ReadAll(16)
    guide = Feedback(latents(model, x), read, model, state=6, width=5).double()
    with torch.no_grad():
        for parameter in (*model.parameters(), *guide.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, guide, x


def cell(net, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A step of memory from the weights alone."""
    i, f, o, g = (F.linear(x, net.input.weight, net.input.bias) + F.linear(h, net.state.weight, net.state.bias)).chunk(
        4, -1
    )
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def loop(model: DRAW, z: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The states h_0, h_1, ... and the canvases c_0, c_1, ... of one datum."""
    (h, c), canvas = model.cell.first, model.start
    states, seen = [h], [canvas]
    for each in z:
        h, c = cell(model.cell, each, h, c)
        canvas = canvas + model.write(h)
        states.append(h)
        seen.append(canvas)
    return states, seen


@pytest.mark.parametrize("attention", [True, False])
def test_both_densities_are_those_of_a_loop_by_hand(attention: bool):
    model, guide, x = build(attention)
    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    p.compute_log_prob()
    q.compute_log_prob()
    for n in range(len(x)):
        z = [q.nodes[name]["value"][n] for name in SITES]
        states, seen = loop(model, z)
        log_p = -F.binary_cross_entropy_with_logits(seen[-1], x[n], reduction="sum")
        log_p = log_p + sum(dist.Normal(0.0, 1.0).log_prob(each).sum() for each in z)
        assert_close(sum(p.nodes[name]["log_prob"][n] for name in (*SITES, "x")), log_p, 1e-10)
        e, memory = guide.cell.first
        for t, name in enumerate(SITES):
            r = guide.encoder(x[n], x[n] - seen[t].sigmoid(), states[t])
            e, memory = cell(guide.cell, torch.cat([r, states[t]]), e, memory)
            found = q.nodes[name]["fn"].base_dist
            expected = guide.posterior(e).base_dist
            assert_close(found.loc[n], expected.loc, 1e-10)
            assert_close(found.scale[n], expected.scale, 1e-10)
    assert {id(each) for each in guide.parameters()}.isdisjoint(map(id, model.parameters()))


def test_the_bound_is_below_importance_sampling_and_every_step_has_its_kl():
    model, guide, x = build()
    result = evaluate(model, guide, x, num_particles=200, engine="eager")
    assert result.elbo < result.log_px - 3 * result.log_px_se and result.units == 6
    particles = ELBO(3, analytic_kl=True)
    assert torch.isfinite(particles.differentiable_loss(model, guide, x))


def test_the_film_starts_from_one_canvas_and_ends_with_the_mean_of_the_data():
    model, guide, x = build()
    film = canvases(model, guide, x, seed=3)
    assert film.shape == (4, 4, 16)
    assert_close(film[:, 0], model.start.sigmoid().expand(4, 16), 1e-12)
    with pyro.poutine.trace() as traced:
        pyro.set_rng_seed(3)
        guide(x)
    _, seen = loop(model, [traced.trace.nodes[name]["value"] for name in SITES])
    assert_close(film[:, 1:], torch.stack(seen[1:], 1).sigmoid(), 1e-12)
    assert not torch.equal(canvases(model, None, x)[0, -1], canvases(model, None, x)[1, -1])


@pytest.mark.slow
@pytest.mark.parametrize("attention", [True, False])
def test_captured_steps_are_those_of_pyro(attention: bool):
    left = []
    for engine in ("eager", "captured"):
        model, guide, x = build(attention)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), ELBO(2, analytic_kl=True), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x) for _ in range(3)]
        left.append((losses, [p.detach().clone() for p in (*model.parameters(), *guide.parameters())], svi.running))
    assert left[0][2] == "eager" and left[1][2] == "captured"
    assert left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(left[0][1], left[1][1], strict=True))


def test_a_guide_of_any_family_fits_and_a_model_that_says_nothing_is_told_what_to_write():
    model, _, x = build()
    Diagonal(latents(model, x), MLP(16, 4)).double()(x)
    plain = VAE(2, Bernoulli(MLP(2, 16)))
    guide = Feedback(latents(plain, x.float()), ReadAll(16), plain, state=6)
    with pytest.raises(ValueError, match=r"latent site 'z' needs a state of width 6 and a mean in the model, got none"):
        guide(x.float())
    with pytest.raises(ValueError, match="the model's mean at 'z_1' has shape"):
        build()[1](x.unflatten(1, (4, 4)))
    with pytest.raises(ValueError, match="first argument is None"):
        build()[1](None)
    both = (
        latents(model, x)
        | latents(plain, x.float())
        | {"w": latents(plain, x.float())["z"]._replace(shape=torch.Size([3]))}
    )
    with pytest.raises(ValueError, match="different kinds"):
        Feedback(both, ReadAll(16), model, state=6)


def test_the_canvas_starts_where_it_is_told():
    start = torch.linspace(-1, 1, 16)
    model = DRAW(Bernoulli(MLP(16)), MLP(6, 16), steps=1, width=6, start=start)
    assert torch.equal(model.start.data, start)
    with pytest.raises(ValueError, match=r"start must be finite and have shape \(16,\), got \(4,\)"):
        DRAW(Bernoulli(MLP(16)), MLP(6, 16), width=6, start=start[:4])
