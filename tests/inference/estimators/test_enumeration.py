"""Enumeration: exact bound and gradient of discrete latents, several sites, masks, and what has no list of values."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.inference import ELBO, SVI, VIMCO, Enumeration, check, supervised, tempered

ROWS = 4
X = torch.linspace(-1, 2, ROWS)
VALUES = list(itertools.product([0.0, 1.0], range(3)))  # of a, of b


class Model(PyroModule):
    """Two causes, the second given the first; ``seen`` masks the second for some rows."""

    def __init__(self) -> None:
        super().__init__("model")
        self.a, self.b = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.randn(2, 3))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> None:
        seen = torch.ones(len(x), dtype=torch.bool) if seen is None else seen
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=self.a))
            b = pyro.sample("b", dist.Categorical(logits=self.b[a.long()]).mask(seen))
            pyro.sample("x", dist.Normal(a + torch.where(seen, b, 0), 0.7), obs=x)


class Guide(PyroModule):
    """The first cause given x, the second given x and the first."""

    def __init__(self, looped: bool = False) -> None:
        super().__init__("guide")
        self.a, self.b, self.looped = nn.Linear(1, 1), nn.Linear(2, 3), looped

    def forward(self, x: Tensor, seen: Tensor | None = None) -> None:
        seen = torch.ones(len(x), dtype=torch.bool) if seen is None else seen
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=self.a(x[:, None])[:, 0]))
            if self.looped and a.dim() > 1:  # a net that takes no particles
                a = a.reshape(-1)[: len(x)]
            pyro.sample("b", dist.Categorical(logits=self.b(torch.stack([x.expand_as(a), a], -1))).mask(seen))


def pair(looped: bool = False) -> tuple[Model, Guide]:
    pyro.set_rng_seed(1)
    return Model(), Guide(looped)


def by_hand(model: Model, guide: Guide, x: Tensor, beta: float = 1.0) -> Tensor:
    """sum_ab q(a, b | x) log w(a, b) over data, from traces at each of the values."""
    total: Tensor = torch.zeros(())
    for a, b in VALUES:
        values = {"a": torch.full((len(x),), a), "b": torch.full((len(x),), b)}
        p, q = (poutine.trace(poutine.condition(program, values)).get_trace(x) for program in (model, guide))
        for trace in (p, q):
            trace.compute_log_prob()
        log_q = sum(q.nodes[name]["log_prob"] for name in "ab")
        ratio = log_q - sum(p.nodes[name]["log_prob"] for name in "ab")
        total = total + (log_q.exp() * (p.nodes["x"]["log_prob"] - beta * ratio)).sum()
    return total


@pytest.mark.parametrize("looped", [False, True], ids=["side by side", "one by one"])
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_bound_and_gradient_of_discrete_latents_are_exact(looped: bool, beta: float) -> None:
    model, guide = pair(looped)
    parameters = [*model.parameters(), *guide.parameters()]
    objective = ELBO(1, Enumeration())
    loss = tempered(objective, beta).differentiable_loss(model, guide, X)
    expected = by_hand(model, guide, X, beta)
    assert loss.item() == pytest.approx(-by_hand(model, guide, X).item(), rel=1e-5)
    for found, known in zip(
        torch.autograd.grad(-loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-4)


def test_it_is_the_mean_of_what_is_drawn() -> None:
    model, guide = pair()
    exact = ELBO(1, Enumeration()).loss(model, guide, X)
    drawn = torch.tensor([ELBO(500, VIMCO()).loss(model, guide, X) for _ in range(8)])
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / 8**0.5
    assert exact == ELBO(1, Enumeration()).loss(model, guide, X), "nothing is drawn"


def test_rows_that_are_masked_count_once() -> None:
    """The second site counts for some rows alone: what is left is the sum over the first."""
    model, guide = pair()
    seen = torch.tensor([True, False, True, False])
    whole = ELBO(1, Enumeration()).loss(model, guide, X, seen)
    parts = [ELBO(1, Enumeration()).loss(model, guide, X[rows], seen[rows]) for rows in (seen, ~seen)]
    assert whole == pytest.approx(sum(parts), rel=1e-5)
    without = torch.zeros(())
    for a in (0.0, 1.0):
        log_q = dist.Bernoulli(logits=guide.a(X[~seen][:, None])[:, 0]).log_prob(torch.tensor(a))
        log_p = dist.Bernoulli(logits=model.a).log_prob(torch.tensor(a)) + dist.Normal(a, 0.7).log_prob(X[~seen])
        without = without + (log_q.exp() * (log_p - log_q)).sum()
    assert parts[1] == pytest.approx(-without.item(), rel=1e-5)


def test_captured_steps_are_eager_ones() -> None:
    losses = []
    for engine in ("eager", "captured"):
        model, guide = pair()
        svi = SVI(model, guide, lambda p: torch.optim.SGD(p, lr=0.05), ELBO(2, Enumeration()), engine=engine)
        losses.append([svi.step(X.roll(k)) for k in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][-1] < losses[0][0]


def test_a_pair_without_discrete_sites_is_as_under_the_total_derivative() -> None:
    class Location(PyroModule):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.loc = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc, 1.0))
                if self._pyro_name == "model":
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    model, guide = Location("model"), Location("guide")
    found = []
    for estimator in (Enumeration(), None):
        pyro.set_rng_seed(0)
        found.append(ELBO(3, estimator).loss(model, guide, X))
    assert found[0] == found[1]


def test_what_has_no_list_of_values_is_refused() -> None:
    class Count(PyroModule):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.rate = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                n = pyro.sample("n", dist.Poisson(self.rate.abs()))
                if self._pyro_name == "model":
                    pyro.sample("x", dist.Normal(n, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"'n' \(Poisson\) has no list of them.*pass estimator=VIMCO"):
        check(Count("model"), Count("guide"), ELBO(1, Enumeration()), X)


class Several(PyroModule):
    """Three bits of each datum, in a plate of their own, summed by x; data in a plate or one by one."""

    def __init__(self, name: str, looped: bool) -> None:
        super().__init__(name)
        self.logit, self.looped = nn.Parameter(torch.tensor(0.3)), looped

    def forward(self, x: Tensor) -> None:
        if self.looped:
            for i in pyro.plate("data", len(x)):
                self.datum(f"_{i}", x[i], ())
        else:
            with pyro.plate("data", len(x), dim=-2):
                self.datum("", x[:, None], (len(x), 3))

    def datum(self, which: str, x: Tensor, shape: tuple) -> None:
        with pyro.plate("places", 3, dim=-1) if shape else nullcontext():
            bits = pyro.sample(f"bits{which}", dist.Bernoulli(logits=self.logit.expand(shape)))
        if self._pyro_name == "model":
            pyro.sample(f"x{which}", dist.Normal(bits.sum(-1, keepdim=True) if shape else bits, 1.0), obs=x)


@pytest.mark.parametrize(("looped", "plate"), [(False, "places"), (True, "data")])
def test_several_variables_of_one_datum_are_refused_instead_of_having_one_value(looped: bool, plate: str) -> None:
    with pytest.raises(ValueError, match=rf"plate \['{plate}'\] makes it several variables.*one vectorised plate"):
        ELBO(1, Enumeration()).loss(Several("model", looped), Several("guide", looped), X)


def test_supervised_reports_the_bound_and_composes() -> None:
    """Without labels in the guide it is the objective itself."""
    model, guide = pair()
    bare, aided = ELBO(1, Enumeration()), supervised(tempered(ELBO(1, Enumeration()), 1.0), 5.0)
    parameters = [*model.parameters(), *guide.parameters()]
    both = [torch.autograd.grad(each.differentiable_loss(model, guide, X), parameters) for each in (bare, aided)]
    assert bare.loss(model, guide, X) == aided.loss(model, guide, X)
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b)
