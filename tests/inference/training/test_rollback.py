"""A run that ceases to be finite goes back to the beginning of its epoch, more slowly, and not for ever."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedules
from training_cases import X_DIM, Loader, Noisy, bits, pair, result_of

from dlvm.inference import ELBO, NonFinite, fit
from dlvm.inference.checkpoints.folder import Checkpoints
from dlvm.inference.training.checkpointer import Keeper

SGD = partial(optim.SGD, lr=0.02)


class Fragile(nn.Module):
    """An encoder that gives NaN at given calls in training; the count lies in no state, so that it does not go back."""

    in_features, out_features = X_DIM, 8

    def __init__(self, *broken: int):
        super().__init__()
        self.layer, self.broken, self.calls = nn.Linear(X_DIM, 8), broken, [0]

    def forward(self, x):
        self.calls[0] += self.training and torch.is_grad_enabled()
        return self.layer(x) * (math.nan if self.training and self.calls[0] in self.broken else 1.0)


class Steep(nn.Module):
    """An encoder that gives NaN wherever a parameter has gone too far."""

    in_features, out_features = X_DIM, 8

    def __init__(self, limit: float):
        super().__init__()
        self.layer, self.limit = nn.Linear(X_DIM, 8), limit

    def forward(self, x):
        with torch.no_grad():
            far = torch.where(self.layer.weight.abs().max() > self.limit, math.nan, 0.0)
        return self.layer(x) + far


def started(encoder, **settings):
    pyro.clear_param_store()
    model, guide = pair(encoder)
    common = dict(optimizer=SGD, seed=5, epochs=4, progress=False, engine="eager")
    loader = Loader(bits(40), 8, shuffle=True)
    return model, guide, fit(model, guide, ELBO(), loader, **common | settings)


def rates(records) -> list[float]:
    return [record.lr for record in records]


def test_the_epoch_is_gone_through_again_at_half_the_rate(caplog):
    with caplog.at_level("INFO", "dlvm"):
        records = list(started(lambda: Fragile(10), rollbacks=1)[2])
    assert rates(records) == [0.02, 0.01, 0.01, 0.01]
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    (line,) = caplog.messages
    assert line.startswith("epoch 2, batch 3: ")
    assert line.endswith("not finite in the value of site 'z' in the guide; no step was taken: back to the beginning "
                         "of epoch 2, with a learning rate of 0.01") or "parameter" in line  # fmt: skip


def test_what_was_done_before_the_rollback_leaves_no_trace():
    """The same as a run that halves its rate after the first epoch, and never meets anything that is not finite."""
    model, guide, run = started(lambda: Fragile(10), rollbacks=1)
    first = result_of(model, guide, list(run))
    halve = partial(schedules.LambdaLR, lr_lambda=lambda epoch: 1.0 if epoch == 0 else 0.5)
    model, guide, run = started(Fragile, scheduler=halve)
    assert first == result_of(model, guide, list(run))


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (partial(schedules.ExponentialLR, gamma=0.5), [0.02, 0.005, 0.0025, 0.00125]),
        (partial(schedules.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)), [0.02, 0.005, 0.01 / 3, 0.0025]),
        (partial(schedules.CosineAnnealingLR, T_max=4), [0.02, 0.005 * (1 + 0.5**0.5), 0.005, 0.005 * (1 - 0.5**0.5)]),
        (
            lambda optimizer: schedules.SequentialLR(
                optimizer,
                [schedules.ConstantLR(optimizer, 1.0), schedules.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))],
                milestones=[2],
            ),
            [0.02, 0.01, 0.01, 0.005],
        ),
    ],
)  # fmt: skip
def test_a_schedule_goes_on_at_half_its_rates(scheduler, expected):
    records = list(started(lambda: Fragile(10), rollbacks=1, scheduler=scheduler)[2])
    assert rates(records) == pytest.approx(expected)


def test_several_rollbacks_in_one_epoch_and_no_more_than_allowed(caplog):
    with caplog.at_level("INFO", "dlvm"):
        records = list(started(lambda: Fragile(10, 12), rollbacks=2)[2])
    assert rates(records) == [0.02, 0.005, 0.005, 0.005]
    assert len(caplog.messages) == 2
    _, _, run = started(lambda: Fragile(10, 12), rollbacks=1)
    with pytest.raises(NonFinite, match=r"^epoch 2, batch 2: "):
        list(run)


def test_none_is_made_unless_asked_for(tmp_path):
    _, _, run = started(lambda: Fragile(10))
    with pytest.raises(NonFinite, match=r"^epoch 2, batch 3: .* in .*no step was taken$"):
        list(run)
    _, _, run = started(lambda: Fragile(10), checkpoint=tmp_path)
    good = f"; the last good checkpoint is {tmp_path / 'step-0000000005'}"
    with pytest.raises(NonFinite, match=rf"^epoch 2, batch 3: .* in .*no step was taken{good}$"):
        list(run)


def test_parameters_that_are_not_finite_are_never_written(tmp_path):
    """The step that breaks them is found before it is written down, not at the next one."""
    _, _, run = started(Noisy, checkpoint=tmp_path, every=1, optimizer=partial(optim.SGD, lr=1e38))
    with pytest.raises(NonFinite, match=r"parameter .* is not finite after the step; try a smaller lr"):
        list(run)
    for path in tmp_path.glob("step-*"):
        saved = Checkpoints(tmp_path).latest()
        assert saved.path in tmp_path.glob("step-*"), path
        assert all(value.isfinite().all() for name, value in saved.tensors.items() if name[:5] in ("model", "guide"))


class PowerCut(BaseException):
    pass


def steep(folder=None):
    checkpoint = {} if folder is None else {"checkpoint": folder, "every": 2}
    checkpoint["valid"] = [(bits(9),)]  # finds parameters that went too far in the last step
    return started(lambda: Steep(0.6), rollbacks=20, optimizer=partial(optim.SGD, lr=0.05, momentum=0.9), **checkpoint)


def test_with_checkpoints_it_is_the_same_wherever_it_is_broken_off(tmp_path, monkeypatch):
    model, guide, run = steep()
    records = list(run)
    expected = result_of(model, guide, records)
    assert records[-1].lr < 0.05  # there was a rollback
    done = 0
    for cut in range(1, 40, 3):
        count, original = [0], Keeper.after_step

        def after_step(self, run, count=count, cut=cut, original=original):
            original(self, run)
            count[0] += 1
            if count[0] == cut % 7 + 1:
                raise PowerCut

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "after_step", after_step)
            model, guide, run = steep(tmp_path)
            try:
                records = list(run)
                break
            except PowerCut:
                done += 1
    model, guide, run = steep(tmp_path)
    assert result_of(model, guide, list(run)) == expected
    assert done > 3


@pytest.mark.parametrize("rollbacks", [-1, 1.0, True, None])
def test_rollbacks_must_be_a_count(rollbacks):
    with pytest.raises(ValueError, match="rollbacks must be an integer of at least 0, got"):
        started(Fragile, rollbacks=rollbacks)
