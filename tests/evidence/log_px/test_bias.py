"""How far means of log p(x) are off, against what they say of it: two-dimensional decoders, log p(x) by quadrature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pyro
import pytest
import torch
from torch import Tensor

from dlvm.distributions import Bernoulli
from dlvm.evidence import Estimate, annealed, defensive, importance, prior_sampling, quadrature, simulate
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, fit
from dlvm.models import VAE
from dlvm.nets import MLP

REPEATS = 20


class Case(NamedTuple):
    model: VAE
    guide: Diagonal
    x: Tensor
    truth: Tensor


@pytest.fixture(scope="module", params=[3.0, 6.0], ids="steepness {}".format)
def case(request) -> Case:
    """A decoder whose posteriors are the less Gaussian the steeper it is, and a guide fitted to it."""
    pyro.set_rng_seed(0)
    model = VAE(2, Bernoulli(MLP(2, 16, 20)))
    with torch.no_grad():
        for parameter in model.likelihood.parameters():
            parameter.mul_(request.param)
    model.requires_grad_(False).eval()
    x = simulate(model, 60, 1).args[0]
    guide = Diagonal(latents(model, x), MLP(20, 32))
    train = simulate(model, 1000, 2).args[0].split(250)
    adam = partial(torch.optim.Adam, lr=1e-2)
    list(fit(model, guide, ELBO(4), train, epochs=60, optimizer=adam, seed=0, progress=False, engine="eager"))
    return Case(model, guide, x, quadrature(model, x).log_px)


class Found(NamedTuple):
    """Of repeats: the share within 2 SE and within twice the larger of SE and bias; then of single data, by k-hat."""

    by_error: float
    by_both: float
    fine_off: float
    heavy_off: float
    fine_held: float


def repeated(estimate: Callable[[int], Estimate], truth: Tensor, repeats: int = REPEATS) -> Found:
    all_found = [estimate(seed) for seed in range(repeats)]
    off = [abs(found.mean - truth.mean().item()) for found in all_found]
    by_error = [o <= 2 * found.mean_se for o, found in zip(off, all_found, strict=True)]
    by_both = [o <= 2 * max(found.mean_se, found.mean_bias) for o, found in zip(off, all_found, strict=True)]
    each = torch.cat([(found.log_px - truth).abs() for found in all_found])
    khat, se, bias = (torch.cat([getattr(f, name) for f in all_found]) for name in ("khat", "log_px_se", "log_px_bias"))
    fine = khat <= 0.7
    held = (each <= 2 * torch.maximum(se, bias))[fine].double().mean().item()
    return Found(sum(by_error) / repeats, sum(by_both) / repeats, each[fine].mean().item(),
                 each[khat > 0.7].mean().item(), held)  # fmt: skip


@pytest.mark.slow
def test_the_error_of_the_mean_is_within_twice_the_larger_of_error_and_bias(case):
    """Measured at K = 30, 100, 300 and 1000, the share of 20 repeats (importance: of 40):

    | steepness 3 | within 2 SE | twice max(SE, half the relative variance) | twice max(SE, bias) |
    |---|---|---|---|
    | importance | .68 .57 .68 .78 | .75 .60 .70 .80 (of 20) | .90 .82 .78 .82 |
    | prior | .75 .90 1.0 .85 | .85 .90 1.0 .85 | 1.0 .95 1.0 .85 |
    | defensive | .80 .90 .95 .90 | .80 .90 .95 .90 | .95 .95 .95 .90 |
    | **steepness 6** | | | |
    | importance | .03 .05 .12 .15 | .05 .05 .15 .20 (of 20) | .88 .97 .95 .62 |
    | prior | .10 .60 .75 .90 | .55 .90 .75 .90 | 1.0 1.0 1.0 1.0 |
    | defensive | .25 .40 .55 .70 | .25 .40 .55 .70 | .85 1.0 1.0 .95 |

    The jackknife in place of half the relative variance gave .15 to .4 for importance sampling on like decoders. AIS
    with 30 and 100 chains: .80 to 1.0 of 10. What no weight tells of stays unseen: what the guide never reaches. For
    draws from the prior, whose weights' tail is bounded and looks heavy, the bias is stated too large, by up to ten
    times.
    """
    model, guide, x, truth = case
    methods = {
        "importance": partial(importance, model, guide, x, engine="eager"),
        "prior": partial(prior_sampling, model, x, engine="eager"),
        "defensive": partial(defensive, model, guide, x),
    }
    for name, method in methods.items():
        found = [repeated(lambda seed: method(k, seed=seed), truth) for k in (30, 100, 300, 1000)]  # noqa: B023
        shares = [each.by_both for each in found]
        assert sum(shares) / 4 >= (0.75 if name == "importance" else 0.9), (name, shares)
        assert min(shares) >= (0.5 if name == "importance" else 0.8), (name, shares)
        assert all(each.by_both >= each.by_error for each in found)
        for each in found[1:]:
            assert each.heavy_off > 1.2 * each.fine_off, (name, each)  # k-hat's advice
            assert each.fine_held > 0.6, (name, each)
    few = partial(annealed, model, x[:20], num_chains=30, temperatures=60, leaps=3, rows=20)
    assert repeated(lambda seed: few(seed=seed), truth[:20], repeats=10).by_both >= 0.7
