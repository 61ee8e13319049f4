"""STL and DReG where they cost nothing, where they agree with the total derivative, and how they scale with K."""

from __future__ import annotations

import math
from copy import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_SNR, TWO_LAYER, X_1, assert_close, golden_toy, snr
from oracles.forcing import gradient
from pyro.distributions.transforms import LowerCholeskyAffine

from dlvm.guides import IAF, FullRank, latents
from dlvm.inference import CIWAE, ELBO, IWAE, MIWAE, STL, TVO, Coefficients, DReG, Estimator, Renyi, Total
from dlvm.models import PPCA
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
XS = torch.stack([X_1, -X_1, X_1 + 1])
ZERO = [
    ELBO(1, STL()),
    ELBO(3, DReG()),
    IWAE(5, DReG()),
    IWAE(5, STL()),
    MIWAE(2, 3, DReG()),
    CIWAE(0.3, 4, DReG()),
    TVO(4, 3, estimator=DReG()),
    Renyi(0.5, 5, DReG()),
]


def leaf(value) -> torch.Tensor:
    return value.detach().clone().requires_grad_()


def exact_full_rank():
    """q(z | x) = N(A x + b, L L') at the posterior of golden model 1."""
    sigma = torch.linalg.inv(GOLDEN_1.precision)
    gain = sigma @ GOLDEN_1.weight.T / GOLDEN_1.s2
    phi = [leaf(gain), leaf(-gain @ GOLDEN_1.mu), leaf(torch.linalg.cholesky(sigma))]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x @ phi[0].T + phi[1], scale_tril=phi[2].tril()))

    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, GOLDEN_1.s2.sqrt()), guide, phi


def exact_linear_flow():
    """The same by one linear autoregressive step z = L y with L of unit diagonal, on diagonal noise."""
    model, _, (gain, shift, tril) = exact_full_rank()
    scale = tril.detach().diagonal()
    unit = tril.detach() / scale
    phi = [leaf(torch.linalg.solve(unit, part)) for part in (gain, shift.unsqueeze(-1))] + [leaf(scale), leaf(unit)]

    def guide(x):
        loc = x @ phi[0].T + phi[1].squeeze(-1)
        step = LowerCholeskyAffine(torch.zeros(2), phi[3].tril(-1) + torch.eye(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(loc, phi[2]).to_event(1), [step]))

    return model, guide, phi


def exact_layers(order: str):
    """Both layers of the golden two, in either order, at their posterior."""
    first, second = getattr(TWO_LAYER, order)(XS)
    names = ("z1", "z2") if order == "bottom_up" else ("z2", "z1")
    tril = torch.linalg.cholesky
    phi = [leaf(part) for part in (first.loc, tril(first.cov), second.weight, second.loc, tril(second.cov))]
    theta = [leaf(part) for part in (TWO_LAYER.upper, TWO_LAYER.lower)]

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ theta[0].T, TWO_LAYER.s1.sqrt()).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ theta[1].T, TWO_LAYER.s2.sqrt()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, given = (part.repeat(len(x) // 3, 1) for part in (phi[0], phi[3]))
            z = pyro.sample(names[0], dist.MultivariateNormal(loc, scale_tril=phi[1].tril()))
            pyro.sample(names[1], dist.MultivariateNormal(z @ phi[2].T + given, scale_tril=phi[4].tril()))

    model.parameters = lambda: theta
    return model, guide, phi


PAIRS = {
    "full rank": exact_full_rank,
    "linear flow": exact_linear_flow,
    "bottom-up": partial(exact_layers, "bottom_up"),
    "top-down": partial(exact_layers, "top_down"),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("objective", ZERO, ids=repr)
def test_at_the_posterior_the_guide_gets_no_gradient_at_all(objective, name):
    """To 1e-10 for every single draw, where the total derivative is noise; theta gets what it gets from Total."""
    model, guide, phi = PAIRS[name]()
    theta = list(model.parameters())
    plain = copy(objective)
    plain._modules = {**objective._modules, "estimator": Total()}
    found, noisy = ([gradient(_loss(one, model, guide), part) for part in (phi, theta)] for one in (objective, plain))
    assert found[0].abs().max() < 1e-10 and noisy[0].abs().max() > 0.1
    assert_close(found[1], noisy[1], 1e-9)


def test_an_estimator_of_ones_own_is_one_method():
    """STL again; one that says nothing is told what to define."""

    class Path(Estimator):
        def coefficients(self, bound, particles):
            slope = bound.slopes(particles.log_w)
            return Coefficients(slope, slope, slope)

    model, guide, phi = exact_layers("bottom_up")
    found, expected = (gradient(_loss(IWAE(3, made), model, guide), phi) for made in (Path(), STL()))
    assert torch.equal(found, expected)
    for single in (IWAE(3, Estimator()), ELBO(1, Estimator())):
        with pytest.raises(NotImplementedError, match=r"Estimator must define coefficients\(bound, particles\)"):
            _loss(single, model, guide)


def _loss(objective, model, guide):
    pyro.set_rng_seed(1)
    return objective.differentiable_loss(model, guide, XS)


def built(kind: str):
    """A guide that is off, and every parameter of it."""
    if kind == "layers":
        model, guide, phi = exact_layers("bottom_up")
        with torch.no_grad():
            for part in phi:
                part.add_(0.1)
        return model, guide, phi
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 1.5)
    guide = {"FullRank": FullRank, "IAF": partial(IAF, depth=1)}[kind](latents(model, XS), MLP(4, 3)).double()
    return model, guide, list(guide.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FullRank", "IAF", "layers"])
def test_dreg_has_the_mean_of_the_total_derivative(kind):
    """Paired by seed, K = 4: |t| < 4.5 for the worst coordinate, where STL's is far larger."""
    model, guide, phi = built(kind)
    found = {}
    for name, estimator in (("total", Total()), ("dreg", DReG()), ("stl", STL())):
        rows = []
        for seed in range(24):
            pyro.set_rng_seed(seed)
            rows.append(gradient(IWAE(4, estimator).differentiable_loss(model, guide, XS.repeat(150, 1)), phi))
        found[name] = torch.stack(rows)

    def worst(name):
        difference = found[name] - found["total"]
        moving = difference.std(0) > 1e-9
        return (difference.mean(0) / difference.std(0))[moving].abs().max().item() * math.sqrt(24)

    assert worst("dreg") < 4.5 and worst("stl") > 6


def test_signal_to_noise_ratios_are_the_golden_ones():
    """Rainforth's toy through our objectives: b's falls with K by IWAE and rises by DReG; mu's rises."""
    toy, x = golden_toy()
    counts = (1, 4, 16, 64)
    ratios = {name: [] for name in ("iwae", "dreg", "mu")}
    for k in counts:
        n = 10_000 if k < 64 else 4_000
        found = {}
        for name, estimator in (("iwae", Total()), ("dreg", DReG())):
            b, mu = leaf(toy.b.expand(n, -1)), leaf(toy.mu.expand(n, -1))  # a copy for each row

            def model(x, mu=mu):
                with pyro.plate("data", len(x)):
                    z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

            def guide(x, b=b):
                with pyro.plate("data", len(x)):
                    pyro.sample("z", dist.Normal(x @ toy.A.T + b, math.sqrt(2 / 3)).to_event(1))

            pyro.set_rng_seed(k)
            loss = IWAE(k, estimator).differentiable_loss(model, guide, x.expand(n, -1))
            found[name], found["mu"] = torch.autograd.grad(loss, [b, mu])
        for name, rows in found.items():
            signal = rows.mean(0) if name == "mu" else found["dreg"].mean(0)
            ratios[name].append(snr(rows, signal).mean().item())
    for name, found in ratios.items():
        for value, golden in zip(found, GOLDEN_SNR[name], strict=False):
            assert abs(value / golden - 1) < 0.1, (name, ratios)
    slopes = {name: math.log(found[3] / found[2]) / math.log(4) for name, found in ratios.items()}
    assert -0.6 < slopes["iwae"] < -0.35 and 0.2 < slopes["dreg"] < 0.55 and 0.35 < slopes["mu"] < 0.55
