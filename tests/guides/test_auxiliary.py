"""An auxiliary variable makes a guide richer, and its bound stays below that of the marginal."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, assert_close, gauss_hermite
from oracles.forcing import Forced
from pyro import poutine
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, latents
from dlvm.guides.auxiliary import Augmented
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, check, evaluate, log_weights
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

XS = torch.stack([X_1, -X_1, X_1 + 1])


def linear_pair(dim=1):
    """The golden model, a linear reverse model, and a guide whose every conditional is diagonal and linear."""
    pyro.set_rng_seed(0)
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5).requires_grad_(False)
    augmented = Augmented(model, latents(model, XS), MLP(4, activation=nn.Identity), dim, hidden=()).double()
    settings = {"encoder": MLP(4, activation=nn.Identity), "hidden": ()}
    return augmented, Diagonal(augmented.latents, **settings).double()


def trained(augmented, guide):
    """By L-BFGS on the exact expectation: log w is quadratic in three numbers of noise."""
    nodes, log_weight = gauss_hermite(2, 3)
    rows, weight = XS.repeat_interleave(len(nodes), 0), log_weight.exp().repeat(len(XS)) / len(XS)
    noise = nodes.repeat(len(XS), 1)
    forced = Forced({}, {"a": noise[:, :1], "z": noise[:, 1:]})(guide)
    programs = [poutine.scale(program, scale=weight) for program in (augmented, forced)]
    parameters = [p for p in (*augmented.parameters(), *guide.parameters()) if p.requires_grad]
    settings = {"tolerance_grad": 1e-9, "tolerance_change": 1e-11, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(parameters, max_iter=800, history_size=30, **settings)

    def closure():
        optimizer.zero_grad()
        loss = ELBO().differentiable_loss(*programs, rows)
        loss.backward()
        return loss

    optimizer.step(closure)
    return -ELBO().loss(*programs, rows)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_diagonal_conditionals_and_one_auxiliary_number_reach_any_gaussian_of_two():
    """Sigma = D + b b' for the marginal, and a linear reverse model is exact: gap 0, where diagonal q loses .00457."""
    augmented, guide = linear_pair()
    assert_close(GOLDEN_1.log_px(XS).mean() - trained(augmented, guide), 0.0, 1e-7)


@pytest.mark.usefixtures("float64")
def test_its_bound_is_below_that_of_the_marginal_by_the_reverse_models_divergence():
    """For linear conditionals that fit nothing: the marginal of q and its exact reverse in closed form."""
    augmented, guide = linear_pair()
    x = XS[:1]
    a, z = (poutine.trace(guide).get_trace(x).nodes[name]["fn"].base_dist for name in ("a", "z"))
    h, head = guide.features(x), guide.posteriors[1]
    zeros, ones = (head(h, torch.full((1, 1), v)).base_dist.loc for v in (0.0, 1.0))
    slope = (ones - zeros)[0]
    marginal = Gaussian((zeros + slope * a.loc)[0], torch.diag(z.variance[0]) + a.variance * torch.outer(slope, slope))
    elbo = GOLDEN_1.elbo(x[0], marginal)
    pyro.set_rng_seed(1)
    draws = log_weights(augmented, guide, x.expand(200_000, -1))[0]
    se = draws.std() / len(draws) ** 0.5
    assert draws.mean() + 4 * se < elbo < GOLDEN_1.log_px(x[0])


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_importance_sampling_with_it_is_unbiased_for_the_models_own_evidence():
    augmented, guide = linear_pair()
    trained(augmented, guide)
    found = evaluate(augmented, guide, XS, num_particles=2000)
    assert_close(found.log_px, GOLDEN_1.log_px(XS).mean(), 4 * found.log_px_se + 1e-6)


@pytest.mark.parametrize("Guide", [Diagonal, pytest.param(partial(IAF, width=8, depth=1), marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3, DReG()), ELBO(2, STL())], ids=repr)
def test_every_parameter_learns_and_captured_steps_are_the_eager_ones(Guide, objective):
    runs = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(0)
        x = (torch.rand(6, 5) > 0.5).float()
        model = VAE(2, Bernoulli(MLP(2, 6, 5)))
        augmented = Augmented(model, latents(model, x), MLP(5, 6), dim=3)
        guide = Guide(augmented.latents, MLP(5, 6))
        assert check(augmented, guide, objective, x) == {"a": "Monte Carlo", "z": "Monte Carlo"}
        before = [p.clone() for p in (*augmented.parameters(), *guide.parameters())]
        svi = SVI(augmented, guide, partial(torch.optim.SGD, lr=1e-2), objective, engine=engine)
        losses = [svi.step(x) for _ in range(4)]
        after = [p.detach() for p in (*augmented.parameters(), *guide.parameters())]
        assert all((a != b).any() for a, b in zip(before, after, strict=True))
        runs.append((losses, after))
    assert runs[0][0] == runs[1][0] and all(map(torch.equal, runs[0][1], runs[1][1]))


def test_a_second_site_of_that_name_and_missing_data_are_refused():
    augmented, _ = linear_pair()
    with pytest.raises(ValueError, match="a site named 'a' already"):
        Augmented(augmented, augmented.latents, MLP(4, 3), 1)
    with pytest.raises(ValueError, match="needs data"):
        augmented(None)
