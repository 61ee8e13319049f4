"""Principal components with random weights: the best bound shrinks singular values as is known, and prunes columns."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.initialization import init_to_value

from dlvm.evidence import posterior_predictive
from dlvm.experiments.setups.bayesian_pca import columns_used
from dlvm.guides import Diagonal, WithGlobals, latents, local_sites
from dlvm.inference import ELBO, SVI
from dlvm.models import ARD, PPCA, Bayesian
from dlvm.nets import MLP

N, D, NOISE, PRIOR = 40, 4, 0.5, 1.2


def data(rank: int, seed: int = 0) -> torch.Tensor:
    """N rows of D numbers in `rank` directions, of singular values that stand out, and noise."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, v = torch.linalg.qr(draw(N, rank))[0], torch.linalg.qr(draw(D, rank))[0]
    sizes = torch.linspace(12.0, 8.0, rank, dtype=torch.float64)
    return (u * sizes) @ v.T + 0.6 * NOISE * draw(N, D)  # less than the model has, or more would be kept


def pair(x, z_dim, prior):
    torch.manual_seed(0)
    model = Bayesian(PPCA(torch.randn(D, z_dim) / 2, torch.zeros(D), NOISE), N, prior, only=("weight",))
    for part in (model.model.loc, model.model.log_scale):
        part.requires_grad_(False)
    start = partial(AutoNormal, init_loc_fn=init_to_value(values=model.starts), init_scale=0.05)
    return model, WithGlobals(Diagonal(local_sites(latents(model, x)), MLP(D)), model, start, x)


def solution(size: float) -> tuple[float, float, float, float]:
    """Mean and variance of w and z along one pair of singular vectors, by coordinate ascent."""
    variance, w, s_w, s_z = NOISE**2, size**0.5, 0.1, 0.1
    for _ in range(4000):
        s_z = 1 / (1 + (w**2 + D * s_w) / variance)
        z = s_z * size * w / variance
        s_w = 1 / (1 / PRIOR**2 + (z**2 + N * s_z) / variance)
        w = s_w * size * z / variance
    return w, s_w, z, s_z


def shrunken(size: float) -> float:
    """Nakajima, Sugiyama, Babacan, Tomioka, 2013: the singular value of E[Z] E[W]^T at the best bound, 0 if pruned."""
    variance = NOISE**2
    half = (D + N) / 2 * variance + variance**2 / (2 * PRIOR**2)
    least = math.sqrt(half + math.sqrt(half**2 - D * N * variance**2))
    root = math.sqrt((N - D) ** 2 + 4 * size**2 / PRIOR**2)
    return size * (1 - variance / (2 * size**2) * (D + N + root)) if size > least else 0.0


@pytest.mark.usefixtures("float64")
def test_the_best_bound_shrinks_singular_values_as_is_known_and_there_has_no_slope():
    """At the exact optimum, of two kept columns and one that is pruned, the mean gradient is 0 within its error."""
    x = data(2)
    u, sizes, v = torch.linalg.svd(x, full_matrices=False)
    found = [solution(size) for size in sizes[:3].tolist()]
    assert [shrunken(size) > 0 for size in sizes[:3].tolist()] == [True, True, False]
    for (w, _, z, _), size in zip(found, sizes[:3].tolist(), strict=True):
        assert w * z == pytest.approx(shrunken(size), abs=1e-6)

    model, guide = pair(x, 3, PRIOR)
    w, s_w, z, s_z = (torch.tensor(part) for part in zip(*found, strict=True))
    assert_close((u[:, :3] * z).T @ (x @ (v[:3].T / sizes[:3])), torch.diag(z), 1e-9)  # z_n = z / size v'x_n
    with torch.no_grad():
        guide.shared.locs.weight = v[:3].T * w
        guide.shared.scales.weight = s_w.sqrt().expand(D, 3).clone()
        head = guide.local.posteriors[0].head
        head.weight.copy_(torch.cat([(v[:3].T * (z / sizes[:3])).T, torch.zeros(3, D)]))
        head.bias.copy_(torch.cat([torch.zeros(3), s_z.sqrt().log()]))
    parameters = [p for p in guide.parameters() if p.requires_grad]

    def slopes(at: float) -> torch.Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            guide.shared.locs.weight = v[:3].T * w * at
        runs = []
        for _ in range(12):
            loss = ELBO(200).differentiable_loss(model, guide, x)
            runs.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        runs = torch.stack(runs)
        return runs.mean(0) / (runs.std(0) / len(runs) ** 0.5)

    assert slopes(1.0).abs().max() < 6 and slopes(1.05).abs().max() > 12


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_relevance_determination_prunes_the_columns_that_are_not_needed(rank):
    x = data(rank, seed=3).float()
    pyro.set_rng_seed(1)
    model, guide = pair(x, 4, ARD(4))
    adam = partial(torch.optim.Adam, lr=2e-2, foreach=False, fused=False)
    svi = SVI(model, guide, adam, ELBO(), engine="captured")
    for _ in range(3000):
        svi.step(x)
    found = posterior_predictive(model, guide)[0]
    scales = model.prior.scale.detach().sort(descending=True).values
    assert columns_used(found) == rank
    assert scales[rank - 1] > 3 * scales[rank]
