"""The convolutional hierarchy: its sites, its joint density by hand, its draws, and what training puts where."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.nn import functional as F

from dlvm.distributions import DiagonalNormal
from dlvm.experiments.data import digits
from dlvm.experiments.measures.layer_contents import layers_of
from dlvm.guides import IAF, Diagonal, Joint, Ladder, latents
from dlvm.inference import ELBO, SVI, evaluate, linear, tempered
from dlvm.models import TopDown
from dlvm.nets import Conv

MAPS = [(2, 4), (3, 2), (4, 1)]
GUIDES = {
    "top_down": lambda spec, encoder, model: Diagonal(spec, encoder),
    "bottom_up": lambda spec, encoder, model: Diagonal(spec, encoder, order="bottom_up"),
    "IAF": lambda spec, encoder, model: IAF(spec, encoder, depth=2),
    "joint": lambda spec, encoder, model: Joint(spec, encoder, family=DiagonalNormal),
    "precision": lambda spec, encoder, model: Ladder(spec, encoder, model),
    "residual": lambda spec, encoder, model: Ladder(spec, encoder, model, merge="residual"),
}


def build(**settings) -> TopDown:
    return TopDown(64, **{"maps": MAPS, "width": 5} | settings).double()


def binary(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) < 0.5).double()


def by_hand(model: TopDown, x: torch.Tensor, z: dict[str, torch.Tensor]) -> torch.Tensor:
    """log p(x, z) of one datum, from the weights and torch's functions alone."""
    total, state = 0.0, model.start[None]
    for number, layer in zip((3, 2, 1), model.layers, strict=True):
        _, head = layer.head
        loc, raw = F.conv2d(F.elu(state), head.weight, head.bias)[0].chunk(2)
        scale = (10 * (raw / 10).tanh()).exp()
        total = total + dist.Normal(loc, scale).log_prob(z[f"z{number}"]).sum()
        (project,), (_, one, _, two) = layer.project, layer.block
        h = state + F.conv2d(z[f"z{number}"][None], project.weight, project.bias)
        inner = F.conv2d(F.elu(h), one.weight, one.bias, padding=1)
        state = h + F.conv2d(F.elu(inner), two.weight, two.bias, padding=1)
        if number > 1:
            state = F.conv_transpose2d(state, layer.up[0].weight, layer.up[0].bias, stride=2)
    pixels = F.conv2d(F.elu(state), model.likelihood.net.net[1].weight, padding=1)[0]
    image = torch.zeros(8, 8)
    for place in range(4):
        image[place // 2 :: 2, place % 2 :: 2] = pixels[place]
    logits = image.reshape(64) + model.likelihood.net.bias
    return total - F.binary_cross_entropy_with_logits(logits, x, reduction="sum")


def values(trace: poutine.Trace) -> dict[str, torch.Tensor]:
    return {name: trace.nodes[name]["value"] for name in ("z3", "z2", "z1")}


@pytest.mark.parametrize("side", [8, 28])
def test_sites_come_from_the_top_down_at_growing_resolution(side):
    x = binary(3, side**2).float()
    nodes = poutine.trace(TopDown(side**2, width=4)).get_trace(x).nodes
    assert [n for n, s in nodes.items() if s["type"] == "sample" and n != "data"] == ["z3", "z2", "z1", "x"]
    shapes = [tuple(nodes[name]["value"].shape) for name in ("z3", "z2", "z1")]
    assert shapes == [(3, 8, 1, 1), (3, 4, side // 4, side // 4), (3, 2, side // 2, side // 2)]
    assert nodes["x"]["is_observed"] and nodes["x"]["value"] is x


@pytest.mark.usefixtures("float64")
def test_joint_density_by_hand():
    model, x = build(), binary(5, 64)
    with torch.no_grad():
        model.likelihood.net.bias.copy_(torch.randn(64))
    trace = poutine.trace(model).get_trace(x)
    drawn = values(trace)
    expected = [by_hand(model, x[i], {name: z[i] for name, z in drawn.items()}) for i in range(5)]
    trace.compute_log_prob()
    found = sum(trace.nodes[name]["log_prob"] for name in (*drawn, "x"))
    assert_close(found, torch.stack(expected), 1e-9)


def test_a_draw_scored_again_has_the_density_it_was_drawn_with():
    model = build()
    drawn = poutine.trace(model).get_trace(n=6)
    scored = poutine.trace(poutine.condition(model, values(drawn))).get_trace(drawn.nodes["x"]["value"])
    assert_close(scored.log_prob_sum(), drawn.log_prob_sum(), 1e-9)
    assert model(n=7).shape == (7, 64) and model().shape == (1, 64)
    assert set(model(n=7).unique().tolist()) <= {0.0, 1.0}


@pytest.mark.usefixtures("float64")
def test_draws_have_the_marginal_that_quadrature_gives():
    """An image of 2 x 2 pixels and one latent number: p(x) of the 16 images by the trapezium rule."""
    model, n = TopDown(4, maps=[(1, 1)], width=3), 40000
    with torch.no_grad():
        model.likelihood.net.net[1].weight.mul_(8)
        model.layers[0].project[0].weight.mul_(20)
        images = torch.tensor([[i >> k & 1 for k in range(4)] for i in range(16)]).double()
        prior = model.layers[0](model.start)
        (loc,), (scale,) = prior.mean.flatten(), prior.stddev.flatten()
        z = torch.linspace(-9, 9, 2001) * scale + loc
        state = model.layers[0].below(model.start, z.reshape(-1, 1, 1, 1))
        weight = torch.softmax(prior.log_prob(z.reshape(-1, 1, 1, 1)), 0)
        exact = torch.stack([weight @ model.likelihood(state).log_prob(image).exp() for image in images])
        drawn = model(n=n) @ torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert_close(exact.sum(), 1.0, 1e-10)
    found = torch.bincount(drawn.long(), minlength=16) / n
    error = (exact * (1 - exact) / n).sqrt()
    assert ((found - exact).abs() < 4.5 * error).all(), (found - exact) / error
    pixels = (exact[:, None] * images).sum(0)
    independent = (pixels.where(images == 1, 1 - pixels)).prod(1)
    assert ((exact - independent).abs() > 10 * error).any(), "the latent number carries nothing between pixels"


@pytest.mark.usefixtures("float64")
def test_particles_are_a_loop():
    model, x = build(), binary(5, 64)
    with pyro.plate("particles", 3, dim=-2):
        trace = poutine.trace(model).get_trace(x)
    drawn = values(trace)
    assert drawn["z1"].shape == (3, 5, 2, 4, 4)
    trace.compute_log_prob()
    for k in range(3):
        one = {name: z[k] for name, z in drawn.items()}
        single = poutine.trace(poutine.condition(model, one)).get_trace(x)
        assert_close(sum(trace.nodes[n]["log_prob"][k].sum() for n in (*drawn, "x")), single.log_prob_sum(), 1e-9)


def test_a_latent_number_reaches_the_pixels_around_it():
    """z1 of 8 x 8 places has three 3 x 3 convolutions before the pixels: three places on each side, six pixels."""
    model = TopDown(256, maps=[(1, 8), (1, 1)], width=4).double()
    state = torch.randn(4, 8, 8).double()
    z1 = torch.zeros(1, 8, 8).double().requires_grad_()
    logits = model.likelihood.net(model.layers[1].below(state, z1)).reshape(16, 16)
    for row, column in ((0, 0), (7, 8), (15, 3)):
        (slope,) = torch.autograd.grad(logits[row, column], z1, retain_graph=True)
        near = torch.zeros(8, 8, dtype=torch.bool)
        near[max(row // 2 - 3, 0) : row // 2 + 4, max(column // 2 - 3, 0) : column // 2 + 4] = True
        assert torch.equal(slope[0] != 0, near)
    z2 = torch.zeros(1, 1, 1).double().requires_grad_()
    (slope,) = torch.autograd.grad(model.layers[0].below(model.start, z2)[:, -1, -1].sum(), z2)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("name", GUIDES)
def test_every_parameter_of_model_and_guide_gets_a_gradient(name):
    model, x = build(), binary(6, 64)
    guide = GUIDES[name](latents(model, x), Conv(64, 4, 8), model).double()
    shapes = {site: tuple(z.shape) for site, z in guide(x).items()}
    assert shapes == {"z1": (6, 2, 4, 4), "z2": (6, 3, 2, 2), "z3": (6, 4, 1, 1)}
    ELBO().differentiable_loss(model, guide, x).backward()
    for key, value in [*model.named_parameters(), *guide.named_parameters()]:
        assert value.grad is not None and (value.grad != 0).any(), key


@pytest.mark.parametrize("merge", ["precision", "residual"])
def test_the_closed_kl_of_a_ladder_is_the_mean_of_sampled_ones(merge):
    model, x = build(), binary(2, 64)
    guide = Ladder(latents(model, x), Conv(64, 4, 8), model, merge=merge).double()
    with torch.no_grad():
        closed, sampled = (
            torch.tensor([objective.loss(model, guide, x) for _ in range(4)])
            for objective in (
                ELBO(500, analytic_kl=True),
                Trace_ELBO(500, vectorize_particles=True, max_plate_nesting=1),
            )
        )
    error = (closed.var() / 4 + sampled.var() / 4).sqrt()
    assert (closed.mean() - sampled.mean()).abs() < 5 * error


def test_layers_of_one_resolution_and_a_mean():
    mean = torch.linspace(0.1, 0.9, 64)
    model = TopDown(64, maps=[(1, 8), (2, 8), (3, 2)], width=4, mean=mean)
    shapes = {name: tuple(latent.shape) for name, latent in latents(model, torch.zeros(2, 64)).items()}
    assert shapes == {"z3": (3, 2, 2), "z2": (2, 8, 8), "z1": (1, 8, 8)}
    assert_close(model.likelihood.net.bias.sigmoid(), mean, 1e-6)
    assert sum(p.numel() for p in TopDown().parameters()) < 100_000


def test_a_saved_model_is_the_same_model():
    one, two = build(), build()
    drawn = poutine.trace(one).get_trace(n=4)
    score = poutine.trace(poutine.condition(two, values(drawn)))
    x = drawn.nodes["x"]["value"]
    assert abs(score.get_trace(x).log_prob_sum() - drawn.log_prob_sum()) > 0.1
    two.load_state_dict(one.state_dict())
    assert_close(score.get_trace(x).log_prob_sum(), drawn.log_prob_sum(), 1e-9)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"x_dim": 50}, r"x_dim must be the number of pixels of a square image.*got 50"),
        ({"x_dim": 49}, r"7 x 7, whose side is no multiple of 4; give maps, as \[\(2, 7\), \(8, 1\)\]"),
        ({"maps": []}, r"maps must be one or more pairs \(channels, side\)"),
        ({"maps": [(2, 0)]}, r"maps must be one or more pairs"),
        ({"maps": [(2, 14), (4, 7, 7)]}, r"maps must be one or more pairs"),
        ({"maps": [(2, 7), (4, 14)]}, r"maps has a side of 14 below which comes one of 7, no multiple of it"),
        ({"maps": [(2, 5)]}, r"maps has a side of 5 below which comes one of 28"),
        ({"width": 0}, r"width must be at least 1"),
        ({"mean": torch.zeros(3)}, r"mean has shape \(3,\) and needs a net with a bias of that shape, got \(784,\)"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TopDown(**settings)


@pytest.mark.slow
def test_training_fills_more_than_one_layer_and_beats_the_collapsed_model():
    """The best model whose latents hold nothing gives every pixel its mean."""
    train, _, test = digits(batch_size=50)
    model = TopDown(64, width=16, mean=train.mean)
    guide = Diagonal(latents(model, train.example), Conv(64, 16, 32, 64))
    objective = tempered(ELBO(), linear(0.0, 1.0, steps=300))
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=2e-3), objective, engine="captured")
    for _ in range(25):
        for (x,) in train:
            svi.step(x)
    collapsed = dist.Bernoulli(test.mean.clamp(1e-3, 1 - 1e-3)).log_prob(test.x).sum(-1).mean()
    worth = evaluate(model, guide, test, num_particles=20)
    assert worth.elbo > collapsed + 1.5 and worth.log_px > worth.elbo
    kl = layers_of(model, guide, test, 20).kl
    assert sum(nats > 0.2 for nats in kl.values()) > 1, kl
