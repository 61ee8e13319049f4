"""Measures of samples where the truth is known, the density of codes, and the script in tiny form."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from dlvm.distributions import ConstantScaleNormal, FixedScale
from dlvm.experiments import autoencoders
from dlvm.experiments.data import digits
from dlvm.experiments.generated.ex_post import fitted_guide, with_density, with_flow
from dlvm.experiments.generated.two_samples import Components, c2st, precision_recall
from dlvm.inference import evaluate
from dlvm.models import VAE
from dlvm.nets import MLP, Corrupted, SpectralLinear


def normal(seed: int, n: int = 400, shift: float = 0.0) -> torch.Tensor:
    return shift + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_a_classifier_is_at_chance_for_equal_distributions_and_not_for_others():
    same, other = c2st(normal(0), normal(1)), c2st(normal(0), normal(1, shift=1.5))
    assert abs(same.accuracy - 0.5) < 3 * same.error and same.error == pytest.approx(0.025, abs=1e-3)
    assert other.accuracy > 0.85 and other.error < same.error


def test_precision_and_recall_are_1_for_equal_sets_0_for_disjoint_ones_and_differ_where_a_part_is_covered():
    x = normal(0)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)
    part = x[:200]
    covered = precision_recall(torch.cat([part, part + 100]), normal(1, 200))
    assert covered.precision > 0.9 and covered.recall < 0.52


def test_components_are_those_of_most_variance():
    x = normal(0) * torch.tensor([1.0, 10.0, 0.1])
    found = Components(x, 2)(x)
    assert found.shape == (400, 2) and found.mean(0).abs().max() < 1e-4
    assert found.var(0).tolist() == pytest.approx([x[:, 1].var().item(), x[:, 0].var().item()], rel=0.05)


def test_what_is_no_pair_of_samples_is_refused():
    for one, other in ((normal(0, 5), normal(1)), (normal(0), normal(1)[:, :2]), (normal(0)[0], normal(1))):
        with pytest.raises(ValueError, match="samples must have at least 20 rows and as many columns"):
            c2st(one, other)
    with pytest.raises(ValueError, match="neighbours must be at least 1 and below the number of rows, got 400"):
        precision_recall(normal(0), normal(1), 400)


@pytest.fixture(scope="module")
def linear() -> VAE:
    """z in the plane, x = z with noise of 0.5."""
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.eye(2))
        net.bias.zero_()
    return VAE(2, ConstantScaleNormal(net, FixedScale(0.5)))


@pytest.mark.slow
def test_a_density_of_codes_makes_a_model_with_a_log_px_that_a_fitted_guide_estimates(linear):
    """With one Gaussian of codes, p(x) is Gaussian too: exact."""
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    codes = noise @ torch.tensor([[1.0, 0.6], [0.0, 0.5]]) + 0.3
    later = with_density(linear, codes, components=1)
    drawn = later(n=4000)
    assert drawn.mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.15) and later.likelihood is linear.likelihood
    x = drawn[:40].detach()
    prior = later.prior()
    exact = torch.distributions.MultivariateNormal(
        later.prior.loc[0], prior.component_distribution.covariance_matrix[0] + 0.25 * torch.eye(2)
    )

    class Batches(list):
        examples = (x,)

    guide = fitted_guide(later, MLP(2, 4), Batches([(x,)]), epochs=2)
    found = evaluate(later, guide, x, num_particles=4000)
    assert found.log_px == pytest.approx(exact.log_prob(x).mean().item(), abs=0.05)
    assert all(p.requires_grad for p in later.parameters())


@pytest.mark.slow
def test_a_flow_of_codes_bends_where_gaussians_cannot(linear):
    """Codes on a parabola: held-out codes are likelier than under one Gaussian, and near their entropy."""
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    codes = torch.stack([noise[:, 0], noise[:, 0].square() + 0.3 * noise[:, 1]], -1)
    later = with_flow(linear, codes[:1000], epochs=60)
    assert later.likelihood is linear.likelihood and not any(p.requires_grad for p in later.prior.parameters())
    entropy = 1 + math.log(2 * math.pi) + math.log(0.3)
    found, one = (
        m.prior().log_prob(codes[1000:]).mean().item() for m in (later, with_density(linear, codes[:1000], 1))
    )
    assert one + 0.5 < found < -entropy + 0.1 and found > -entropy - 0.25
    assert later(n=5).shape == (5, 2)


def test_data_are_corrupted_while_training_alone():
    net, x = Corrupted(nn.Linear(4, 4), drop=0.5, scale=0.0), torch.ones(2000, 4)
    with torch.no_grad():
        net.net.weight.copy_(torch.eye(4))
        net.net.bias.zero_()
    seen = net(x)
    assert set(seen.unique().tolist()) == {0.0, 1.0} and seen.mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(net.eval()(x), x)
    noisy = Corrupted(net.net, drop=0.0, scale=2.0)
    assert (noisy(x) - x).std().item() == pytest.approx(2.0, rel=0.05)


@pytest.mark.slow
def test_the_script_says_which_numbers_are_of_another_model_than_was_trained(tmp_path, capsys):
    setup = autoencoders.VAESetup(2, (8,))
    small = {"setup": setup, "seeds": 1, "epochs": 1, "eval_particles": 10, "gaussians": 2}
    config = autoencoders.Config(ways=("ae", "vae", "aae"), **small, out=tmp_path / "run")
    rows = autoencoders.main(config)
    assert [row["point"] for row in rows] == [True, False, False]
    said = capsys.readouterr().out
    assert "autoencoder *" in said and "adversarial AE *" not in said
    verdict = json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert verdict.endswith("Trained outside the bound: autoencoder, adversarial AE.")


@pytest.mark.slow
def test_the_script_bounds_a_decoder_and_fits_a_flow_to_its_codes(tmp_path):
    setup = autoencoders.VAESetup(2, (8,))
    config = autoencoders.Config(
        ways=("rae_sn",), ex_post="flow", setup=setup, seeds=1, epochs=2, eval_particles=10, out=tmp_path / "run"
    )
    (row,) = autoencoders.main(config)
    assert row["point"] and math.isfinite(row["log_px"])
    assert "a flow fitted to the codes" in (tmp_path / "run" / "report.html").read_text()
    data = digits(binarize="dynamic").train
    model, _ = autoencoders.pair(config, "rae_sn", data)
    layers = [m for m in model.likelihood.modules() if isinstance(m, nn.Linear)]
    assert layers and {type(layer) for layer in layers} == {SpectralLinear}


def test_the_script_refuses_what_it_does_not_compare(tmp_path):
    with pytest.raises(ValueError, match="prior is N\\(0, I\\) here"):
        autoencoders.main(autoencoders.Config(setup=autoencoders.VAESetup(prior="vamp"), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
