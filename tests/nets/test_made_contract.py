"""The autoregressive property of MADE, from its autograd Jacobian."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close
from torch.autograd.functional import jacobian

from dlvm.nets import MADE

DIM, CONTEXT = 5, 3
HIDDEN = [(), (16,), (16, 12), (7, 7, 7)]


def jacobians(made: MADE) -> list[torch.Tensor]:
    """d out_j / d z_i of each output at a random point, averaged in absolute value over points."""
    total = [torch.zeros(made.dim, made.dim).double() for _ in range(made.outputs)]
    for _ in range(5):
        z, h = torch.randn(made.dim).double(), torch.randn(CONTEXT).double()
        for sum_, value in zip(total, jacobian(lambda z, h=h: made(z, h), z), strict=True):
            sum_ += value.abs()
    return total


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("reverse", [False, True])
def test_jacobian_is_strictly_triangular_and_full_below(hidden, reverse):
    made = MADE(DIM, CONTEXT, hidden, outputs=2, reverse=reverse).double()
    for value in jacobians(made):
        value = value.T if reverse else value
        assert torch.equal(value.triu(), torch.zeros(DIM, DIM).double())
        allowed = value[torch.tril_indices(DIM, DIM, -1).unbind()]
        assert allowed.min() > 0, "an output does not see one of its predecessors"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_output_sees_the_context(hidden):
    made = MADE(DIM, CONTEXT, hidden).double()
    z, h = torch.randn(DIM).double(), torch.randn(CONTEXT).double()
    for value in jacobian(lambda h: made(z, h), h):
        assert (value.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_parameter_gets_a_gradient(hidden):
    made = MADE(DIM, CONTEXT, hidden).double()
    sum((out**2).sum() for out in made(torch.randn(9, DIM).double(), torch.randn(9, CONTEXT).double())).backward()
    for name, value in made.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


def test_linear_step_is_a_strictly_triangular_matrix():
    made = MADE(DIM, hidden=(), outputs=1).double()
    z = torch.randn(7, DIM).double()
    matrix = made.layers[0].weight.tril(-1)
    assert_close(made(z)[0], z @ matrix.T + made.layers[0].bias, 1e-14)


def test_context_broadcasts_over_particles():
    made = MADE(DIM, CONTEXT, (16,)).double()
    z, h = torch.randn(4, 6, DIM).double(), torch.randn(6, CONTEXT).double()
    m, s = made(z, h)
    assert m.shape == s.shape == (4, 6, DIM)
    assert_close(m[3, 2], made(z[3, 2], h[2])[0], 1e-14)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_film_changes_nothing_at_its_start_and_draws_nothing(hidden):
    made = []
    for film in (False, True):
        torch.manual_seed(3)
        made.append((MADE(DIM, CONTEXT, hidden, film=film), torch.randn(7, DIM), torch.randn(7, CONTEXT)))
    (plain, z, h), (filmed, same_z, same_h) = made
    assert torch.equal(z, same_z) and torch.equal(h, same_h), "making G = 0 moved the generator on"
    for expected, got in zip(plain(z, h), filmed(same_z, same_h), strict=True):
        assert torch.equal(expected, got)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_film_is_its_formula_and_keeps_the_order(hidden):
    made = MADE(DIM, CONTEXT, hidden, outputs=1, reverse=True, film=True).double()
    torch.nn.init.normal_(made.film.weight)
    z, h = torch.randn(7, DIM).double(), torch.randn(7, CONTEXT).double()
    first = made.layers[0]
    out = (1 + h @ made.film.weight.T) * (z @ (first.mask * first.weight).T + first.bias) + h @ made.context.weight.T
    for layer in made.layers[1:]:
        out = layer(torch.nn.functional.elu(out))
    assert_close(made(z, h)[0], out, 1e-14)
    (value,) = jacobian(lambda z: made(z, h[0]), z[0])
    assert torch.equal(value.tril(), torch.zeros(DIM, DIM).double())


@pytest.mark.parametrize("hidden", HIDDEN)
def test_film_learns_from_its_start_on(hidden):
    made = MADE(DIM, CONTEXT, hidden, film=True).double()
    sum((out**2).sum() for out in made(torch.randn(9, DIM).double(), torch.randn(9, CONTEXT).double())).backward()
    assert not made.film.weight.any() and made.film.weight.grad.abs().min() > 0


def test_film_without_a_context_is_refused():
    with pytest.raises(ValueError, match="film=True scales by the context, but context is 0; give a width"):
        MADE(DIM, film=True)


@pytest.mark.parametrize("dim", [1, 2])
def test_small_dimensions_work(dim):
    m, s = MADE(dim, CONTEXT, (8,))(torch.randn(3, dim), torch.randn(3, CONTEXT))
    assert m.shape == s.shape == (3, dim)


@pytest.mark.parametrize("arguments", [dict(dim=0), dict(dim=2, outputs=0), dict(dim=2, context=-1)])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="MADE needs dim >= 1, outputs >= 1 and context >= 0"):
        MADE(**arguments)
