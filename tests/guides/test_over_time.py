"""Guides over time: exact where they can be, the same for both kinds of sites, and blind to what they do not read."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence

from dlvm.guides import IAF, Diagonal, FullRank, Latent, MeanFieldOverTime, Sequential, StructuredGaussian, latents
from dlvm.inference import ELBO, ScoreFunction, check, log_weights
from dlvm.models import LinearGaussianSSM
from dlvm.nets import Recurrent

pytestmark = pytest.mark.usefixtures("float64")
STEPS, LENGTHS = 5, torch.tensor([5, 1, 3])
FAMILIES = {"diagonal": Diagonal, "full rank": FullRank, "iaf": partial(IAF, width=5)}
SITE = {"z": Latent(torch.Size([STEPS, 2]))}


class Seen(nn.Module):
    """Features of a step that are the step itself."""

    out_features = 3

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return x


@pytest.fixture
def linear() -> tuple[LinearGaussianSSM, Tensor]:
    torch.manual_seed(0)
    model = LinearGaussianSSM(2, 3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model, torch.randn(3, STEPS, 3)


def test_a_structured_gaussian_is_the_posterior_of_linear_dynamics(linear):
    """By blocks set by hand the gap is 0 for every draw, whatever the lengths."""
    model, x = linear
    guide = StructuredGaussian(latents(model, x, LENGTHS), Seen())
    root = torch.cat([model.weight.T * (-model.log_scale).exp(), torch.zeros(2, 0)], 1)
    seen = model.weight.T * (-2 * model.log_scale).exp()
    with torch.no_grad():
        guide.linear.weight.copy_(seen)
        guide.linear.bias.copy_(-seen @ model.loc)
        guide.root.weight.zero_()
        guide.root.bias.copy_(torch.linalg.cholesky(root @ root.T).flatten())
        guide.moves.bias.copy_(model.transition.flatten())
        for net, log_scale in ((guide.drift.bias, model.log_drift), (guide.first, model.first_log_scale)):
            net.copy_(10 * (-2 * log_scale / 10).atanh())
        guide.first_linear.copy_((-2 * model.first_log_scale).exp() * model.first_loc)
    assert check(model, guide, ELBO(), x, LENGTHS) == {"z": "Monte Carlo"}
    found = log_weights(model, guide, x, LENGTHS, num_particles=3)
    torch.testing.assert_close(found, model.log_px(x, LENGTHS).expand(3, 3))


@pytest.mark.slow
def test_a_trained_one_has_a_gap_below_a_tenthousandth_of_a_nat(linear):
    """The gap is KL(q || p(z | x)), of data that it was not trained on as well."""
    model = linear[0].requires_grad_(False)
    x, lengths = torch.randn(40, STEPS, 3), torch.randint(1, STEPS + 1, (40,))
    guide = StructuredGaussian(SITE, Seen())
    optimizer = torch.optim.LBFGS(guide.parameters(), max_iter=150, history_size=20, line_search_fn="strong_wolfe")
    posterior = model.posterior(x, lengths)

    def gap() -> Tensor:
        optimizer.zero_grad()
        loss = kl_divergence(guide.chain(x, lengths), posterior).mean()
        loss.backward()
        return loss

    before = gap()
    optimizer.step(gap)
    fresh = torch.randn(40, STEPS, 3)
    assert before > 0.1 and gap() < 1e-4
    assert kl_divergence(guide.chain(fresh, lengths), model.posterior(fresh, lengths)).mean() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_draw_has_the_density_that_any_value_has(name):
    """What it is drawn from step by step, and what is computed of all steps at once; and so have its gradients."""
    guide, x = Sequential(SITE, Recurrent(3, 4, "both"), FAMILIES[name]), torch.randn(3, STEPS, 3)
    nn.init.normal_(guide.start)
    trace = poutine.trace(guide).get_trace(x, LENGTHS)
    site = trace.nodes["z"]
    drawn = site["fn"].log_prob(site["value"])
    anew = site["fn"].log_prob(site["value"].clone())
    torch.testing.assert_close(drawn, anew, rtol=1e-6, atol=1e-6)
    of_draw, of_any = (torch.autograd.grad(v.sum(), guide.start, retain_graph=True)[0] for v in (drawn, anew))
    torch.testing.assert_close(of_draw, of_any, rtol=1e-4, atol=1e-4)


def numbered(x: Tensor, lengths: Tensor) -> None:
    """Classes and states at sites of their own, with data between them."""
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x), 2)
        for t in range(x.shape[1]):
            with poutine.mask(mask=t < lengths):
                s = pyro.sample(f"s_{t + 1}", dist.Categorical(logits=torch.zeros(3)))
                z = pyro.sample(f"z_{t + 1}", dist.Normal(z + s.unsqueeze(-1), 1.0).to_event(1))
                pyro.sample(
                    f"x_{t + 1}", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([len(x), 3]).to_event(1), obs=x[:, t]
                )


@pytest.mark.parametrize("make", [Sequential, MeanFieldOverTime])
def test_sites_of_steps_are_drawn_among_others_for_as_many_steps_as_there_are(make):
    x = torch.randn(3, STEPS, 3)
    guide = make(latents(numbered, x[:, :2], torch.tensor([1, 2, 2])), Recurrent(3, 4))
    for steps in (2, STEPS):
        data = x[:, :steps], LENGTHS.clamp_max(steps)
        assert list(guide(*data)) == [f"{name}_{t}" for t in range(1, steps + 1) for name in "sz"]
        assert set(check(numbered, guide, ELBO(estimator=ScoreFunction()), *data).values()) == {"Monte Carlo"}
    with pytest.raises(ValueError, match="has a mask in the model that the guide's lacks"):
        check(numbered, lambda x, lengths: guide(x), ELBO(estimator=ScoreFunction()), x, LENGTHS)


@pytest.mark.parametrize("make", [Sequential, MeanFieldOverTime])
def test_one_site_and_sites_of_steps_are_the_same_guide(make):
    one = make(SITE, Recurrent(3, 4))
    many = make({f"z_{t + 1}": Latent(torch.Size([2])) for t in range(2)}, Recurrent(3, 4))
    many.load_state_dict(one.state_dict())
    x, z = torch.randn(3, STEPS, 3), torch.randn(3, STEPS, 2)
    traces = []
    for guide, given in ((one, {"z": z}), (many, {f"z_{t + 1}": z[:, t] for t in range(STEPS)})):
        trace = poutine.trace(poutine.condition(guide, given)).get_trace(x, LENGTHS)
        trace.compute_log_prob()
        traces.append(
            sum(site["log_prob"] for site in trace.nodes.values() if "log_prob" in site and site["name"] != "data")
        )
    torch.testing.assert_close(*traces)


def test_a_filter_sees_no_future_and_a_smoother_no_past_but_the_last_state():
    x, z = torch.randn(1, STEPS, 3), torch.randn(1, STEPS, 2)
    moved = x.clone()
    moved[:, 2] += 1
    sees = {}
    for direction in ("forward", "backward"):
        guide = Sequential(SITE, Recurrent(3, 4, direction))
        chains = [poutine.trace(guide).get_trace(data).nodes["z"]["fn"] for data in (x, moved)]
        change = (chains[0].densities(z) - chains[1].densities(z)).abs()[0]
        sees[direction] = change.nonzero().flatten().tolist()
    assert sees == {"forward": [2, 3, 4], "backward": [0, 1, 2]}
