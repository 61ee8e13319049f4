"""The hand-written twins compute what the Pyro programs compute, under the same noise."""

from __future__ import annotations

import pytest
import torch

from benchmarks import programs, twins
from benchmarks.catalogue import CASES, ONE_SITE, SMALL, Case, catalogue

CATALOGUE = list(catalogue(SMALL).values())
SEED = 3


def names(case: Case) -> str:
    return case.name


def batch(case: Case) -> torch.Tensor:
    return torch.bernoulli(torch.full(case.shape, 0.3))


def pair_and_twin(case: Case) -> tuple[programs.Program, torch.nn.Module]:
    program, twin = programs.make(case), twins.make(case).to(torch.get_default_dtype())
    twins.copy_weights(twin, [*program.model.parameters(), *program.guide.parameters()])
    return program, twin


def both(case: Case) -> tuple[tuple[float, list[torch.Tensor]], tuple[float, list[torch.Tensor]]]:
    """Loss and gradients of the Pyro program, and of the twin."""
    program, twin = pair_and_twin(case)
    x = batch(case)
    program.objective.loss(program.model, program.guide, x)  # what a pair draws only once, to learn its plates
    torch.manual_seed(SEED)
    loss = program.objective.loss_and_grads(program.model, program.guide, x)
    grads = [p.grad for p in (*program.model.parameters(), *program.guide.parameters())]
    torch.manual_seed(SEED)
    by_hand = twin(x)
    by_hand.backward()
    return (loss, grads), (by_hand.item(), [p.grad for p in twin.parameters()])


def largest_difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Relative to the largest gradient of each tensor."""
    return max(((p - q).abs().max() / q.abs().max()).item() for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("case", CATALOGUE, ids=names)
def test_a_twin_computes_the_same_bound_and_gradients(case, float64):
    (loss, grads), (by_hand, grads_by_hand) = both(case)
    assert by_hand == pytest.approx(loss, rel=1e-11)
    assert largest_difference(grads_by_hand, grads) < 1e-9


@pytest.mark.parametrize("case", [case for case in CASES if case.batch == 20 or case.sites == 5], ids=names)
def test_it_does_so_at_full_width_in_single_precision(case):
    (loss, grads), (by_hand, grads_by_hand) = both(case)
    assert by_hand == pytest.approx(loss, rel=1e-6)
    # the exponential of log-weights of hundreds of nats magnifies their rounding
    assert largest_difference(grads_by_hand, grads) < (1e-5 if case.num_particles == 1 else 2e-4)


def test_other_noise_gives_another_bound():
    program, twin = pair_and_twin(catalogue(SMALL)[ONE_SITE])
    x = batch(catalogue(SMALL)[ONE_SITE])
    torch.manual_seed(SEED + 1)
    other = twin(x).item()
    torch.manual_seed(SEED)
    assert abs(program.objective.loss(program.model, program.guide, x) - other) > 1e-3


@pytest.mark.parametrize("case", CATALOGUE, ids=names)
def test_a_training_step_by_hand_returns_the_loss_and_moves_every_parameter(case):
    twin = twins.make(case)
    x, start = batch(case), [p.detach().clone() for p in twin.parameters()]
    torch.manual_seed(SEED)
    expected = twin(x).item()
    torch.manual_seed(SEED)
    assert twins.stepper(twin)(x) == expected
    assert all(not torch.equal(p, q) for p, q in zip(twin.parameters(), start, strict=True))


def test_log_px_by_hand_is_the_log_of_the_mean_weight(float64):
    twin = twins.VAETwin(6, 8, 2).double()
    x = batch(Case("tiny", batch=3, sizes=SMALL))[:, :6]
    torch.manual_seed(SEED)
    found = twin.log_px(x, num_particles=7, rows=3)
    torch.manual_seed(SEED)
    loc, log_scale = twin.encode(x)
    for i in range(3):
        log_w = torch.cat([twin.log_w(x[i], loc[i], log_scale[i], part) for part in (3, 3, 1)])
        assert found[i].item() == pytest.approx(log_w.exp().mean().log().item(), rel=1e-10)


def test_weights_of_another_case_are_refused():
    cases = catalogue(SMALL)
    program, twin = programs.make(cases[ONE_SITE]), twins.make(cases["5 sites, batch 100"])
    with pytest.raises(ValueError, match="sources have shapes .* of the same case"):
        twins.copy_weights(twin, program.model.parameters())
