"""Models without latent sites: their bounds are log p(x) itself, told exactly, and by one evaluation of a datum."""

from __future__ import annotations

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.evidence import exact
from dlvm.guides import FullyObserved, NoLatents, latents
from dlvm.inference import ELBO, IWAE, MaximumLikelihood, evaluate, log_px, train, verdict

X = torch.arange(24.0).reshape(8, 3) % 2


class Coins(PyroModule):
    """Three coins, flipped independently; ``noise`` is a number of its own that the model draws beside its sites."""

    def __init__(self, noise: bool = False):
        super().__init__("model")
        self.logits, self.noise, self.rows = nn.Parameter(torch.tensor([0.3, -1.0, 0.0])), noise, 0

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        self.rows += n if x is None else len(x)
        with pyro.plate("data", n if x is None else len(x)):
            logits = self.logits + torch.randn(()) if self.noise else self.logits
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def log_p(model: Coins) -> Tensor:
    return dist.Bernoulli(logits=model.logits).to_event(1).log_prob(X).detach()


@pytest.mark.parametrize("particles", [1, 30])
def test_evaluation_is_exact_for_any_number_of_particles(particles: int) -> None:
    model = Coins()
    found = evaluate(model, FullyObserved(), X, num_particles=particles)
    assert math.isclose(found.log_px, log_p(model).double().mean().item(), rel_tol=1e-6)
    assert (found.elbo, found.log_px_se, found.elbo_se, found.rate, found.units) == (found.log_px, 0, 0, 0, 0)
    assert math.isclose(found.bits_per_dim, -found.log_px / 3 / math.log(2))
    assert verdict(found).trustworthy and "log p(x) is exact: nothing is drawn" in found.verdict
    assert str(found) == f"log p(x) {found.log_px:.3f} nats, exact, mean of 8 data"
    assert verdict(found).next == "another model"


def test_a_datum_is_weighed_once_and_not_for_every_particle() -> None:
    model = Coins()
    evaluate(model, FullyObserved(), X, num_particles=1)
    once, model.rows = model.rows, 0
    evaluate(model, FullyObserved(), X, num_particles=1000)
    assert model.rows <= once


def test_noise_of_the_models_own_is_no_certainty() -> None:
    found = evaluate(Coins(noise=True), FullyObserved(), X, num_particles=50)
    assert found.log_px_se > 0 and "exact" not in found.verdict


def test_what_is_latent_for_some_data_alone_is_drawn_for_them() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            shift = pyro.sample("z", dist.Normal(0.0, 1.0)) if x.max() > 2 else 0.0
            pyro.sample("x", dist.Normal(shift, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        if x.max() > 2:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.0, 1.5).expand([len(x)]))

    found = evaluate(model, guide, [torch.zeros(4), torch.full((4,), 3.0)], num_particles=400)
    apart = [dist.Normal(0.0, sd).log_prob(torch.tensor(x)).item() for sd, x in ((1.0, 0.0), (2**0.5, 3.0))]
    assert found.log_px_se > 0 and abs(found.log_px - sum(apart) / 2) < 5 * found.log_px_se


def test_a_plain_pair_with_latents_that_say_nothing_is_not_called_exact() -> None:
    found = evaluate(Coins(), FullyObserved(), X, num_particles=30)
    assert "exact" not in verdict(replace(found, units=2, active_units=0)).sentences[-1]


def test_each_datum_and_the_whole_are_exact() -> None:
    model = Coins()
    assert torch.allclose(exact(model, X).log_px, log_p(model).double())
    found = log_px(model, FullyObserved(), X)
    assert torch.allclose(found.log_px, log_p(model).double()) and not found.log_px_se.any()


def test_exact_refuses_noise_and_latent_sites() -> None:
    with pytest.raises(TypeError, match="has no method log_px; use enumerated"):
        exact(Coins(noise=True), X)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), MaximumLikelihood()], ids=lambda o: type(o).__name__)
def test_training_climbs_to_the_frequencies_of_the_data(objective: ELBO) -> None:
    x, model = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), Coins()
    train(model, FullyObserved(), objective, [(x,)] * 400, epochs=2, optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    assert torch.allclose(model.logits.sigmoid(), x.mean(0), atol=0.01)


def test_latents_says_which_guide_a_model_without_any_has() -> None:
    with pytest.raises(NoLatents, match="FullyObserved"):
        latents(Coins(), X)
