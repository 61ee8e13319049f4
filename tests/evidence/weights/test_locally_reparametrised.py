"""Noise of what layers give instead of that of weights: the same bound and gradient on average, and less noise."""

from __future__ import annotations

import pyro
import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn
from torch.distributions import kl_divergence

from dlvm.distributions import Bernoulli, Categorical, FixedScale, Normal
from dlvm.evidence import locally_reparametrised
from dlvm.guides import Diagonal, WithGlobals, latents, local_sites
from dlvm.inference import ELBO, IWAE
from dlvm.models import VAE, Bayesian, Conditional
from dlvm.nets import MLP

N, M, PRIOR, NOISE, DRAWS = 40, 20, 0.8, 0.5, 150
GENERATOR = torch.Generator().manual_seed(0)
F, Y = torch.randn(M, 3, generator=GENERATOR), torch.randn(M, 1, generator=GENERATOR)


def regression() -> tuple[Bayesian, WithGlobals]:
    torch.manual_seed(0)
    model = Bayesian(Conditional(Normal(MLP(3), 1, scale=FixedScale(NOISE))), N, PRIOR)
    guide = WithGlobals(None, model, AutoNormal, F, Y)
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model, guide


def bound_in_closed_form(model: Bayesian, guide: WithGlobals) -> Tensor:
    """N / M sum_m E log N(y_m; w f_m + b, NOISE^2) - KL(q || p), nats of all N data."""
    q = [torch.distributions.Normal(*guide.shared._get_loc_and_scale(site)) for site in model.places]
    weight, bias = q
    mean = F @ weight.mean.T + bias.mean
    variance = F.square() @ weight.variance.T + bias.variance
    fit = torch.distributions.Normal(mean, NOISE).log_prob(Y) - variance / (2 * NOISE**2)
    kl = sum(kl_divergence(each, torch.distributions.Normal(0.0, PRIOR)).sum() for each in q)
    return N / M * fit.sum() - kl


def losses_and_slopes(pair: tuple, parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of many draws, shapes (draws,) and (draws, parameters)."""
    losses, slopes = [], []
    for seed in range(DRAWS):
        pyro.set_rng_seed(seed)
        loss = ELBO().differentiable_loss(*pair, F, Y)
        losses.append(loss.detach())
        slopes.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(losses), torch.stack(slopes)


def test_bound_and_gradient_are_those_in_closed_form_with_a_fraction_of_the_noise() -> None:
    model, guide = regression()
    parameters = list(guide.parameters())
    exact = bound_in_closed_form(model, guide)
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(-exact, parameters)])
    values, found = losses_and_slopes(locally_reparametrised(model, guide), parameters)
    scale = abs(exact.item() / values.mean().item())  # losses may be of a datum or of all
    assert scale == pytest.approx(1.0, abs=0.1) or scale == pytest.approx(N, rel=0.1)
    factor = round(scale)
    assert abs(-factor * values.mean() - exact) < 4 * factor * values.std() / DRAWS**0.5
    assert ((factor * found.mean(0) - slope).abs() < 5 * factor * found.std(0) / DRAWS**0.5).all()
    _, plain = losses_and_slopes((model, guide), parameters)
    assert found.var(0).sum() < 0.5 * plain.var(0).sum()


def test_latents_of_each_datum_keep_their_guide_and_their_share() -> None:
    torch.manual_seed(0)
    x = (F > 0).float()
    model = Bayesian(VAE(2, Bernoulli(MLP(2, 4, 3))), N, PRIOR)
    guide = WithGlobals(Diagonal(local_sites(latents(model, x)), MLP(3, 4)), model, AutoNormal, x)
    means = []
    for pair in ((model, guide), locally_reparametrised(model, guide)):
        draws = []
        for seed in range(60):
            pyro.set_rng_seed(seed)
            draws.append(torch.as_tensor(ELBO().loss(*pair, x)))
        found = torch.stack(draws)
        means.append((found.mean(), found.std() / 60**0.5))
    (a, a_se), (b, b_se) = means
    assert abs(a - b) < 4 * (a_se**2 + b_se**2) ** 0.5
    with pytest.raises(ValueError, match="train by ELBO"):
        IWAE(3).loss(*locally_reparametrised(model, guide), x)


class Twice(nn.Module):
    """A layer that data pass twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.out_features = nn.Linear(3, 3), 3

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


class Stepwise(Twice):
    """A layer that each of two steps passes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.stack([x, x], 1)).sum(1)


@pytest.mark.parametrize("net, said", [(Twice, "is called more than once"), (Stepwise, r"gets shape \(20, 2, 3\)")])
def test_layers_whose_noise_is_not_each_datums_own_are_refused(net: type, said: str) -> None:
    y = torch.zeros(M).long()
    model = Bayesian(Conditional(Categorical(net())), N)
    program, local = locally_reparametrised(model, WithGlobals(None, model, AutoNormal, F, y))
    with pytest.raises(ValueError, match=said):
        program(F, y)
    assert not model.model.get_submodule("likelihood.net.layer")._forward_hooks


def test_weights_that_depend_on_one_another_are_refused() -> None:
    model, _ = regression()
    with pytest.raises(TypeError, match="got AutoMultivariateNormal"):
        locally_reparametrised(model, WithGlobals(None, model, AutoMultivariateNormal, F, Y))


def test_a_layer_gives_the_moments_of_its_random_weights() -> None:
    """Of one datum many times over: mean and variance of W x + b."""
    model, guide = regression()
    program, _ = locally_reparametrised(model, guide)
    f = F[:1].expand(4000, 3)
    model.num_data = 4000
    pyro.set_rng_seed(0)
    with pyro.poutine.trace() as traced:
        program(f, torch.zeros(4000, 1))
    loc = traced.trace.nodes["y"]["fn"].base_dist.loc[:, 0]
    (m, s), (mb, sb) = (guide.shared._get_loc_and_scale(site) for site in model.places)
    mean, variance = (F[0] @ m.T + mb).squeeze(), (F[0].square() @ s.square().T + sb.square()).squeeze()
    assert_close(loc.mean(), mean, 4 * variance.sqrt().item() / 4000**0.5)
    assert loc.var().item() == pytest.approx(variance.item(), rel=4 * (2 / 4000) ** 0.5)
