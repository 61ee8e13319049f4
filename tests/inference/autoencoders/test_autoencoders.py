"""Each objective is its formula, is stepped as captured as Pyro steps it, and leaves what is reported alone."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta
from torch import nn

from dlvm.distributions import Bernoulli, ConstantScaleNormal, DiagonalNormal, FixedScale, StandardNormal
from dlvm.guides import Diagonal, Point, latents
from dlvm.inference import (
    ELBO,
    MMD,
    RBF,
    SVI,
    DecoderGradient,
    Discriminator,
    EncoderGradient,
    InverseMultiquadric,
    Reconstruction,
    ali,
    check,
    evaluate,
    fit,
    matched,
    mmd,
    penalised,
    tempered,
    vae_gan,
)
from dlvm.inference.programs.pair import Pair
from dlvm.models import HVAE, VAE
from dlvm.nets import MLP

X = (torch.rand(12, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
tanh = partial(MLP, activation=nn.Tanh)


def pair(Guide=Diagonal, real: bool = False):
    pyro.set_rng_seed(0)
    likelihood = ConstantScaleNormal(tanh(2, 5, 6), FixedScale(0.5)) if real else Bernoulli(tanh(2, 5, 6))
    model = VAE(2, likelihood)
    return model, Guide(latents(model, X), tanh(6, 5))


def judge(width: int) -> Discriminator:
    return Discriminator(tanh(width, 5, 4))


def gradient(objective, model, guide, seed=1, x=X):
    pyro.set_rng_seed(seed)
    parameters = [*model.parameters(), *guide.parameters()]
    loss = objective.differentiable_loss(model, guide, x)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.item(), [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def alike(one, other, **tolerance) -> bool:
    return all(torch.allclose(a, b, **tolerance) for a, b in zip(one, other, strict=True))


QUICK = "contractive", "vae_gan"
OUTSIDE = {
    "reconstruction": (Point, Reconstruction),
    "contractive": (Point, lambda: penalised(Reconstruction(), EncoderGradient())),
    "rae": (Point, lambda: penalised(Reconstruction(code=0.1), DecoderGradient())),
    "wae": (Point, lambda: matched(Reconstruction(), MMD(InverseMultiquadric()))),
    "adversarial points": (Point, lambda: matched(Reconstruction(), judge(2))),
    "mmd_vae": (Diagonal, lambda: matched(ELBO(), MMD())),
    "info_vae": (Diagonal, lambda: matched(ELBO(analytic_kl=True), MMD(), alpha=0.5)),
    "aae": (Diagonal, lambda: matched(ELBO(), judge(2))),
    "vae_gan": (Diagonal, lambda: vae_gan(ELBO(), judge(6), pixels=0.5)),
    "ali": (Diagonal, lambda: ali(ELBO(), judge(8))),
}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in OUTSIDE])
def test_captured_steps_are_eager_ones_and_move_all_that_is_trained(name):
    Guide, make = OUTSIDE[name]
    left = []
    for engine in ("eager", "captured"):
        model, guide = pair(Guide)
        objective = make()
        before = [p.detach().clone() for p in objective.parameters()]
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), objective, engine=engine)
        losses = [svi.step(X) for _ in range(4)]
        assert svi.running == engine
        assert all(not torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))
        left.append((losses, [p.detach() for part in (model, guide, objective) for p in part.parameters()]))
    assert left[0][0] == pytest.approx(left[1][0], rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(left[0][1], left[1][1], strict=True))


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_reported_is_the_value_of_the_same_parameters_under_the_plain_objective(name):
    """And nothing is selected by it, since it is not what is trained."""
    Guide, make = OUTSIDE[name]
    model, guide = pair(Guide)
    plain = Reconstruction() if Guide is Point else ELBO(analytic_kl=name == "info_vae")
    value, _ = gradient(plain, model, guide)
    assert gradient(make(), model, guide)[0] == value
    with pytest.raises(ValueError, match="patience needs a lower bound"):
        next(fit(model, guide, make(), [(X,)], valid=[(X,)], patience=3))


def test_log_px_of_a_pair_trained_outside_the_bound_means_what_it_always_does():
    """By parameters alone: the same numbers, drawn alike, in a pair that was never trained by a discriminator."""
    model, guide = pair()
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), vae_gan(ELBO(), judge(6)), engine="eager")
    for _ in range(3):
        svi.step(X)
    twin, twin_guide = pair()
    twin.load_state_dict(model.state_dict())
    twin_guide.load_state_dict(guide.state_dict())
    found, wanted = evaluate(model, guide, X, 50), evaluate(twin, twin_guide, X, 50)
    assert (found.log_px, found.elbo) == (wanted.log_px, wanted.elbo) and found.elbo < found.log_px


def test_a_guide_of_points_gives_no_bound_and_no_evidence():
    model, guide = pair(Point)
    with pytest.raises(ValueError, match="point masses, whose entropy is minus infinity: ELBO would be no bound"):
        ELBO().loss(model, guide, X)
    with pytest.raises(ValueError, match="log p\\(x\\) cannot be had from it; train so by Reconstruction"):
        evaluate(model, guide, X, 10)


def test_the_point_masses_of_an_autoencoder_are_refused_under_objectives_of_pyro_and_deltas_of_its_own_are_not():
    model, guide = pair(Point)
    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match=f"{type(objective).__name__} would be no bound on log p"):
            check(model, guide, objective, X)
        with pytest.raises(ValueError, match="train an autoencoder by Reconstruction"):
            next(iter(fit(model, guide, objective, [(X,)], epochs=1)))
    assert check(model, AutoDelta(model), Trace_ELBO(), X) == {"z": "Monte Carlo"}


def test_an_autoencoder_is_the_limit_of_the_beta_vae_whose_beta_and_scale_go_to_nothing():
    """A Gaussian guide with the point's mean and hardly a scale has the point's reconstruction and its gradient."""
    model, point = pair(Point)
    log_px = model.likelihood(poutine.trace(point).get_trace(X).nodes["z"]["value"]).log_prob(X)
    value, wanted = gradient(Reconstruction(), model, point)
    assert value == pytest.approx(-log_px.sum().item(), rel=1e-6)
    _, narrow = pair(Diagonal)
    with torch.no_grad():
        narrow.encoder.load_state_dict(point.encoder.state_dict())
        narrow.posteriors[0].head.weight.zero_()
        narrow.posteriors[0].head.bias.fill_(-12.0)
        narrow.posteriors[0].head.weight[:2] = point.posteriors[0].head.weight
        narrow.posteriors[0].head.bias[:2] = point.posteriors[0].head.bias
    _, found = gradient(tempered(ELBO(), 0.0), model, narrow)
    count = len([*model.parameters()])
    assert alike(found[:count], wanted[:count], atol=2e-3)
    assert alike(found[count:-2], wanted[count:-2], atol=2e-3)
    assert alike([each[:2] for each in found[-2:]], wanted[-2:], atol=2e-3)


def test_small_codes_are_the_standard_normal_prior_of_a_regularised_autoencoder():
    model, guide = pair(Point)
    z = poutine.trace(guide).get_trace(X).nodes["z"]["value"]
    parameters = list(guide.parameters())
    wanted = torch.autograd.grad(-model.likelihood(z).log_prob(X).sum() + 0.3 * z.square().sum() / 2, parameters)
    _, found = gradient(Reconstruction(code=0.3), model, guide)
    assert alike(found[-len(parameters) :], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", ["encoder", "decoder"])
def test_a_penalty_is_the_squared_norm_of_the_jacobian_that_autograd_has(penalty):
    model, guide = pair(Point)
    z = guide(X)["z"].detach()
    aid = EncoderGradient() if penalty == "encoder" else DecoderGradient(probes=None)
    net, at = (lambda x: guide(x[None])["z"][0], X) if penalty == "encoder" else (lambda z: model.likelihood(z).mean, z)
    wanted = 0.0
    for row in at:
        jacobian = torch.autograd.functional.jacobian(net, row)
        wanted = wanted + jacobian.square().sum()
    particles = Reconstruction().draw(Pair(model, guide), (X,), {})
    assert aid(particles).sum().item() == pytest.approx(wanted.item(), rel=1e-5)
    random = EncoderGradient(400) if penalty == "encoder" else DecoderGradient(400)
    pyro.set_rng_seed(3)
    assert random(particles).sum().item() == pytest.approx(wanted.item(), rel=0.1)


def test_a_penalty_is_trained_so_much_as_it_weighs():
    model, guide = pair(Point)
    _, plain = gradient(Reconstruction(), model, guide)
    found = [gradient(penalised(Reconstruction(), EncoderGradient(), w), model, guide)[1] for w in (1.0, 3.0)]
    extra = [[a - b for a, b in zip(each, plain, strict=True)] for each in found]
    assert alike([3 * each for each in extra[0]], extra[1], rtol=1e-3, atol=1e-5)
    assert max(each.abs().max() for each in extra[0]) > 1e-2


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_info_vae_is_the_elbo_with_its_kl_and_a_discrepancy_so_weighted(alpha):
    model, guide = pair()
    parameters = list(guide.parameters())
    pyro.set_rng_seed(1)
    traced = poutine.trace(guide).get_trace(X).nodes["z"]
    z, prior = traced["value"], StandardNormal(2)().expand([len(X)]).rsample()
    kl = traced["fn"].log_prob(z) - StandardNormal(2)().log_prob(z)
    value = model.likelihood(z).log_prob(X) - (1 - alpha) * kl
    wanted = torch.autograd.grad(-value.sum() + 7.0 * len(X) * mmd(z, prior, RBF(1.0)), parameters)
    _, found = gradient(matched(ELBO(), MMD(RBF(1.0)), 7.0, alpha), model, guide)
    assert alike(found[-len(parameters) :], wanted, rtol=1e-3, atol=1e-4)


def test_without_a_discrepancy_and_with_the_whole_kl_it_is_the_elbo():
    model, guide = pair()
    assert alike(
        gradient(matched(ELBO(), MMD(), 0.0, 0.0), model, guide)[1], gradient(ELBO(), model, guide)[1], atol=1e-5
    )


def test_ali_trains_by_the_discriminator_alone_and_each_side_by_its_own_pull():
    """With a discriminator that sees z alone, the guide is pulled and the decoder gets nothing."""
    model, guide = pair(real=True)
    seeing = judge(8)
    with torch.no_grad():
        seeing.net.layers[0].weight[:, :6] = 0
    _, found = gradient(ali(ELBO(), seeing), model, guide)
    count = len([*model.parameters()])
    assert all((each == 0).all() for each in found[:count]) and all((each != 0).any() for each in found[count:])
    with torch.no_grad():
        seeing.net.layers[0].weight[:, :6] = 1
        seeing.net.layers[0].weight[:, 6:] = 0
    _, found = gradient(ali(ELBO(), seeing), model, guide)
    assert any((each != 0).any() for each in found[:count]) and all((each == 0).all() for each in found[count:])


def test_dreams_of_several_layers_are_drawn_from_the_top():
    pyro.set_rng_seed(0)
    model = HVAE(StandardNormal(2), [DiagonalNormal(tanh(2, 4), 3)], Bernoulli(tanh(3, 5, 6)))
    guide = Diagonal(latents(model, X), tanh(6, 5))
    objective = matched(ELBO(), judge(5))
    assert all((each != 0).any() for each in gradient(objective, model, guide)[1][-4:])


def test_what_a_discriminator_cannot_be_shown_is_refused():
    model, guide = pair()
    with pytest.raises(ValueError, match="one draw of the guide per datum; pass an objective with num_particles=1"):
        gradient(matched(ELBO(2), MMD()), model, guide)
    with pytest.raises(ValueError, match="have 6 features where in_features=5"):
        gradient(vae_gan(ELBO(), judge(5)), model, guide)
    with pytest.raises(ValueError, match="single datum"):
        gradient(matched(ELBO(), MMD()), model, guide, x=X[:1])
