"""What a model's masks say of its latent sites: guides from latents follow them, others are refused."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import nn

from dlvm.distributions.masks import place_in
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, check, evaluate, log_weights

N = 40
MASK = torch.arange(N)[:, None].remainder(3).add(1) > torch.arange(3)
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0)) * MASK


def steps(x, mask):
    """Sites that do not hang together, so that log p(x) is a sum over the steps that are there."""
    with pyro.plate("data", len(x)):
        for t in range(3):
            m = mask[:, t : t + 1]
            z = pyro.sample(f"z_{t}", dist.Normal(torch.zeros(1), 1.0).mask(m).to_event(1))
            pyro.sample(f"x_{t}", dist.Normal(z, 0.5).mask(m).to_event(1), obs=x[:, t : t + 1])


class Encoder(nn.Module):
    """The posterior mean, and nothing that a net would have to learn."""

    out_features = 3

    def forward(self, x, *rest):
        return x[:, :3] / 1.25


def log_px(x, mask):
    return (dist.Normal(0.0, 1.25**0.5).log_prob(x) * mask).sum(1)


@pytest.mark.slow
def test_guides_from_latents_count_what_the_model_counts():
    """Unmasked, padded steps would cost log q - nothing: 0.9 to 1.8 nats in two thirds of the data."""
    guide = Diagonal(latents(steps, X, MASK), Encoder(), order="independent")
    check(steps, guide, ELBO(1), X, MASK)
    other = MASK.roll(1, 0)[:-3]
    found = evaluate(steps, guide, [(X[:-3] * other, other)], num_particles=20_000, engine="eager")
    assert abs(found.log_px - log_px(X[:-3] * other, other).mean().item()) < 0.02
    loss = sum(Trace_ELBO().loss(steps, guide, X, MASK) for _ in range(300)) / 300 / N
    assert -loss < log_px(X, MASK).mean() and abs(-loss - evaluate(steps, guide, [(X, MASK)], 1000).elbo) < 0.1
    assert SVI(steps, guide, Adam({"lr": 1e-3}), Trace_ELBO()).step(X, MASK) > 0


@pytest.mark.parametrize("present", [None, lambda x, mask: {f"z_{t}": mask[:, t] > 0 for t in range(3)}])
def test_masks_that_are_made_anew_are_said_by_present_or_refused(present):
    lengths = MASK.long()

    def model(x, mask):
        steps(x, mask > 0)

    guide = Diagonal(latents(model, X, lengths), Encoder(), order="independent", present=present)
    if present is not None:
        check(model, guide, ELBO(1), X, lengths)
        found = evaluate(model, guide, [(X, lengths)], num_particles=20_000, engine="eager").log_px
        assert abs(found - log_px(X, MASK).mean().item()) < 0.02
        return
    for run in (
        lambda: check(model, guide, ELBO(1), X, lengths),
        lambda: evaluate(model, guide, [(X, lengths)], num_particles=5),
        lambda: log_weights(model, guide, X, lengths, num_particles=5),
    ):
        with pytest.raises(ValueError, match="'z_1' has a mask in the model that the guide's lacks") as refused:
            run()
        assert "tensor" not in str(refused.value) and "\n" not in str(refused.value)


def test_missing_labels_are_imputed_for_the_rows_that_lack_them():
    """obs_mask: what is not observed integrates to one, so that log p(x, y) is that of the model masked there."""
    y, seen = X[:, 1], torch.arange(N) % 2 == 0

    def observing(x, y, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("t", dist.Normal(z[..., 0], 0.5), obs=y, obs_mask=seen)
            pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], 3), 0.5).to_event(1), obs=x)

    guide = Diagonal(latents(observing, X, y, seen), Encoder())
    check(observing, guide, ELBO(1), X, y, seen)
    found = evaluate(observing, guide, [(X, y, seen)], num_particles=20_000, engine="eager").log_px
    cov = torch.ones(4, 4) + 0.25 * torch.eye(4)
    both = dist.MultivariateNormal(torch.zeros(4), cov).log_prob(torch.cat([X, y[:, None]], 1))
    alone = dist.MultivariateNormal(torch.zeros(3), cov[:3, :3]).log_prob(X)
    assert abs(found - torch.where(seen, both, alone).mean().item()) < 0.05


def test_a_part_of_an_argument_is_known_by_where_it_lies():
    mask = torch.ones(4, 3, 2, dtype=torch.bool)
    assert place_in(mask[:, 1, 0], mask) == (1, 0) and place_in(mask[:, 2:, 1].expand(4, 5), mask) == (2, 1)
    assert place_in(mask[:, 1, 0].clone(), mask) is None and place_in(mask[:, :, 0], mask) is None
    assert place_in(mask.flip(0)[:, 1, 0], mask) is None
