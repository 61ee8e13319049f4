"""The exact posterior as a guide: no gap, and the gradient of log p(x) without noise."""

from __future__ import annotations

import pyro
import pytest
import torch

from dlvm.guides import ExactPosterior
from dlvm.inference import ELBO, evaluate
from dlvm.models import PPCA, LinearGaussianSSM


def test_the_bound_is_log_px_and_its_gradient_that_of_log_px():
    pyro.set_rng_seed(0)
    model = LinearGaussianSSM(2, 3).double()
    x, lengths = torch.randn(4, 5, 3).double(), torch.tensor([5, 1, 3, 4])
    guide = ExactPosterior(model)
    assert list(guide.parameters()) == [] and guide.model is model
    ELBO(1).differentiable_loss(model, guide, x, lengths).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.log_px(x, lengths).sum().neg().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, msg=name)
    evaluated = evaluate(model, guide, [(x, lengths)], num_particles=2)
    assert evaluated.elbo == pytest.approx(model.log_px(x, lengths).mean().item(), abs=1e-9)


def test_a_model_that_knows_no_posterior_is_refused():
    with pytest.raises(TypeError, match="model must be a module with a method guide.*got Linear; take a guide"):
        ExactPosterior(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="got the class PPCA"):
        ExactPosterior(PPCA)
