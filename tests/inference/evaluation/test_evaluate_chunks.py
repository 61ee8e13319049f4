"""evaluate in pieces: bounded memory, any batching, a stream of its own, and what it refuses."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, Q, assert_close
from rich.progress import TimeRemainingColumn
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import evaluate
from dlvm.inference.console import bar
from dlvm.models import PPCA
from dlvm.nets import MLP

XS = X_1 + torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]


@pytest.fixture
def programs(pair):
    return pair(GOLDEN_1, lambda x: Gaussian(GOLDEN_1.posterior(x).loc + 0.1, Q.cov))


@pytest.fixture
def amortised(float64):
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)
    return model, Diagonal(latents(model, XS), MLP(4, 8)).double()


def watching(model):
    """The model, and the list of (particles, data) it scores at each run with particles in a plate."""
    seen = []

    def program(x):
        seen.append((1, len(x)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            seen[-1] = (len(z) if z.dim() == 3 else 1, len(x))
            mean = z @ model.weight.T + model.loc
            pyro.sample("x", dist.Normal(mean, model.scale).to_event(1), obs=x)

    return program, seen


@pytest.mark.slow
@pytest.mark.parametrize("chunk, num_particles", [(1, 3), (7, 3), (7, 150), (64, 150), (1000, 150), (None, 150)])
def test_no_run_scores_more_than_a_chunk_and_every_particle_is_scored_once(programs, chunk, num_particles):
    model, seen = watching(programs[0])
    r = evaluate(model, programs[1], XS, num_particles=num_particles, chunk=chunk, engine="eager")
    assert (r.num_particles, r.num_data) == (num_particles, 20)
    scored = [k * n for k, n in seen]
    assert max(scored[2:]) <= max(3, chunk or 800_000 // 4)  # first, rows are tried among others and alone
    asked_of_the_prior = 2 * 150 * min(16, chunk or 16) if num_particles == 150 else 0  # drawn, then weighed
    probes = sum(scored[2:]) - 20 * num_particles - asked_of_the_prior
    assert 0 <= probes <= 2 * 20 + 3 + 3  # supports, plates, two particles in parallel, and alone


def test_wide_data_get_smaller_chunks():
    """800 000 numbers at once: 2 data of 40 000 numbers with 10 particles."""
    model, seen = watching(PPCA(torch.zeros(40_000, 2), torch.zeros(40_000), 1.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    evaluate(model, guide, torch.zeros(12, 40_000), num_particles=10)
    assert max(k * n for k, n in seen) == 20


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_chunk(programs):
    """Other particles, the same distribution: each pair of estimates within 5 of their standard errors."""
    truth = GOLDEN_1.log_px(XS).mean()
    for chunk in (50, 333, 5000, None):
        r = evaluate(*programs, XS, num_particles=500, chunk=chunk)
        assert abs(r.log_px - truth) < 5 * r.log_px_se
        assert abs(r.elbo - GOLDEN_1.elbo(XS, Gaussian(GOLDEN_1.posterior(XS).loc + 0.1, Q.cov)).mean()) < 5 * r.elbo_se
        assert r.bits_per_dim == -r.log_px / math.log(2) / 4


def test_batches_count_by_their_data_and_come_in_any_form(pair):
    exact = pair(GOLDEN_1, GOLDEN_1.posterior)
    truth = GOLDEN_1.log_px(XS).mean()
    batches = [(XS[:1],), (XS[1:4],), (XS[4:],)]
    for data in (XS, batches, [list(b) for b in batches], [b[0] for b in batches], iter(batches)):
        r = evaluate(*exact, data, num_particles=2)
        assert_close(r.log_px, truth, 1e-9)
        assert r.num_data == 20


def test_rows_of_several_arguments_stay_together(float64):
    """x | z, c ~ N(z + c, 1): with q the posterior, log p(x | c) whatever the chunk."""

    def model(x, c, sign):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + sign * c, 1.0).to_event(1), obs=x)

    def guide(x, c, sign):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - sign * c) / 2, 0.5**0.5).to_event(1))

    x, c = torch.randn(9, 2), 10 * torch.randn(9, 2)
    truth = dist.Normal(-c, 2**0.5).log_prob(x).sum(-1).mean()
    for chunk in (1, 4, None):
        assert_close(
            evaluate(model, guide, [(x, c, torch.tensor(-1.0))], num_particles=2, chunk=chunk).log_px, truth, 1e-9
        )


def test_it_has_a_stream_of_its_own(amortised):
    pyro.set_rng_seed(8)
    expected = torch.rand(3)
    pyro.set_rng_seed(8)
    first = evaluate(*amortised, XS, num_particles=30)
    assert torch.equal(torch.rand(3), expected)
    assert evaluate(*amortised, XS, num_particles=30) == first
    assert evaluate(*amortised, XS, num_particles=30, seed=1).log_px != first.log_px
    assert len(pyro.get_param_store()) == 0


def test_modules_are_in_evaluation_mode_meanwhile(float64):
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)
    encoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8))
    encoder.out_features = 8
    guide = Diagonal(latents(model, XS), encoder).double()
    watched = []
    encoder.register_forward_hook(lambda module, *_: watched.append((module.training, encoder[0].training)))
    evaluate(model, guide, XS, num_particles=5)
    assert set(watched) == {(False, False)}
    assert guide.training and encoder[0].training and model.training


def test_a_part_kept_in_evaluation_mode_stays_there(amortised):
    amortised[1].encoder.eval()
    evaluate(*amortised, XS, num_particles=5)
    assert amortised[1].training and not amortised[1].encoder.training


@pytest.mark.parametrize("part", [0, 1], ids=["model", "guide"])
def test_parameters_that_are_nan_are_refused(amortised, part):
    with torch.no_grad():
        next(amortised[part].parameters()).fill_(math.nan)
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="20 data have NaN weights: .*not finite"):
        evaluate(*amortised, XS, num_particles=5)
    assert amortised[part].training


@pytest.mark.parametrize("settings", [dict(num_particles=0), dict(chunk=0), dict(num_particles=-5), dict(chunk=-1)])
def test_sizes_below_one_are_refused(programs, settings):
    with pytest.raises(ValueError, match="num_particles and chunk must be at least 1, got"):
        evaluate(*programs, XS, **settings)


def test_no_data_and_no_plate_are_refused(programs):
    with pytest.raises(ValueError, match="data hold no batch; pass a tensor or a loader"):
        evaluate(*programs, [])

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.unsqueeze(-2), 1.0).expand([*z.shape[:-1], *x.shape]).to_event(2), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))

    with pytest.raises(ValueError, match="gives 1 weights for 20 data: no site of the model lies in a plate"):
        evaluate(model, guide, XS, num_particles=5)


def test_an_empty_tensor_is_refused(programs):
    with pytest.raises(ValueError, match=r"a batch of shape \(0, 4\) holds no datum"):
        evaluate(*programs, XS[:0])


def pressed(after: int):
    """Batches of five data, Ctrl-C in place of the next one."""
    for start in range(0, 5 * after, 5):
        yield XS[start : start + 5]
    raise KeyboardInterrupt


def test_ctrl_c_leaves_the_record_of_what_was_done(programs):
    r = evaluate(*programs, pressed(2), num_particles=30)
    assert (r.num_data, r.complete) == (10, False)
    assert str(r).endswith("of 10 data (interrupted: the first data only)")
    whole = evaluate(*programs, XS[:10].split(5), num_particles=30)
    assert (r.log_px, r.elbo, r.khat) == (whole.log_px, whole.elbo, whole.khat)
    assert whole.complete and "interrupted" not in str(whole)


def test_ctrl_c_before_anything_was_done_goes_on(programs):
    with pytest.raises(KeyboardInterrupt):
        evaluate(*programs, pressed(0), num_particles=30)


def test_after_ctrl_c_modes_and_randomness_are_as_before(amortised):
    pyro.set_rng_seed(8)
    expected = torch.rand(3)
    pyro.set_rng_seed(8)
    evaluate(*amortised, pressed(1), num_particles=30)
    assert torch.equal(torch.rand(3), expected)
    assert amortised[0].training and amortised[1].training


def test_the_bar_counts_data_and_has_a_time_left(programs, monkeypatch):
    shown = []
    monkeypatch.setattr("dlvm.inference.programs.chunks.bar", lambda show: shown.append(bar(show)) or shown[-1])
    evaluate(*programs, XS.split(10), num_particles=30)
    (task,) = shown[0].tasks
    assert (task.completed, task.total) == (20, 20)
    assert any(isinstance(column, TimeRemainingColumn) for column in shown[0].columns)
