"""A run that stops being finite says where, and leaves parameters that can be used."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, SVI, NonFinite, Renyi, fit
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

pytestmark = pytest.mark.filterwarnings("ignore:Encountered NaN")
OBJECTIVES = [Trace_ELBO(), TraceMeanField_ELBO(), IWAE(3), Renyi(0.5, 2)]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)


class Turning:
    """Batches that are sound until their n-th iteration, and `bad` at one position from then on."""

    def __init__(self, batches, bad, position, sound=3):
        self.batches, self.bad, self.position, self.left = batches, bad, position, sound

    def __iter__(self):
        self.left -= 1
        for position, batch in enumerate(self.batches):
            yield (self.bad if self.left < 0 and position == self.position else batch,)


def data(n=6, width=3):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3))


def pair(Guide=Diagonal, width=3):
    pyro.set_rng_seed(11)
    model = PPCA(torch.randn(width, 2), torch.zeros(width), 0.8)
    return model, Guide(latents(model, data(width=width)), MLP(width, 6))


def values(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(left, right) for left, right in zip(a, b, strict=True))


def finite(*modules):
    return all(v.isfinite().all() for v in values(*modules))


def hole(x, value=math.nan):
    x = x.clone()
    x[len(x) // 2, x.shape[1] // 2] = value
    return x


@each_objective
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_data_in_mid_run_name_epoch_batch_and_argument(objective, value):
    model, guide = pair()
    batches = Turning([data(), data()], hole(data(), value), position=1, sound=5)
    kept = None
    with pytest.raises(NonFinite, match=r"^epoch \d+, batch 2: .*argument 0 of the batch \(data\)"):
        for _ in fit(model, guide, objective, batches, epochs=9, seed=0):
            kept = values(model, guide)
    assert kept and finite(model, guide) and same(values(model, guide), kept)


@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(3)], ids=lambda o: type(o).__name__)
def test_bad_data_are_recognised_in_a_batch_too_large_to_print(objective):
    """A validation error shows only the corners of a large tensor, and so need not show the NaN."""
    x = data(600, 4)
    model, guide = pair(width=4)
    with pytest.raises(NonFinite, match=r"epoch \d+, batch 1: .*argument 0 of the batch"):
        list(fit(model, guide, objective, Turning([x], hole(x), 0), epochs=9, seed=0))
    assert finite(model, guide)


def test_bad_data_without_validation_are_caught_by_the_loss():
    model, guide = pair()
    svi = SVI(model, guide, torch.optim.Adam, Trace_ELBO())
    svi.step(data())
    before = values(model, guide)
    with pyro.validation_enabled(False):
        with pytest.raises(
            NonFinite, match=r"loss nan, gradient norm nan: not finite in argument 0.*no step was taken"
        ):
            svi.step(hole(data()))
    assert same(values(model, guide), before)
    assert math.isfinite(svi.step(data())) and not same(values(model, guide), before)


def test_bad_data_given_by_keyword_are_located_too():
    model, _ = pair()

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.loc = nn.Parameter(torch.zeros(2))

        def forward(self, x=None):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))

    svi = SVI(model, Guide(), torch.optim.Adam, Trace_ELBO())
    svi.step(x=data())
    with pytest.raises(NonFinite, match="not finite in "):
        svi.step(x=hole(data()))


@pytest.mark.parametrize(("part", "name"), [("model", "loc"), ("guide", "encoder.layers.0.weight")])
def test_a_parameter_that_is_not_finite_is_named(part, name):
    model, guide = pair()
    svi = SVI(model, guide, torch.optim.Adam, IWAE(2))
    svi.step(data())
    with torch.no_grad():
        {"model": model, "guide": guide}[part].get_parameter(name).view(-1)[0] = math.nan
    with pytest.raises(NonFinite, match=f"not finite in parameter '{name}' of the {part}; no step was taken"):
        svi.step(data())


class Kink(PyroModule):
    """A loss that is finite where its gradient is not: the root of zero."""

    def __init__(self):
        super().__init__("model")
        self.loc = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            root = (self.loc - self.loc.detach()).sqrt()
            pyro.sample("x", dist.Normal(root, 1.0).to_event(1), obs=x)


@each_objective
def test_a_finite_loss_with_an_infinite_gradient_takes_no_step(objective):
    model = Kink()
    guide = Diagonal(latents(model, data()), MLP(3, 6))
    before = values(model, guide)
    svi = SVI(model, guide, torch.optim.Adam, objective)
    with pytest.raises(NonFinite, match=r"loss \d+.*gradient norm (nan|inf).*gradient of parameter 'loc' of the model"):
        svi.step(data())
    assert same(values(model, guide), before)
    assert all(parameter.grad is None for parameter in (*model.parameters(), *guide.parameters()))
    assert not svi.optimizer.state


def test_a_site_that_ceases_to_be_finite_is_named():
    class Bursting(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.runs, self.loc = 0, nn.Parameter(torch.zeros(3))

        def forward(self, x):
            self.runs += 1
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                loc = self.loc + (math.nan if self.runs > 12 else 0.0)
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    model = Bursting()
    guide = Diagonal(latents(model, data()), MLP(3, 6))
    with pytest.raises(NonFinite, match=r"epoch \d+, batch 1: not finite in the log-density of site 'x' in the model"):
        list(fit(model, guide, Trace_ELBO(), [(data(),)], epochs=20))
    assert finite(model, guide)


@each_objective
@pytest.mark.parametrize("Guide", [Diagonal, FullRank, partial(IAF, width=6)], ids=["diagonal", "full_rank", "iaf"])
def test_an_exploding_rate_ends_with_the_place_and_finite_parameters(objective, Guide):
    """Ten batches an epoch, so that the run bursts within one."""
    model, guide = pair(Guide)
    optimizer = partial(torch.optim.SGD, lr=1e6)
    before = values(model, guide)
    with pytest.raises(NonFinite, match=r"^epoch 1, batch \d+: .*not finite in .*(parameter|site) '"):
        list(fit(model, guide, objective, [(data(),)] * 10, epochs=5, optimizer=optimizer, seed=0))
    assert same(values(model, guide), before)


@pytest.mark.parametrize("valid", [None, [(data(),)]], ids=["train", "train and valid"])
@pytest.mark.parametrize("lr", [1e6, 1e20, 3e38])
def test_a_run_that_bursts_at_the_end_of_an_epoch_keeps_the_last_finite_parameters(lr, valid):
    """One batch an epoch: the step that overflows is the last of its epoch, and only the next one would notice."""
    model, guide = pair()
    optimizer = partial(torch.optim.SGD, lr=lr)
    with pytest.raises(NonFinite, match=r"^epoch \d+"):
        list(fit(model, guide, Trace_ELBO(), [(data(),)], valid=valid, epochs=9, optimizer=optimizer, seed=0))
    assert finite(model, guide)


def test_a_run_whose_very_last_step_overflows_does_not_end_in_silence():
    model, guide = pair()
    optimizer = partial(torch.optim.SGD, lr=3e38)
    with pytest.raises(NonFinite):
        list(fit(model, guide, Trace_ELBO(), [(data() + 9,)], epochs=1, optimizer=optimizer, seed=0))
    assert finite(model, guide)


def test_with_patience_a_fault_leaves_the_best_parameters():
    model, guide = pair()
    x = data()
    batches = Turning([x, x], hole(x), position=1, sound=7)
    best, kept = -math.inf, None
    optimizer = partial(torch.optim.SGD, lr=0.02)
    with pytest.raises(NonFinite, match="epoch 6, batch 2"):
        for record in fit(model, guide, IWAE(2), batches, [(x,)], 30, optimizer, patience=20, seed=0):
            if record.valid > best:
                best, kept = record.valid, values(model, guide)
    assert same(values(model, guide), kept)


def test_a_fault_leaves_the_optimizer_able_to_go_on():
    """The step after a refused batch is the step that would have been taken without it."""
    outcomes = []
    for faulty in (False, True):
        model, guide = pair()
        svi = SVI(model, guide, torch.optim.Adam, Trace_ELBO())
        svi.step(data())
        if faulty:
            with pytest.raises(NonFinite):
                svi.step(hole(data()))
        pyro.set_rng_seed(5)
        svi.step(data())
        outcomes.append(values(model, guide))
    assert same(*outcomes)


@pytest.mark.parametrize("rows", [6, 600])
def test_validation_errors_about_the_users_data_pass_unchanged(rows):
    """Grey levels that turn up after training has begun are no number gone bad, but data the model cannot have made."""
    pyro.set_rng_seed(0)
    x = torch.rand(rows, 4).round()
    model = VAE(2, Bernoulli(MLP(2, 6, 4)))
    guide = Diagonal(latents(model, x), MLP(4, 6))
    with pytest.raises(ValueError, match="Error while computing log_prob at site 'x'") as caught:
        list(fit(model, guide, Trace_ELBO(), Turning([x], x * 0.5, 0), epochs=9))
    assert not isinstance(caught.value, NonFinite)
    assert "Boolean()" in str(caught.value.__cause__)


def test_an_error_of_the_users_own_passes_unchanged():
    error = ValueError("rows must not be inf or nan")

    class Own(PPCA):
        def forward(self, x=None, n=1):
            if len(x) == 1:
                raise error
            return super().forward(x, n)

    model = Own(torch.ones(3, 2), torch.zeros(3), 1.0)
    svi = SVI(model, Diagonal(latents(model, data()), MLP(3, 6)), torch.optim.Adam, Trace_ELBO())
    svi.step(data())
    with pytest.raises(ValueError) as caught:
        svi.step(data(1))
    assert str(caught.value).startswith(str(error))


def test_non_finite_is_an_arithmetic_error():
    assert issubclass(NonFinite, ArithmeticError) and not issubclass(NonFinite, ValueError)
