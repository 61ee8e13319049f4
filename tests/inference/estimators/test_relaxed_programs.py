"""Programs that estimators of discrete sites were not written for: inner plates, masks, impossible classes, jumps."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles.forcing import gradient
from pyro import poutine

from dlvm.inference import ELBO, IWAE, REBAR, RELAX, VIMCO, DisARM, GumbelRao, GumbelSoftmax, StraightThrough

THETA = [0.3, -0.6, 1.1, 0.8, -1.2, 0.5, 0.9]
PHI = [0.4, -0.3, 0.2, 0.7, 0.6, -0.5, 0.1]
IMPOSSIBLE = [0.0, -math.inf, 0.0]


class Waves(torch.nn.Module):
    """A surrogate of any width, with nothing to learn."""

    def forward(self, codes, x):
        return (codes * torch.linspace(-1, 1, codes.shape[-1]).to(codes)).sum(-1).sin()


ESTIMATORS = {"DisARM": DisARM, "REBAR": REBAR, "RELAX": partial(RELAX, Waves(), None), "both": partial(RELAX, Waves())}


def seen(loc):
    pyro.sample("x", dist.Normal(loc, 0.8), obs=torch.full_like(loc, 0.3))


def inner_plate(p, x, mask=True):
    """Bits of a datum in a plate of their own, one of them masked though the model goes by it."""
    with pyro.plate("parts", 3, dim=-2), poutine.mask(mask=torch.tensor([[True], [mask], [True]])):
        z = pyro.sample("z", dist.Bernoulli(logits=p[:3].unsqueeze(-1).expand(3, len(x))))
    return lambda: seen((p[3:6].unsqueeze(-1) * z).sum(-2) + p[6] * z[..., 0, :] * z[..., 1, :])


def inner_subsampled(p, x):
    with pyro.plate("parts", 3, subsample_size=2, dim=-2) as index:
        z = pyro.sample("z", dist.Bernoulli(logits=p[:3][index].unsqueeze(-1).expand(2, len(x))))

    def explain():
        with pyro.plate("seen", 3, subsample=index, dim=-2):
            seen(p[3:6][index].unsqueeze(-1) * z)

    return explain


def scaled_site(p, x):
    with poutine.scale(scale=0.4):
        y = pyro.sample("y", dist.Bernoulli(logits=p[0].expand(len(x))))
    z = pyro.sample("z", dist.Bernoulli(logits=p[1] + p[2] * y))
    return lambda: seen(p[3] * y + p[4] * z + p[5] * y * z)


def impossible_by_row(p, x):
    """A class that cannot be, another in each row, below a bit."""
    never = torch.tensor(IMPOSSIBLE).to(p).roll(1) + torch.zeros(len(x), 3).to(p)
    never[::2] = torch.tensor(IMPOSSIBLE).to(p)
    y = pyro.sample("y", dist.Bernoulli(logits=p[6].expand(len(x))))
    z = pyro.sample("z", dist.OneHotCategorical(logits=p[:3] + y.unsqueeze(-1) * p[3:6] + never))
    return lambda: seen((z * p[3:6]).sum(-1) + p[6] * z[..., 0] * y)


def rows_masked(p, x):
    kept = torch.arange(len(x)) % 3 > 0
    with poutine.mask(mask=kept):
        y = pyro.sample("y", dist.Bernoulli(logits=p[0].expand(len(x))))
    z = pyro.sample("z", dist.Bernoulli(logits=p[1] + p[2] * y * kept))
    return lambda: seen(p[3] * y * kept + p[4] * z)


def large_logits(p, x):
    z = pyro.sample(
        "z", dist.Bernoulli(logits=(p[:3] + torch.tensor([60.0, -6.0, 0.0]).to(p)).expand(len(x), 3)).to_event(1)
    )
    return lambda: seen((z * p[3:6]).sum(-1) + p[6] * z[..., 0] * z[..., 2])


def sure(p, x):
    probs = torch.stack([p[0].sigmoid(), torch.ones(()).to(p), torch.zeros(()).to(p)]).expand(len(x), 3)
    z = pyro.sample("z", dist.Bernoulli(probs=probs).to_event(1))
    return lambda: seen((z * p[3:6]).sum(-1))


PROGRAMS = {
    make.__name__: make
    for make in (inner_plate, inner_subsampled, scaled_site, impossible_by_row, rows_masked, large_logits, sure)
}
PROGRAMS["inner_masked"] = partial(inner_plate, mask=False)


def parts(make, dtype=torch.float64):
    theta, phi = (torch.tensor(numbers, dtype=dtype, requires_grad=True) for numbers in (THETA, PHI))

    def model(x):
        with pyro.plate("data", len(x)):
            make(theta, x)()

    def guide(x):
        with pyro.plate("data", len(x)):
            make(phi, x)

    return model, guide, [theta, phi]


def moments(estimator, make, dtype, objective=ELBO, rows=600, repeats=10):
    """Mean of gradients and its standard error; and those of what is learnt beside."""
    model, guide, parameters = parts(make, dtype)
    pyro.set_rng_seed(0)
    x, learnt, found = torch.zeros(rows, 1, dtype=dtype), [*estimator.parameters()], []
    for _ in range(repeats):
        loss = objective(2, estimator).differentiable_loss(model, guide, x) / rows
        found.append(gradient(loss, [*parameters, *learnt]).double())
    both = torch.stack(found)
    assert both.isfinite().all()
    width = len(THETA) + len(PHI)
    return both[:, :width].mean(0), both[:, :width].std(0) / math.sqrt(repeats)


@pytest.mark.slow
@pytest.mark.parametrize("word", ESTIMATORS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_unbiased_estimators_agree_with_vimco_on_programs_of_every_kind(name, word):
    for dtype in (torch.float64, torch.float32):
        mean, error = moments(ESTIMATORS[word](), PROGRAMS[name], dtype)
        expected, of_expected = moments(VIMCO(), PROGRAMS[name], dtype)
        assert (expected != 0).sum() > 3
        apart = (mean - expected).abs()
        assert (apart <= 5 * (error.square() + of_expected.square()).sqrt() + 1e-5).all(), (dtype, apart)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_rao_blackwell_has_the_mean_of_straight_through_on_them(name):
    for dtype in (torch.float64, torch.float32):
        mean, error = moments(GumbelRao(0.7, 3), PROGRAMS[name], dtype)
        expected, of_expected = moments(StraightThrough(0.7), PROGRAMS[name], dtype)
        assert ((mean - expected).abs() <= 5 * (error.square() + of_expected.square()).sqrt() + 1e-5).all()


def jumps(how, p, x):
    """A bit and classes, one of which cannot be; the model reads one of them in a way that has no slope."""
    y = pyro.sample("y", dist.Bernoulli(logits=(8 * p[0]).expand(len(x))))
    z = pyro.sample("z", dist.OneHotCategorical(logits=(p[:3] + torch.tensor(IMPOSSIBLE)).expand(len(x), 3)))
    read = {
        "smooth": lambda: p[3] * y + (z * p[3:6]).sum(-1),
        "index": lambda: p[4:6][y.long()],
        "equal": lambda: torch.where(y == 1, p[3], p[4]),
        "argmax": lambda: p[3:6][z.argmax(-1)],
        "detached": lambda: p[3] * y.detach() + p[4] * z[..., 0],
        "rounded": lambda: (z.round() * p[3:6]).sum(-1) + p[3] * y,
    }
    return lambda: seen(read[how]())


@pytest.mark.parametrize("how", ["smooth", "index", "equal", "argmax", "detached", "rounded"])
def test_what_has_no_slope_in_soft_draws_is_refused_beside_impossible_classes_and_large_logits(how):
    model, guide, _ = parts(partial(jumps, how), torch.float32)
    pyro.set_rng_seed(0)
    for estimator in (REBAR(), GumbelSoftmax(), StraightThrough(), GumbelRao()):
        run = partial(IWAE(2, estimator).loss, model, guide, torch.zeros(8, 1))
        if how == "smooth":
            assert math.isfinite(run())
            continue
        said = "jumps where soft draws" if isinstance(estimator, REBAR) else "would train the guide without"
        if how in ("detached", "rounded") and not isinstance(estimator, REBAR):
            continue  # a part of it alone
        with pytest.raises(ValueError, match=f"{said}.*pass estimator=DisARM"):
            run()
    for estimator in (DisARM(), VIMCO(), RELAX(Waves(), None)):
        assert math.isfinite(IWAE(2, estimator).loss(model, guide, torch.zeros(8, 1)))
