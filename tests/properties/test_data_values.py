"""Data of any shape, type and value: log p(x) as in closed form, or a refusal that names site and remedy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st

from dlvm.distributions import Bernoulli
from dlvm.evidence import exact, importance, views
from dlvm.experiments.data import Loader, from_tensor
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, NonFinite, check, evaluate, fit, log_weights
from dlvm.inference.programs.notes import said
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

WIDTH = 4
BINARY = VAE(2, Bernoulli(MLP(2, 6, WIDTH)))
LINEAR = PPCA(torch.linspace(-1, 1, 2 * WIDTH).view(WIDTH, 2), torch.zeros(WIDTH), 1.0)
ZEROS = torch.zeros(3, WIDTH)
GUIDES = {model: Diagonal(latents(model, ZEROS), MLP(WIDTH, 6)) for model in (BINARY, LINEAR)}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
SHAPES = [(1, WIDTH), (0, WIDTH), (3, WIDTH + 1), (3, 0), (WIDTH,), (), (2, 3, WIDTH)]
SPECIAL = [0.0, -0.0, 1.0, 0.5, 2.0, -1.0, 1e30, float("nan"), float("inf")]
REFUSALS = ValueError, TypeError, NonFinite


@st.composite
def tensors(draw) -> torch.Tensor:
    """Mostly matrices of the right width; views of every kind; a special value somewhere in one of three."""
    shape = draw(
        st.sampled_from([(3, WIDTH)] * 4 + [(1, WIDTH), (0, WIDTH), (3, 5), (3, 0), (WIDTH,), (), (2, 3, WIDTH)])
    )
    x = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))).float()
    if x.numel() and draw(st.integers(0, 2)) == 0:
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    dtype = draw(st.sampled_from(DTYPES[:1] * 4 + DTYPES))
    if not dtype.is_floating_point:
        x = x.nan_to_num(1.0).clamp(0, 2)
    x = x.to(dtype)
    kind = draw(st.sampled_from(["plain", "plain", "strided", "expanded", "wants a gradient"]))
    if kind == "strided" and x.dim() == 2:
        x = x.T.contiguous().T
    elif kind == "expanded" and x.dim() == 2 and len(x):
        x = x[:1].expand(3, -1)
    elif kind == "wants a gradient" and x.is_floating_point():
        x.requires_grad_()
    return x


def usable(x: torch.Tensor) -> bool:
    return x.dim() == 2 and x.shape[0] > 0 and x.shape[1] == WIDTH and not x.requires_grad and bool(x.isfinite().all())


def spelled_out(error: Exception) -> None:
    """A refusal of ours, or a program's own error with its class, which is told on which batch it failed."""
    text = said(error)
    assert len(text) > 30 and (";" in text or ":" in text), text
    assert isinstance(error, REFUSALS) or "fails so on a batch" in text, text


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


WORKS = {
    "evaluate": lambda m, x: evaluate(m, GUIDES[m], x, num_particles=5).log_px,
    "importance": lambda m, x: importance(m, GUIDES[m], x, num_particles=5).log_px.mean().item(),
    "views": lambda m, x: views(m, GUIDES[m], x, num_particles=2, draws=4).rate.value,
    "fit": lambda m, x: (
        next(fit(m, GUIDES[m], ELBO(2), [(x,)], epochs=1, engine="eager", progress=False, seed=0)).train
    ),
}


def hold(work: str, model, x: torch.Tensor) -> None:
    try:
        found = WORKS[work](model, x)
    except Exception as error:
        spelled_out(error)
    else:
        assert torch.tensor(found).isfinite(), f"{work} of {x} is {found}"
        assert usable(x), f"{work} takes {x}"
        assert model is LINEAR or bool(((x == 0) | (x == 1)).all())


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("model", [BINARY, LINEAR], ids=["binary", "linear"])
def test_a_number_is_finite_and_of_data_that_the_likelihood_can_have_produced(work, model):
    @quick(10)
    @given(tensors())
    def property(x):
        hold(work, model, x)

    property()


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("model", [BINARY, LINEAR], ids=["binary", "linear"])
def test_and_so_for_many_more(work, model):
    @quick(120)
    @given(tensors())
    def property(x):
        hold(work, model, x)

    property()


@quick(25)
@given(st.integers(1, 7), st.booleans(), st.booleans())
def test_any_number_of_data_however_they_lie_in_memory_have_their_exact_evidence(n, strided, twice):
    x = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(n))
    x = x.T.contiguous().T if strided else x
    weight = torch.linspace(-1, 1, 2 * WIDTH).view(WIDTH, 2)
    covariance = weight @ weight.T + torch.eye(WIDTH)
    expected = torch.distributions.MultivariateNormal(torch.zeros(WIDTH), covariance).log_prob(x)
    found = exact(PPCA(weight, torch.zeros(WIDTH), 1.0), [(x,), (x,)] if twice else x).log_px
    torch.testing.assert_close(found.float(), expected.repeat(1 + twice).detach(), atol=1e-4, rtol=1e-4)


@quick(60)
@given(tensors(), st.sampled_from([None, "static", "dynamic", "threshold"]))
def test_a_loader_has_the_rows_it_was_given_or_says_what_is_wrong(x, binarize):
    try:
        parts = from_tensor(x, binarize=binarize, valid=1, test=1)
    except Exception as error:
        spelled_out(error)
        return
    rows = torch.cat([part.x for part in parts])
    assert rows.isfinite().all() and rows.dtype is torch.get_default_dtype() and not rows.requires_grad
    assert len(rows) == len(x)
    if binarize is None:
        assert torch.equal(rows.double().sum(0), x.detach().flatten(1).float().double().sum(0))


def test_a_number_too_large_for_the_dtype_is_refused_and_not_made_infinite():
    with pytest.raises(ValueError, match="x must be finite, got 1 NaN or inf"):
        Loader(torch.tensor([[1e300, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("work", [lambda m, g, x: check(m, g, ELBO(), x), lambda m, g, x: log_weights(m, g, x)])
def test_a_guide_of_another_site_or_width_is_named(work):
    other = Diagonal({"w": GUIDES[BINARY].latents["z"]}, MLP(WIDTH, 6))
    with pytest.raises(ValueError, match="'w'|'z'"):
        work(BINARY, other, ZEROS)
    wide = Diagonal(latents(VAE(3, Bernoulli(MLP(3, WIDTH))), ZEROS), MLP(WIDTH, 6))
    with pytest.raises(ValueError, match="shape|features"):
        work(BINARY, wide, ZEROS)
