"""FIVO: a bound that is tighter on long sequences, its gradient, and pairs that it refuses."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from walks import data, pair

from dlvm.guides import Diagonal, latents
from dlvm.inference import FIVO, IWAE, MAP, SVI, Resampling, Separate, check, tempered
from dlvm.inference.programs.pair import Pair
from dlvm.models import PPCA, LinearGaussianSSM
from dlvm.nets import MLP


@torch.no_grad()
def test_on_long_sequences_it_lies_between_iwae_and_the_exact_value():
    (model, guide), x = pair(), data(1, 60).expand(200, -1, -1)
    exact, args = model.log_px(x)[0], (Pair(model, guide), (x,), {})
    found = {}
    for objective in (FIVO(8), IWAE(8)):
        values = objective.value(objective.draw(*args))
        found[type(objective)] = values.mean(), values.std() / 200**0.5
    (fivo, fivo_se), (iwae, iwae_se) = found[FIVO], found[IWAE]
    assert fivo - iwae > 4 * (fivo_se + iwae_se), found
    assert fivo < exact + 3 * fivo_se and iwae < exact + 3 * iwae_se


def test_never_resampling_is_iwae():
    (model, guide), x = pair(), data(4, 5)
    never = FIVO(6, Resampling(below=0.0))
    pyro.set_rng_seed(3)
    particles = never.draw(Pair(model, guide), (x,), {})
    value, again = never.value(particles), IWAE(6)
    log_w = particles.log_w
    torch.testing.assert_close(value, again.bound(log_w))
    assert not particles.filtered.resampled.any()
    bound = [again.value(again.draw(Pair(model, guide), (x.repeat(800, 1, 1),), {})) for _ in range(1)][0]
    mine = never.value(never.draw(Pair(model, guide), (x.repeat(800, 1, 1),), {}))
    error = ((bound.view(800, 4).var(0) + mine.view(800, 4).var(0)) / 800).sqrt()
    assert ((bound.view(800, 4).mean(0) - mine.view(800, 4).mean(0)) / error).abs().max() < 4


@pytest.mark.slow
def test_the_score_of_ancestors_makes_the_gradient_that_of_the_bound():
    (model, guide), x = pair(), data(1, 3).expand(100_000, -1, -1)
    always, bias = Resampling("multinomial", 1.0), guide.net.bias

    def slopes(objective: FIVO) -> tuple[float, float]:
        found = []
        for _ in range(10):
            part = Pair(model, guide), (x[:10_000],), {}
            loss = objective.surrogate(objective.draw(*part)) / 10_000
            found.append(torch.autograd.grad(loss, bias)[0].item())
        slope = torch.tensor(found)
        return slope.mean().item(), slope.std().item() / 10**0.5

    @torch.no_grad()
    def bound(at: float) -> float:
        start = bias.clone()
        bias.fill_(at)
        pyro.set_rng_seed(7)
        found = FIVO(2, always).value(FIVO(2, always).draw(Pair(model, guide), (x,), {})).mean().item()
        bias.copy_(start)
        return found

    here = bias.item()
    wanted = (bound(here + 0.2) - bound(here - 0.2)) / 0.4
    (whole, se), (dropped, dropped_se) = slopes(FIVO(2, always, score=True)), slopes(FIVO(2, always))
    assert abs(whole - wanted) < 3 * se + 0.01, (whole, se, wanted)
    assert abs(dropped - wanted) > 3 * dropped_se + 0.01, (dropped, dropped_se, wanted)


def test_gradients_are_cut_after_so_many_steps_and_values_are_not():
    (model, guide), x = pair(), data(3, 4)

    def run(truncate: int | None) -> tuple[Tensor, Tensor]:
        pyro.set_rng_seed(5)
        objective = FIVO(4, truncate=truncate)
        value = objective.surrogate(objective.draw(Pair(model, guide), (x,), {}))
        return value.detach(), torch.autograd.grad(value, guide.net.weight)[0]

    whole, cut, long = run(None), run(1), run(4)
    assert whole[0] == cut[0] == long[0]
    torch.testing.assert_close(whole[1], long[1])
    assert (whole[1] - cut[1]).abs().max() > 1e-3


def test_captured_steps_are_eager_ones_on_ragged_data():
    losses = {}
    for engine in ("eager", "captured"):
        (model, guide), x, lengths = pair(), data(5, 4), torch.tensor([4, 1, 2, 3, 4])
        svi = SVI(model, guide, torch.optim.Adam, FIVO(4), engine=engine)
        pyro.set_rng_seed(0)
        losses[engine] = [svi.step(x, lengths) for _ in range(6)]
    assert losses["eager"] == losses["captured"]


def test_it_checks_a_pair_and_refuses_what_has_no_steps():
    (model, guide), x = pair(), data(4, 5)
    assert check(model, guide, FIVO(3), x) == {"z": "Monte Carlo"}
    assert check(model, model.guide, MAP(FIVO(3), dist.Normal(0.0, 1.0), 9), x) == {"z": "Monte Carlo"}
    with pytest.raises(ValueError, match="guide Diagonal cannot be gone through step by step.*Sequential"):
        check(model, Diagonal(latents(model, x), _Flat(10)).double(), FIVO(3), x)
    ppca, rows = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
    with pytest.raises(ValueError, match="model PPCA cannot be gone through step by step.*stepwise"):
        FIVO(2).loss(ppca, Diagonal(latents(ppca, rows), MLP(3, 8)), rows)
    with pytest.raises(ValueError, match="tempered counts latent sites.*resamples.*ELBO or IWAE"):
        tempered(FIVO(3), 0.5)
    with pytest.raises(ValueError, match="model=FIVO"):
        Separate(model=FIVO(3), guide=IWAE(3))
    with pytest.raises(ValueError, match="multinomial draws before every step.*below=1.0"):
        FIVO(3, score=True)


class _Flat(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.net, self.out_features = nn.Linear(dim, 4).double(), 4

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.net(x.flatten(1))


class Other(LinearGaussianSSM):
    """A model whose steps are of another scale than its program."""

    def stepwise(self, x: Tensor, lengths: Tensor | None = None):
        with torch.no_grad():
            other = LinearGaussianSSM(1, 2).double()
            other.load_state_dict(self.state_dict())
            other.log_scale.add_(0.1)
        return other.stepwise(x, lengths)


def test_steps_of_another_density_than_the_program_are_found_out():
    torch.manual_seed(0)
    model, x = Other(1, 2).double(), data(4, 5)
    with pytest.raises(ValueError, match="steps of the model have another density than its program, off by"):
        FIVO(2).loss(model, pair()[1], x)
