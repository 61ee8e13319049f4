"""Three steps of Baum and Welch from a start that is told, beside what hmmlearn 0.3 makes of the same, recorded."""

from __future__ import annotations

import pytest
import torch

from dlvm.inference import fit_em
from dlvm.models import CategoricalMixture, GaussianMixture, HiddenMarkov, PoissonMixture
from dlvm.models.categorical_mixture import at_least

T = torch.arange(24).double()
LENGTHS = torch.tensor([10, 9, 5])


def of(numbers: list) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.double)


def reals() -> tuple[torch.Tensor, GaussianMixture]:
    mixture = GaussianMixture(3, 2, "diagonal", reg_covar=0.0).double()
    mixture.loc.data = of([[-1.0, 0.0], [0.0, 2.0], [1.0, 4.0]])
    return torch.stack([(T * T).sin(), 2 * (1.7 * T).cos() + T % 5], -1), mixture


def classes() -> tuple[torch.Tensor, CategoricalMixture]:
    mixture = CategoricalMixture(3, 1, 3, least=1e-12).double()
    mixture.class_logits.data = of([[[0.6, 0.2, 0.2]], [[0.2, 0.5, 0.3]], [[0.1, 0.2, 0.7]]]).log()
    return ((T * T) % 7 % 3).unsqueeze(-1), mixture


def counts() -> tuple[torch.Tensor, PoissonMixture]:
    mixture = PoissonMixture(3, 2).double()
    mixture.log_rates.data = of([[1.0, 1.0], [2.0, 3.0], [4.0, 2.0]]).log()
    return torch.stack([(T * T) % 7, (3 * T) % 5], -1), mixture


RECORDED = {  # log p(x) before and after, most probable paths, the last row of the moves, what the components became
    reals: (
        (-83.35076762546876, -70.97790306628661),
        "110220012101112001220122",
        [0.4472516550858224, 0.3221595832031977, 0.23058876171098],
        [
            [-0.6120741153626091, -0.1972122725736107],
            [-0.0561914101212628, 1.8478832517860524],
            [0.3744676601106401, 4.325388112978271],
        ],
    ),
    classes: (
        (-26.790853847471, -21.776176831800804),
        "011221111122111112200011",
        [0.1633333085408251, 0.2886908490993821, 0.5479758423597929],
        [
            [0.3783255176973327, 0.5545391777745062, 0.067135304528161],
            [0.1207977849709728, 0.774457516511013, 0.1047446985180143],
            [0.0305299315994815, 0.2852691259167243, 0.6842009424837942],
        ],
    ),
    counts: (
        (-85.98331302535372, -82.09334267702656),
        "012112101201211012120101",
        [0.2800795693801302, 0.4720825651229648, 0.2478378654969049],
        [
            [1.019728288068671, 0.9591249591413228],
            [1.9529190489758683, 2.7073209942754275],
            [2.9425677408706776, 1.7923621690732885],
        ],
    ),
}


@pytest.mark.parametrize("make", RECORDED)
def test_steps_of_em_and_the_most_probable_paths_are_those_of_hmmlearn(make):
    (before, after), best, last, became = RECORDED[make]
    flat, mixture = make()
    model = HiddenMarkov(mixture).double()
    model.mixture.logits.data = of([0.5, 0.3, 0.2]).log()
    model.transition_logits.data = of([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]).log()
    x = torch.nn.utils.rnn.pad_sequence(flat.split(LENGTHS.tolist()), batch_first=True)
    assert model.log_px(x, LENGTHS).sum().item() == pytest.approx(before, abs=1e-9)
    list(fit_em(model, [(x, LENGTHS)], iterations=3, tolerance=0))
    assert model.log_px(x, LENGTHS).sum().item() == pytest.approx(after, abs=1e-9)
    torch.testing.assert_close(model.transition[-1], of(last), rtol=1e-10, atol=0)
    found = mixture.probabilities[:, 0] if make is classes else mixture.moments()[0]
    torch.testing.assert_close(found, of(became), rtol=1e-10, atol=0)
    paths = model.posterior(x, LENGTHS).mode.argmax(-1)
    assert "".join(str(z) for row, n in zip(paths, LENGTHS, strict=True) for z in row[:n].tolist()) == best


def test_components_of_counts_and_of_classes_are_those_of_pyro_and_draws_have_their_moments():
    torch.manual_seed(0)
    for mixture in (PoissonMixture(2, 3).double(), CategoricalMixture(2, 3, 4).double()):
        x = mixture.draw_of(torch.tensor([0, 1]).repeat(4000))
        if isinstance(mixture, PoissonMixture):
            each = torch.distributions.Poisson(mixture.rates).log_prob(x.unsqueeze(1)).sum(-1)
        else:
            each = torch.distributions.Categorical(mixture.probabilities).log_prob(x.unsqueeze(1)).sum(-1)
        torch.testing.assert_close(mixture.log_components(x), each)
        mean, variance = mixture.moments()
        assert ((x[::2].mean(0) - mean[0]).abs() < 5 * (variance[0] / 4000).sqrt()).all()
        assert ((x[1::2].mean(0) - mean[1]).abs() < 5 * (variance[1] / 4000).sqrt()).all()


def test_the_floor_under_probabilities_is_where_the_likelihood_is_highest():
    torch.manual_seed(0)
    share, least = of([0.0, 0.021, 0.03, 0.949]), 0.02
    found = at_least(share, least)
    assert found.sum() == pytest.approx(1.0, abs=1e-12) and (found >= least).all()
    others = torch.distributions.Dirichlet(torch.ones(4).double()).sample((20_000,)) * (1 - 4 * least) + least
    near = found + 1e-3 * (others - found)
    assert (share * found.log()).sum() >= (share * torch.cat([others, near]).log()).sum(-1).max()


def test_em_of_classes_never_falls_even_where_a_class_was_never_seen():
    torch.manual_seed(0)
    x = torch.randint(3, (40, 6, 2)).double()  # of four classes
    model = HiddenMarkov(CategoricalMixture(5, 2, 4, least=0.01)).double().start_at(x)
    steps = list(fit_em(model, x, iterations=20, tolerance=0))
    assert all(step.rise >= -1e-9 for step in steps[1:]) and steps[-1].log_px > steps[0].log_px + 0.1
    assert model.mixture.probabilities.min() >= 0.01 - 1e-12
