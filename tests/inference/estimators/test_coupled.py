"""DisARM: its mean over every draw and every twin is the enumerated gradient; what it covers, and what it refuses."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.discrete_programs import PROGRAMS, bits, errors
from oracles.forcing import golden_sbn, gradient
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dlvm.inference import CIWAE, CUBO, ELBO, IWAE, MIWAE, PIWAE, TVO, DisARM, Renyi, VRMax, tempered
from dlvm.inference.estimators import coupled
from dlvm.inference.particles.descent import drawn_from
from dlvm.inference.programs.pair import Pair

pytestmark = pytest.mark.usefixtures("float64")
BOUNDS = {
    "ELBO": partial(ELBO, 2),
    "IWAE": partial(IWAE, 2),
    "Renyi(-1)": partial(Renyi, -1.0, 2),
    "VRMax": partial(VRMax, 2),
    "MIWAE": partial(MIWAE, 1, 2),
    "CIWAE": partial(CIWAE, 0.3, 2),
    "TVO": partial(TVO, 2, 3, 0.2),
}


class First(Messenger):
    """Around everything: sites that nothing else gives a value take these."""

    def __init__(self, values: dict[str, Tensor]):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values and not msg["done"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def every_pair(monkeypatch, num_particles: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all draws (K, rows, D) with all choices of which bits move; and how likely each row is."""
    rows = bits(2, num_particles, len(logits))
    chance = torch.sigmoid((2 * rows[:, 0] - 1) * logits.detach())  # of each bit
    move = (1 / chance - 1).clamp_max(1.0)
    mass = (chance * torch.where(rows[:, 1] == 1, move, 1 - move)).flatten(1).prod(1)
    value, moved = (part.transpose(0, 1).squeeze(0) for part in rows[mass > 0].unbind(1))
    monkeypatch.setattr(coupled, "_uniform", lambda like: (1 - moved).reshape(like.shape))
    return value, mass[mass > 0]


@pytest.mark.parametrize("name", BOUNDS)
def test_the_mean_over_every_pair_is_the_gradient_of_every_bound(monkeypatch, name):
    lattice, parameters = golden_sbn()
    objective = BOUNDS[name](estimator=DisARM())
    value, mass = every_pair(monkeypatch, 2, parameters[-1])
    assert_close(mass.sum(), 1.0, 1e-12)
    expected = gradient(lattice.expected(objective.bound, 2), parameters)
    pair = (poutine.scale(program, scale=mass) for program in (lattice.model, lattice.guide))
    with First({"h": value}):
        loss = objective.differentiable_loss(*pair, lattice.x.expand(len(mass), -1))
    assert expected[-2:].abs().min() > 1e-3
    assert_close(-gradient(loss, parameters), expected, 1e-10)


@pytest.mark.parametrize("objective", [ELBO, IWAE], ids=lambda objective: objective.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_unbiased_for_layers_classes_and_sites_beside_continuous_ones(name, objective):
    """Within its standard errors of the enumerated gradient, in every parameter of both programs."""
    made = objective(num_particles=2, estimator=DisARM())
    found = errors(made, *PROGRAMS[name]())
    assert found.abs().max() < 5, found
    assert (found != 0).sum() > 6


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_unbiased_to_many_digits(name):
    lattice, parameters = PROGRAMS[name]()
    fine = lattice._replace(nodes=max(lattice.nodes, 20))  # 10 nodes are off by seven of these standard errors
    for made in (ELBO(1, DisARM()), IWAE(2, DisARM())):
        assert errors(made, fine, parameters, rows=10_000, repeats=100).abs().max() < 4.5


def test_a_tempered_bound_has_the_gradient_of_its_own_value():
    lattice, parameters = golden_sbn()
    value, mass = (None, None)
    with pytest.MonkeyPatch.context() as patch:
        value, mass = every_pair(patch, 2, parameters[-1])
        pair = [poutine.scale(program, scale=mass) for program in (lattice.model, lattice.guide)]
        x = lattice.x.expand(len(mass), -1)
        with First({"h": value}):
            found = -gradient(tempered(ELBO(2, DisARM()), 0.3).differentiable_loss(*pair, x), parameters)
    z, prior, q = bits(2), parameters[0], parameters[-1]
    log_q = dist.Bernoulli(logits=q).to_event(1).log_prob(z)
    log_prior = dist.Bernoulli(logits=prior).to_event(1).log_prob(z)
    with poutine.block(), poutine.condition(data={"h": z}):
        trace = poutine.trace(lattice.model).get_trace(lattice.x.expand(4, -1))
        trace.compute_log_prob()
    cold = trace.nodes["x"]["log_prob"] + 0.3 * (log_prior - log_q)
    assert_close(found, gradient(log_q.exp() @ cold, parameters), 1e-10)


def test_rows_scales_and_masks_count_as_often_as_their_data():
    """One row at a time, with what it draws; a scale, a subsampled plate and a mask change its share alone."""
    logits, slope = torch.tensor([0.4, -0.8], requires_grad=True), torch.tensor([1.2, -0.5], requires_grad=True)
    x = torch.tensor([[0.3], [-1.0], [0.8]])
    value, moved = torch.rand(2, 3, 2).round(), torch.tensor([[[1.0, 0], [0, 1], [1, 1]], [[1, 1], [1, 0], [0, 1]]])

    def model(x, size=None):
        with pyro.plate("data", size or len(x), subsample_size=len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=slope).to_event(1))
            pyro.sample("x", dist.Normal((z * slope).sum(-1, True), 1.0).to_event(1), obs=x)

    def guide(x, size=None):
        with pyro.plate("data", size or len(x), subsample_size=len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits + x).to_event(1))

    def found(rows=slice(None), wrap=lambda program: program, **size):
        with pytest.MonkeyPatch.context() as patch, First({"z": value[:, rows]}):
            patch.setattr(coupled, "_uniform", lambda like: 1 - moved[:, rows])
            loss = IWAE(2, DisARM()).differentiable_loss(wrap(model), wrap(guide), x[rows], **size)
            return gradient(loss, [logits, slope])

    single = torch.stack([found(slice(i, i + 1)) for i in range(3)])
    scale, kept = torch.tensor([2.0, 0.5, 3.0]), torch.tensor([True, False, True])
    assert (single.abs() > 1e-3).any(1).all()
    assert_close(found(), single.sum(0))
    assert_close(found(wrap=partial(poutine.scale, scale=scale), size=300), 100 * scale @ single)
    assert_close(found(wrap=partial(poutine.mask, mask=kept)), single[kept].sum(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_bits_and_classes_stay_and_leave_no_nan(dtype):
    sure = torch.tensor([torch.inf, -torch.inf, 200.0, -200.0, 0.0], dtype=dtype).requires_grad_()
    certain = torch.tensor([1.0, 0.0, 1.0, 0.0])
    value = torch.cat([certain, torch.ones(1)]).to(dtype)
    fn = dist.Bernoulli(logits=sure, validate_args=False).to_event(1)
    twin, ratio = coupled.twin_of(fn, value)
    assert twin.dtype == dtype and ratio.isfinite()
    assert torch.equal(twin[:4], value[:4]) and twin[4] == 0
    (slope,) = torch.autograd.grad(ratio, sure)
    assert_close(slope, [0, 0, 0, 0, 0.5])
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.0, 0.0, -torch.inf]], dtype=dtype).requires_grad_()
    twin, ratio = coupled.twin_of(dist.Categorical(logits=logits), torch.tensor([0, 1]))
    assert twin.tolist() == [0, 0]
    assert_close(torch.autograd.grad(ratio.sum(), logits)[0], [[0, 0, 0], [-0.5, 0.5, 0]])
    twin, _ = coupled.twin_of(dist.Bernoulli(probs=torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]))
    assert twin.tolist() == [0, 1]


@pytest.mark.parametrize("logits", [[0.3, -1.0, 0.5, 0.0], [2.0, 0.0, 0.0, -3.0], [0.7, -0.4]])
def test_a_class_and_its_twin_are_exchangeable_and_seldom_the_same(logits):
    """c(b, b~) = q(b) q(b~) / (1 - min(q(b), q(b~))), which for two classes is the coupling of antithetic numbers."""
    pyro.set_rng_seed(0)
    fn, count = dist.Categorical(logits=torch.tensor(logits)), 100_000
    b = fn.sample((count,))
    twin, _ = coupled.twin_of(fn.expand((count,)), b)
    q = fn.probs
    coupling = q * q[:, None] / (1 - torch.minimum(q, q[:, None]))
    coupling = coupling - coupling.diag().diag()
    coupling = coupling + (q - coupling.sum(0)).diag()
    shares = torch.bincount(b * len(q) + twin, minlength=len(q) ** 2).reshape(len(q), -1) / count
    assert (shares - coupling).abs().max() < 4 * 0.5 / count**0.5
    if len(q) == 2:
        assert_close(coupling[0, 1], q.min(), 1e-12)
        assert_close(coupling.diag().min(), 0.0, 1e-12)


def test_what_is_drawn_from_a_site_is_found_where_it_passes_as_a_number():
    def guide(x):
        with pyro.plate("data", 1):
            y = pyro.sample("y", dist.Bernoulli(torch.tensor([0.5])))
            pyro.sample("z", dist.Bernoulli(torch.tensor([0.2 + 0.5 * y.item()])))
            pyro.sample("v", dist.Bernoulli(torch.tensor([0.3])))

    assert drawn_from(Pair(guide, guide), (torch.zeros(1),), {})["y"] == {"z"}


def test_refusals_in_words():
    def program(x, obs=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Poisson(torch.ones(2)))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x) if obs else None

    with pytest.raises(ValueError, match=r"no twin for 'y' \(Poisson\).*pass estimator=VIMCO\(\) or ScoreFunction\(\)"):
        ELBO(2, DisARM()).loss(partial(program, obs=True), program, torch.zeros(2))
    with pytest.raises(ValueError, match=r"DisARM\(\) is not defined for CUBO; use Total"):
        CUBO(2, 3, DisARM())
    with pytest.raises(ValueError, match="guide="):
        PIWAE(2, 2, DisARM())
    with pytest.raises(ValueError, match="analytic_kl=True leaves no sampled log q for DisARM"):
        ELBO(2, DisARM(), analytic_kl=True)
