"""Plain words: what they say follows from the numbers, and the flag of sleeping units from known units."""

from __future__ import annotations

import logging
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, Epoch, Evaluation, console, evaluate, fit, linear, tempered, verdict
from dlvm.inference.evaluation.active_units import PATIENCE, Lookout
from dlvm.inference.programs.pair import Pair
from dlvm.models import PPCA
from dlvm.nets import MLP


def evaluation(**changed) -> Evaluation:
    numbers = dict(
        elbo=-100.0, elbo_se=0.01, log_px=-99.0, log_px_se=0.02, rate=20.0, distortion=80.0, active_units=10, ess=300.0,
        khat=0.3, khat_bad=0.01, bits_per_dim=0.2, num_particles=1000, num_data=100, units=10, log_px_bias=0.005,
        second_opinion=-0.05, second_opinion_margin=0.2, second_opinion_ess=40.0, second_opinion_data=16,
    )  # fmt: skip
    return Evaluation(**numbers | changed)


def history(values: list[float | None]) -> list[Epoch]:
    return [Epoch(i + 1, -1.0, value, 1.0, 1e-3, 1.0, False, {}, "eager") for i, value in enumerate(values)]


RISING = [-200.0 + 2 * i for i in range(30)]
FLAT = [-120.0 + 20 * (1 - math.exp(-i / 3)) for i in range(60)]
FALLING = FLAT + [-100.0 - 0.5 * i for i in range(30)]


@pytest.mark.parametrize(
    "values, converged, said, remedy",
    [
        (RISING, False, "still rose by 6.00 nats over the last 3 epochs", "train longer"),
        (FLAT, True, "Converged", "compare guides"),
        (FALLING, True, "was best in epoch 61 and has fallen by 14.50 nats", "a smaller model"),
        (FLAT[:5], None, "5 epochs are too few", "10 epochs or more"),
        ([None] * 20, None, "0 epochs are too few", "compare guides"),
    ],
)
def test_convergence_is_read_from_the_validation_bound(values, converged, said, remedy):
    found = verdict(evaluation(), history(values))
    assert found.converged is converged
    assert said in str(found) and found.next.startswith(remedy)


@pytest.mark.parametrize(
    "changed, field, expected, said, remedy",
    [
        (dict(active_units=0, rate=0.05), "collapsed", True, "none of 10 latent units", "a KL warm-up"),
        (dict(active_units=0), "collapsed", True, "yet q is 20.0 nats from the prior", "a look at q(z | x)"),
        (
            dict(active_units=7, fixed_units=2),
            "collapsed",
            True,
            "2 of 10 latent units have one answer",
            "other starts",
        ),
        (dict(active_units=4), "collapsed", True, "6 of 10 latent units are collapsed", "a KL warm-up"),
        (dict(active_units=9), "collapsed", True, "1 of 10 latent units are collapsed", "compare guides"),
        (dict(active_units=None), "collapsed", None, "log p(x) is known", "compare guides"),
        (dict(khat_bad=0.4), "trustworthy", False, "k-hat exceeds 0.7 for 40 % of the data", "annealed importance"),
        (dict(khat_bad=0.4), "trustworthy", False, "log p(x) is at least -99.00 nats, too low", "annealed importance"),
        (dict(log_px_se=0.5), "trustworthy", True, "known to 0.50 nats only", "more particles"),
        (
            dict(log_px_bias=0.06),
            "trustworthy",
            True,
            "at least -99.00 nats, which is perhaps 0.06 too low",
            "more part",
        ),
        (dict(), "trustworthy", True, "draws from the prior agree within 0.20 on 16 data", "compare guides"),
        (dict(second_opinion=0.3), "trustworthy", False, "at least -99.00 nats, and more", "a defensive proposal"),
        (dict(second_opinion=-0.3), "trustworthy", None, "and nothing else vouches for it", "annealed importance"),
        (dict(second_opinion_ess=5.0), "trustworthy", None, "is at least -99.00 nats, known to 0.02", "annealed"),
        (
            dict(second_opinion=math.nan, log_px_bias=0.06),
            "trustworthy",
            None,
            "perhaps 0.06 too low",
            "more particles",
        ),
        (
            dict(khat_bad=math.nan, num_particles=10, second_opinion=math.nan),
            "trustworthy",
            None,
            "no k-hat",
            "25 particles",
        ),
        (
            dict(khat_bad=math.nan, ess=100.0, num_particles=100, second_opinion=math.nan),
            "trustworthy",
            None,
            "All particles weigh the same, as under the posterior",
            "",
        ),
        (dict(khat_bad=math.nan), "trustworthy", True, "there is no k-hat, and draws from the prior", "compare"),
        (dict(elbo=-99.0, log_px_se=0.0), "trustworthy", None, "-99.00 nats is a bound without noise", "a prior"),
        (dict(elbo=-105.0), "trustworthy", True, "known to 0.02 nats", "a richer guide"),
    ],
)
def test_every_number_that_is_wrong_is_named_with_its_remedy(changed, field, expected, said, remedy):
    found = verdict(evaluation(**changed))
    assert getattr(found, field) is expected
    assert said in str(found) and found.next.startswith(remedy)
    assert str(found) == evaluation(**changed).verdict


def test_an_evaluation_counts_all_units_and_passes_judgement():
    model, x = PPCA(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.zeros(2), 0.5), torch.randn(200, 2)
    result = evaluate(model, exact_guide(), x, num_particles=200)
    assert (result.units, result.active_units) == (2, 1)
    assert "1 of 2 latent units are collapsed" in result.verdict


def exact_guide():
    """The posterior of the model whose first latent drives x[0] by 2 and whose second drives nothing."""

    def guide(x):
        loc = torch.stack([x[:, 0] * 2 / 4.25, torch.zeros(len(x))], -1)
        scale = torch.tensor([(0.25 / 4.25) ** 0.5, 1.0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return guide


def test_the_lookout_counts_known_units_and_leaves_the_random_stream_alone():
    model, x = PPCA(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.zeros(2), 0.5), torch.randn(200, 2)
    before = torch.get_rng_state()
    assert Lookout(Pair(model, exact_guide()), (x,)).look(warming=False) == {"z": (1, 2)}
    assert torch.equal(before, torch.get_rng_state())


def asleep(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))


@pytest.mark.parametrize("warming", [True, False])
def test_a_site_that_stays_asleep_is_told_once_with_the_remedy(caplog, monkeypatch, warming):
    monkeypatch.setattr(console, "_said", set())
    lookout = Lookout(Pair(PPCA(torch.eye(2), torch.zeros(2), 1.0), asleep), (torch.randn(64, 2),))
    with caplog.at_level(logging.INFO, "dlvm"):
        for _ in range(3 * PATIENCE):
            assert lookout.look(warming) == {"z": (0, 2)}
    told = [record.message for record in caplog.records]
    assert len(told) == (0 if warming else 1)
    assert all("every unit of z sleeps" in line and "free_bits" in line for line in told)


def test_epochs_of_fit_carry_the_flag_and_say_it():
    torch.manual_seed(0)
    x = torch.randn(100, 3)
    model = PPCA(torch.zeros(3, 2), torch.zeros(3), 1.0)
    model.requires_grad_(False)
    guide = Diagonal(latents(model, x), MLP(3, 4))
    objective = tempered(ELBO(), linear(0.0, 1.0, steps=3))
    epochs = list(fit(model, guide, objective, [(x,)], epochs=80, optimizer=lambda p: torch.optim.Adam(p, lr=0.1)))
    assert epochs[-1].active == {"z": (0, 2)}
    assert str(epochs[-1]).endswith("active z 0/2")


def test_a_guide_without_parallel_draws_is_not_looked_at():
    def loud(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        if z.dim() != 2:
            raise ValueError("one draw at a time")

    assert Lookout(Pair(PPCA(torch.eye(2), torch.zeros(2), 1.0), loud), (torch.randn(8, 2),)).look(False) == {}
