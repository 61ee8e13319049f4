"""A captured step that fails says where, leaves everything as it was, and the run can go on."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from special import subsampled
from stepping import Adam, differing, state
from torch import nn

from dlvm.inference import SVI, NonFinite

pytestmark = pytest.mark.filterwarnings("ignore:Encountered", "ignore:CUDA")
BOTH = pytest.mark.parametrize("validation", [True, pytest.param(False, marks=pytest.mark.slow)])
ENGINES = pytest.mark.parametrize("engine", ["eager", "captured"])


class Root(PyroModule):
    """Its bound is finite where its gradient is not: the square root of 0 in a scale that does not count."""

    def __init__(self):
        super().__init__("model")
        self.net, self.free = nn.Linear(2, 4), nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("steps", torch.zeros(()))
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.steps.add_(1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = self.drop(self.net(z)) + self.free.sqrt() * x.mean() * 0
            pyro.sample("x", dist.Normal(loc + self.mean, 1.0).to_event(1), obs=x)


def root():
    return Root(), pair("positive")[1], (torch.randn(6, 4),)


def after(steps, make, engine="captured", **settings):
    """An SVI after some steps, and its data."""
    pyro.set_rng_seed(3)
    model, guide, args = make()
    svi = SVI(model, guide, Adam, Trace_ELBO(), engine=engine, **settings)
    for _ in range(steps):
        svi.step(*args)
    return svi, args[0]


def holed(x, value=float("nan")):
    x = x.clone()
    x[2, 1] = value
    return x


def fails(svi, x, error, words):
    """The step raises; parameters, gradients and the optimizer are as if it had not been made."""
    before = kept(svi)
    with pytest.raises(error, match=words):
        svi.step(x)
    assert differing(before, kept(svi)) == []
    assert all(p.grad is None for p in svi._step.parameters)


def kept(svi):
    buffers = {"model." + name for name, _ in svi.model.named_buffers()}
    return {name: value for name, value in state(svi).items() if name not in buffers | {"random"}}


@ENGINES
@BOTH
@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_data_that_are_not_finite(engine, validation, value):
    with pyro.validation_enabled(validation):
        svi, x = after(4, lambda: pair("positive"), engine)
        fails(svi, holed(x, value), NonFinite, r"not finite in argument 0 of the batch \(data\); no step was taken")


@ENGINES
@BOTH
def test_a_parameter_that_is_not_finite(engine, validation):
    with pyro.validation_enabled(validation):
        svi, x = after(4, root, engine)
        svi.model.net.bias.data[1] = float("inf")
        fails(svi, x, NonFinite, "not finite in parameter 'net.bias' of the model")
        svi.model.net.bias.data[1] = 0.0
        assert svi.step(x) < 1e3


@ENGINES
@BOTH
def test_an_infinite_gradient_of_a_finite_loss(engine, validation):
    with pyro.validation_enabled(validation):
        svi, x = after(4, root, engine)
        with torch.no_grad():
            svi.model.free.zero_()
        fails(svi, x, NonFinite, "not finite in the gradient of parameter 'free' of the model")


@ENGINES
def test_validation_switched_on_or_off_counts_from_the_next_step_on(engine):
    with pyro.validation_enabled(False):
        svi, x = after(4, pair, engine)
        svi.step(holed(x, 0.5))
        with pyro.validation_enabled(True):
            fails(svi, holed(x, 0.5), ValueError, "support")
            svi.step(x), svi.step(x)
            fails(svi, holed(x, 0.5), ValueError, "support")
        assert svi.step(holed(x, 0.5)) < 1e3


@ENGINES
@pytest.mark.parametrize("validation", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_failed_step_leaves_buffers_as_they_were(engine, validation):
    """Or one batch of NaN would end up in every running mean."""
    with pyro.validation_enabled(validation):
        svi, x = after(4, root, engine)
        before = state(svi)
        with torch.no_grad():
            svi.model.free.zero_()
        with pytest.raises(NonFinite):
            svi.step(x)
        assert torch.equal(svi.model.mean, before["model.mean"]) and svi.model.steps == before["model.steps"]
        with pytest.raises(NonFinite):
            svi.step(holed(x))
        assert torch.equal(svi.model.mean, before["model.mean"]) and svi.model.steps == before["model.steps"]
        svi.model.free.data.fill_(1.0)
        assert svi.step(x) < 1e3


@ENGINES
def test_grey_data_are_refused_under_validation(engine):
    with pyro.validation_enabled(True):
        svi, x = after(4, pair, engine)
        fails(svi, holed(x, 0.5), ValueError, "(?s)support.*0.5")
        svi.step(x)


def test_a_failed_step_uses_up_the_noise_of_an_eager_one():
    """What comes after an error that was caught is as in the eager run."""
    ends = []
    for engine in ("eager", "captured"):
        svi, x = after(4, root, engine)
        for bad in (holed(x), x, holed(x), holed(x), holed(x), holed(x), x, x):
            try:
                svi.step(bad)
            except NonFinite:
                pass
        ends.append(state(svi))
    assert differing(*ends) == []


def test_evaluation_says_where_as_well():
    svi, x = after(0, root)
    [svi.evaluate_loss(x) for _ in range(4)]
    with pytest.raises(NonFinite, match="argument 0 of the batch"):
        svi.evaluate_loss(holed(x))
    assert svi.evaluate_loss(x) < 1e3


@ENGINES
@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        (torch.zeros(6, 5), ValueError, "have 5 features where in_features=4"),
        (torch.full((2, 4), float("nan")), NonFinite, r"argument 0 of the batch \(data\)"),
        (torch.full((2, 4), 0.5), ValueError, "support"),
    ],
)
def test_a_bad_batch_of_a_new_shape_raises_its_own_error(engine, batch, error, words):
    svi, x = after(4, pair, engine)
    fails(svi, batch, error, words)
    svi.step(x)
    assert svi.running == engine


def test_one_bad_batch_at_the_time_of_capture_does_not_end_capturing():
    svi, x = after(1, pair, "auto")
    fails(svi, holed(x), NonFinite, "argument 0 of the batch")
    for _ in range(3):
        svi.step(x)
    assert svi.running == "captured"


def test_rows_that_are_drawn_anew_stay_random():
    svi, x = after(3, subsampled)
    assert len({round(svi.evaluate_loss(x), 3) for _ in range(8)}) > 4
    assert svi.running == "captured"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "fast"}, "engine must be one of auto, eager, captured, compiled, got 'fast'"),
        ({"engine": None}, "engine must be one of auto, eager, captured, compiled, got None"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, got 'fp16'"),
    ],
)
def test_unknown_settings_are_refused(settings, words):
    model, guide, _ = pair()
    with pytest.raises(ValueError, match=words):
        SVI(model, guide, Adam, Trace_ELBO(), **settings)
