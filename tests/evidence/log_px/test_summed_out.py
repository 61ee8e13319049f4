"""Evidence for models with continuous latents and discrete ones that are summed out, against the sum by hand."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.evidence import annealed, calibration, defensive, quadrature, sandwich, simulate, views
from dlvm.inference import evaluate

pytestmark = pytest.mark.usefixtures("float64")
P, M = torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([-1.0, 1.5], dtype=torch.float64)
X = torch.tensor([-2.0, 0.1, 1.3, 2.2], dtype=torch.float64)


def model(x):
    """c ~ P, z ~ N(M_c, 1), x ~ N(z + c, 1), so that x ~ sum_c P_c N(M_c + c, 2)."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(P), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(M[c], 1.0))
        pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)


def mixture(x):
    """p(c | x), and the means of z given either."""
    means = M + torch.arange(2)
    joint = P.log() + dist.Normal(means, 2**0.5).log_prob(x[:, None])
    return joint, M + (x[:, None] - means) / 2


def posterior(x):
    joint, loc = mixture(x)
    with pyro.plate("data", len(x)):
        classes = dist.Categorical(logits=joint)
        pyro.sample("z", dist.MixtureSameFamily(classes, dist.Normal(loc, 0.5**0.5)))


def exact(x):
    return mixture(x)[0].logsumexp(1)


def test_the_guide_of_the_continuous_latent_alone_is_the_posterior():
    found = evaluate(model, posterior, X, num_particles=3)
    assert found.log_px == pytest.approx(exact(X).mean().item(), abs=1e-9)
    assert found.elbo == pytest.approx(found.log_px, abs=1e-9)


@pytest.mark.slow
def test_estimates_integrate_over_the_continuous_latent_alone():
    assert torch.allclose(quadrature(model, X).log_px, exact(X), atol=1e-4)
    for found in (annealed(model, X, num_chains=60, temperatures=10, leaps=3), defensive(model, posterior, X, 400)):
        assert abs(found.mean - exact(X).mean().item()) < 5 * found.mean_se + 0.01


@pytest.mark.slow
def test_a_bracket_of_simulated_data():
    example = (X,)
    found = sandwich(
        model, posterior, 30, num_particles=20, num_chains=8, temperatures=20, leaps=3, from_prior=True, example=example
    )
    right = exact(simulate(model, 30, 0, example).args[0]).mean().item()
    assert found.rows["AIS"].mean - 0.05 < right < found.rows["reverse AIS"].mean + 0.05
    assert found.rows["reverse AIS"].mean - found.rows["AIS"].mean < 0.2


def test_calibration_ranks_the_continuous_latent():
    found = calibration(model, posterior, num_data=500, num_particles=50, example=(X,))
    assert [row.name for row in found.rows] == ["z", "log p(x, z)"] and found.calibrated


def test_views_leaves_out_what_needs_the_prior_elsewhere():
    found = views(model, posterior, X, num_particles=2000)
    assert float(found.elbo.value) == pytest.approx(exact(X).mean().item(), abs=1e-9)
    assert "sites summed out of it" in str(found)


def nothing(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(P), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(M[c], 1.0), obs=x)


def test_nothing_left_to_integrate_is_said():
    with pytest.raises(ValueError, match="all summed out"):
        quadrature(nothing, X)
