"""The very deep hierarchy: its joint density by hand, its start, and a posterior that reads the model's own states."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from torch.distributions import kl_divergence
from torch.nn import functional as F

from dlvm.distributions import Bernoulli, GreyLevels, LogisticMixture
from dlvm.guides import Diagonal, TopDownPosterior, latents
from dlvm.inference import ELBO, SVI, evaluate, free_bits
from dlvm.models import VDVAE, TopDown
from dlvm.nets import MLP, PixelMaps, Pyramid, Readout

GROUPS = [(1, 1), (2, 1), (4, 2)]
SITES = ("z4", "z3", "z2", "z1")


def build() -> tuple[VDVAE, TopDownPosterior, torch.Tensor]:
    """A pair whose weights are all far from where they start, and bits."""
    pyro.set_rng_seed(1)
    x = (torch.rand(3, 64) < 0.5).double()
    model = VDVAE(Bernoulli(Readout(6, 64, factor=2)), GROUPS, channels=2, width=6).double()
    guide = TopDownPosterior(latents(model, x), Pyramid(64, (4, 2, 1), width=6), model).double()
    with torch.no_grad():
        for parameter in (*model.parameters(), *guide.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, guide, x


@pytest.fixture(scope="module")
def pair():
    return build()


def convolved(net, h: torch.Tensor) -> torch.Tensor:
    """A bottleneck by torch's functions alone."""
    for layer in net:
        h = F.gelu(h) if not hasattr(layer, "weight") else F.conv2d(h, layer.weight, layer.bias, padding=layer.padding)
    return h


def states(model: VDVAE, z: dict[str, torch.Tensor]) -> tuple[dict, dict, torch.Tensor]:
    """Of each site the state above it and (loc, scale) of its prior, and the last state, from the weights alone."""
    above, priors, state = {}, {}, model.start[None]
    for name, group in zip(SITES, model.groups, strict=True):
        if group.side > state.shape[-1]:
            factor = group.side // state.shape[-1]
            grown = state.new_zeros(*state.shape[:2], group.side, group.side)
            for i in range(group.side):
                for j in range(group.side):
                    grown[..., i, j] = state[..., i // factor, j // factor]
            state = grown + model.biases[str(group.side)]
        above[name] = state
        loc, raw, change = convolved(group.prior, state).split((2, 2, 6), dim=1)
        priors[name] = loc, (10 * (raw / 10).tanh()).exp()
        (project,) = group.project
        h = state + change + F.conv2d(z[name], project.weight, project.bias)
        state = h + convolved(group.block, h)
    return above, priors, state


def test_the_joint_density_by_hand(pair):
    model, _, x = pair
    trace = poutine.trace(model).get_trace(x)
    z = {name: trace.nodes[name]["value"] for name in SITES}
    _, priors, last = states(model, z)
    total = sum(dist.Normal(*priors[name]).log_prob(z[name]).sum() for name in SITES)
    logits = F.pixel_shuffle(F.conv2d(F.elu(last), model.likelihood.net.net[1].weight, padding=1), 2).flatten(1)
    logits = logits + model.likelihood.net.bias
    assert_close(trace.log_prob_sum(), total - F.binary_cross_entropy_with_logits(logits, x, reduction="sum"), 1e-10)


def test_the_posterior_of_a_group_reads_the_models_state_and_the_maps_of_its_side(pair):
    model, guide, x = pair
    trace = poutine.trace(guide).get_trace(x)
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample" and name in SITES] == [*SITES]
    above, _, _ = states(model, {name: trace.nodes[name]["value"] for name in SITES})
    maps = guide.encoder(x)
    for name, side in zip(SITES, (1, 2, 4, 4), strict=True):
        seen = torch.cat([above[name].expand(3, -1, -1, -1), maps[side]], dim=1)
        loc, raw = convolved(guide.posteriors[name], seen).chunk(2, dim=1)
        q = trace.nodes[name]["fn"].base_dist
        assert_close(q.loc, loc, 1e-10)
        assert_close(q.scale, (10 * (raw / 10).tanh()).exp(), 1e-10)
    owned = {id(parameter) for parameter in guide.parameters()}
    assert owned.isdisjoint(map(id, model.parameters()))


def test_the_elbo_has_every_kl_in_closed_form(pair):
    model, guide, x = pair
    pyro.set_rng_seed(3)
    found = ELBO(analytic_kl=True).differentiable_loss(model, guide, x)
    pyro.set_rng_seed(3)
    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    p.compute_log_prob()
    kl = sum(kl_divergence(q.nodes[name]["fn"], p.nodes[name]["fn"]).sum() for name in SITES)
    assert_close(found, kl - p.nodes["x"]["log_prob"].sum(), 1e-10)


def test_priors_start_standard_and_no_depth_lets_the_state_grow():
    spreads = []
    for number in (4, 64):
        pyro.set_rng_seed(0)
        model = VDVAE(Bernoulli(Readout(16, 16, factor=1)), [(4, number)], width=16)
        with poutine.trace() as traced:
            model(n=50)
        for name, site in traced.trace.nodes.items():
            if name.startswith("z"):
                assert (site["fn"].base_dist.loc == 0).all() and (site["fn"].base_dist.scale == 1).all()
        spreads.append(traced.trace.nodes["z1"]["infer"]["state"].std().item())
    assert spreads[1] < 1.5 * spreads[0]


def test_particles_weigh_what_they_weigh_alone_and_the_pair_is_evaluated(pair):
    model, guide, x = pair
    result = evaluate(model, guide, x, num_particles=30, engine="eager")
    assert result.num_data == 3 and result.units == 2 * (1 + 4 + 16 + 16) and result.log_px > result.elbo


@pytest.mark.parametrize(
    "aid", [lambda objective: objective, pytest.param(partial(free_bits, nats=0.5), marks=pytest.mark.slow)]
)
def test_captured_steps_are_those_of_pyro(aid):
    left = []
    for engine in ("eager", "captured"):
        model, guide, x = build()
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), aid(ELBO(analytic_kl=True)), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x) for _ in range(3)]
        left.append((losses, [p.detach().clone() for p in (*model.parameters(), *guide.parameters())], svi.running))
    assert left[0][2] == "eager" and left[1][2] == "captured"
    assert left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(left[0][1], left[1][1], strict=True))


@pytest.mark.parametrize("kind", [LogisticMixture, GreyLevels])
def test_every_pixel_is_told_by_the_maps_where_it_lies(kind):
    """A change of one place of the state changes its own pixels and those beside, in every channel, and no others."""
    settings = {"channels": 3, "components": 2} if kind is LogisticMixture else {}
    likelihood = kind(PixelMaps(4, side=12, factor=2), 3 * 144, levels=5, **settings)
    state, place = torch.randn(4, 6, 6), torch.zeros(4, 6, 6)
    place[:, 4, 1] = 1.0
    changed = (likelihood(state).mean != likelihood(state + place).mean).unflatten(-1, (3, 12, 12))
    near = torch.zeros(12, 12, dtype=torch.bool)
    near[6:12, 0:6] = True
    assert (changed == near).all()


def test_a_readout_is_one_layer_in_two_orders():
    apart, together = (Readout(3, 16, 2, numbers=2, last=last) for last in (False, True))
    together.load_state_dict(apart.state_dict())
    state = torch.randn(5, 3, 2, 2)
    assert_close(together(state).unflatten(-1, (16, 2)).transpose(-1, -2).flatten(-2), apart(state), 1e-6)


def test_a_model_without_states_is_told_what_to_write():
    x = torch.zeros(2, 64)
    model = TopDown(64, maps=[(2, 4), (3, 1)], width=6)
    guide = TopDownPosterior(latents(model, x), Pyramid(64, (4, 1), width=6), model)
    with pytest.raises(ValueError, match=r"latent site 'z2' needs a state of shape .*, got none; write infer="):
        guide(x)
    with pytest.raises(ValueError, match=r"encoder has no maps of the sides \[1\] of the latents"):
        TopDownPosterior(latents(model, x), Pyramid(64, (4,), width=6), model)(x)
    with pytest.raises(TypeError, match="encoder must return {side: maps}, got Tensor; pass a Pyramid"):
        TopDownPosterior(latents(model, x), MLP(64, 6), model)(x)
    Diagonal(latents(model, x), MLP(64, 6))(x)
