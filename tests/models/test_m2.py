"""M2: bounds summed by hand, mixed batches against separate ones, every way to say a label, and what is no label."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, Labelled, latents
from dlvm.inference import (
    ELBO,
    IWAE,
    VIMCO,
    Enumeration,
    Estimator,
    GumbelSoftmax,
    StraightThrough,
    evaluate,
    generate,
    log_weights,
    predict,
)
from dlvm.inference.programs.pair import Pair
from dlvm.models import M2
from dlvm.nets import MLP

CLASSES, WIDTH, SHARES = 3, 5, torch.tensor([0.5, 0.3, 0.2])
NAN = float("nan")


def pair(seed: int = 0) -> tuple[M2, Labelled]:
    """A small pair, far from its start so that classes matter."""
    pyro.set_rng_seed(seed)
    model = M2(CLASSES, 2, Bernoulli(MLP(CLASSES + 2, 8, WIDTH)), shares=SHARES)
    guide = Labelled(Diagonal(latents(model, torch.zeros(4, WIDTH)), MLP(WIDTH, 8)))
    with torch.no_grad():
        for p, far in [(p, 0.3) for p in model.parameters()] + [(p, 0.1) for p in guide.parameters()]:
            p.add_(far * torch.randn_like(p))
    return model, guide


MODEL, GUIDE = pair()
X = (torch.rand(6, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.5).float()
Y = torch.tensor([0, -1, 2, -1, -1, 1])


def by_hand(x: Tensor, y: int | None, draws: dict[int, Tensor]) -> Tensor:
    """The bound of one datum at one draw of z per class, from the densities alone."""
    q = GUIDE.guide
    h = q.features(x[None])
    log_q = q.posteriors[0](h).logits.log_softmax(-1)[0]
    total = torch.zeros(())
    for c in range(CLASSES) if y is None else [y]:
        one = torch.eye(CLASSES)[c][None]
        posterior = q.posteriors[1](h, one)
        z = draws[c][None]
        log_w = (
            SHARES[c].log() + MODEL.prior().log_prob(z) + MODEL.likelihood(one, z).log_prob(x) - posterior.log_prob(z)
        )
        total = total + (log_w[0] if y is not None else log_q[c].exp() * (log_w[0] - log_q[c]))
    return total


def draws_of(y: Tensor | None, seed: int, objective: ELBO) -> tuple[Tensor, list[Tensor]]:
    """The bound as it is reported, and what was drawn: z of each particle, shape (classes, batch, 2)."""
    pyro.set_rng_seed(seed)
    found = objective.draw(Pair(MODEL, GUIDE), (X, y), {})
    z = next(site["value"] for site in found.drawn if site["name"] == "z")
    return objective.value(found), z


@pytest.mark.parametrize("y", [None, Y, torch.full((6,), -1)], ids=["no labels", "some", "none of them"])
def test_the_enumerated_bound_is_a_sum_by_hand(y: Tensor | None) -> None:
    value, z = draws_of(y, 3, ELBO(1, Enumeration()))
    known = [-1] * 6 if y is None else y.tolist()
    for i, label in enumerate(known):
        expected = by_hand(X[i], None if label < 0 else label, {c: z[c, i] for c in range(CLASSES)})
        assert value[i].item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_enumerated_gradient_is_that_of_finite_differences() -> None:
    """Of the bound under one seed, whose noise does not depend on parameters; in double precision."""
    model, guide = (module.double() for module in pair())
    x, objective = X.double(), ELBO(2, Enumeration())

    def loss() -> Tensor:
        pyro.set_rng_seed(7)
        return objective.differentiable_loss(model, guide, x, Y)

    parameters = [*model.parameters(), *guide.parameters()]
    found = torch.autograd.grad(loss(), parameters)
    for p, gradient in zip(parameters, found, strict=True):
        at = int(gradient.abs().argmax())
        with torch.no_grad():
            p.view(-1)[at] += 1e-5
            above = loss()
            p.view(-1)[at] -= 2e-5
            below = loss()
            p.view(-1)[at] += 1e-5
        assert gradient.view(-1)[at].item() == pytest.approx((above - below).item() / 2e-5, rel=1e-5, abs=1e-7)


def test_a_mixed_batch_is_its_two_halves() -> None:
    """log p(x, y) of the labelled and log p(x) of the others, exactly by all classes and draws of z that are shared."""
    known = Y >= 0
    trace = poutine.trace(GUIDE).get_trace(X, Y)

    def weights(rows: Tensor, y: Tensor | None) -> Tensor:
        values = {name: trace.nodes[name]["value"][rows] for name in ("y", "z")}
        replayed = poutine.replay(GUIDE, trace=_traced(values))
        return log_weights(MODEL, replayed, X[rows], *([] if y is None else [y]))[0]

    together = weights(torch.ones(6, dtype=torch.bool), Y)
    torch.testing.assert_close(together[known], weights(known, Y[known]))
    torch.testing.assert_close(together[~known], weights(~known, None))


def _traced(values: dict[str, Tensor]) -> poutine.Trace:
    def program() -> None:
        with pyro.plate("data", len(values["y"])):
            for name, value in values.items():
                pyro.sample(name, pyro.distributions.Delta(value, event_dim=1))

    return poutine.trace(program).get_trace()


def test_log_px_is_the_sum_of_that_of_all_classes() -> None:
    """log p(x) = log sum_y p(x, y), each by importance sampling, datum by datum."""

    def log_p(*args: Tensor) -> Tensor:
        pyro.set_rng_seed(0)
        return log_weights(MODEL, GUIDE, *args, num_particles=20_000).logsumexp(0) - math.log(20_000)

    joint = torch.stack([log_p(X, torch.full((6,), c)) for c in range(CLASSES)])
    torch.testing.assert_close(joint.logsumexp(0), log_p(X), atol=0.05, rtol=0)
    found = evaluate(MODEL, GUIDE, [(X, torch.full((6,), -1))], num_particles=100)
    assert found.bits_per_dim == pytest.approx(-found.log_px / WIDTH / math.log(2), rel=1e-6)


@pytest.mark.parametrize(
    "y",
    [
        Y.float(),
        torch.where(Y < 0, NAN, Y.double()),
        Y.to(torch.int8),
        torch.where((Y < 0)[:, None], 0.0, torch.eye(CLASSES)[Y.clamp(min=0)]),
    ],
    ids=["float", "nan", "int8", "one-hot"],
)
def test_labels_of_every_kind_say_the_same(y: Tensor) -> None:
    expected, _ = draws_of(Y, 0, ELBO(2, VIMCO()))
    found, _ = draws_of(y, 0, ELBO(2, VIMCO()))
    assert torch.equal(found, expected)


def test_truth_values_are_two_classes() -> None:
    model = M2(2, 1, Bernoulli(MLP(3, WIDTH)))
    y = poutine.trace(model).get_trace(X, X[:, 0].bool()).nodes["y"]["value"]
    assert torch.equal(y[:, 1], X[:, 0])
    with pytest.raises(ValueError, match="y of truth values is for 2 classes, got 3"):
        MODEL(X, X[:, 0].bool())


@pytest.mark.parametrize(
    "y, error, said",
    [
        (torch.tensor([0, 1, 2, 3, 0, 0]), ValueError, "classes 0 to 2, or -1 or NaN where there is no label, got 3"),
        (torch.tensor([0, 1, -2, 0, 0, 0]), ValueError, "got -2; number the classes from 0"),
        (torch.full((6,), 0.5), ValueError, "got 0.5"),
        (torch.full((6,), math.inf), ValueError, "got inf"),
        (Y[:5], ValueError, r"one label for each of 6 data, shape \(6,\), or one-hot vectors, \(6, 3\), got \(5,\)"),
        (Y[:, None], ValueError, r"got \(6, 1\); pass the numbers of the classes"),
        (torch.full((6, 3), 0.5), ValueError, "must be one-hot vectors"),
        (Y.tolist(), TypeError, "y must be a tensor of labels, one for each datum, got list"),
        (Y.to(torch.complex64), TypeError, "got torch.complex64"),
    ],
)
def test_what_is_no_label_is_refused_by_model_and_guide(y: object, error: type, said: str) -> None:
    for program in (MODEL, GUIDE):
        with pytest.raises(error, match=said):
            program(X, y)


def test_a_class_without_a_label_is_still_one_of_the_classes() -> None:
    """Nothing is learnt of which number it has, and data of it are as likely as the model makes them."""
    y = torch.where(Y == 2, -1, Y)
    value, _ = draws_of(y, 0, ELBO(1, Enumeration()))
    assert value.isfinite().all()
    shares = predict(MODEL, GUIDE, (X, y), "y", num_particles=200).probabilities
    assert shares.shape == (6, CLASSES) and (shares[y < 0, 2] > 0).all()


def test_the_class_is_predicted_where_it_is_not_given() -> None:
    """By Bayes' rule of the model, against a sum over classes with z integrated by a fine grid."""
    side = torch.linspace(-6, 6, 61)
    z = torch.cartesian_prod(side, side)
    log_pz = MODEL.prior().log_prob(z)
    joint = torch.stack(
        [
            SHARES[c].log()
            + (MODEL.likelihood(torch.eye(CLASSES)[c].expand(len(z), -1), z).log_prob(X[:, None]) + log_pz).logsumexp(
                -1
            )
            for c in range(CLASSES)
        ],
        -1,
    )
    expected = joint.softmax(-1)
    found = predict(MODEL, GUIDE, (X, None), "y", num_particles=4000).probabilities
    assert (found - expected).abs().max() < 0.03
    certain = predict(MODEL, GUIDE, (X, Y), "y", num_particles=50).probabilities
    assert torch.equal(certain[Y >= 0], torch.eye(CLASSES)[Y[Y >= 0]])


def test_x_is_drawn_given_classes() -> None:
    assert MODEL(y=torch.tensor([2, 2, -1, 0])).shape == (4, WIDTH)
    drawn = poutine.trace(MODEL).get_trace(y=torch.full((50,), 1)).nodes["y"]["value"]
    assert torch.equal(drawn, torch.eye(CLASSES)[1].expand(50, -1))
    assert generate(MODEL, n=3, given={"y": torch.eye(CLASSES)})["x"].shape == (3, WIDTH)


def test_iwae_sums_no_drawn_class_and_says_so() -> None:
    with pytest.raises(ValueError, match="Enumeration sums q.* right for the ELBO alone, got IWAE"):
        IWAE(4, Enumeration())


@pytest.mark.parametrize("estimator", [GumbelSoftmax(), StraightThrough()])
def test_relaxed_draws_leave_labels_alone(estimator: Estimator) -> None:
    """What is certain is as certain relaxed: y is the label, and q(y | x) gets no gradient."""
    y = Y.clamp(min=0)
    pyro.set_rng_seed(0)
    objective = ELBO(2, estimator)
    loss = objective.differentiable_loss(MODEL, GUIDE, X, y)
    parameters = [*GUIDE.guide.posteriors[0].parameters(), *GUIDE.guide.posteriors[1].parameters()]
    found = [torch.zeros(()) if g is None else g for g in torch.autograd.grad(loss, parameters, allow_unused=True)]
    assert all(g.isfinite().all() for g in found)
    assert all(not g.any() for g in found[:2]) and any(g.any() for g in found[2:])
    drawn = objective.draw(Pair(MODEL, GUIDE), (X, y), {}).drawn
    value = next(site["value"] for site in drawn if site["name"] == "y")
    assert torch.equal(value, torch.eye(CLASSES)[y].expand(2, -1, -1))


def test_prior_shares_weigh_labels() -> None:
    """log p(x, y) - log p(x | y) is log p(y)."""
    site = poutine.trace(MODEL).get_trace(X, Y).nodes["label"]
    expected = torch.where(Y >= 0, SHARES.log()[Y], 0.0)
    torch.testing.assert_close(site["fn"].log_prob(site["value"]), expected)
    for shares in ([1.0, 2.0], [1.0, -1.0, 1.0], [0.0, 1.0, 1.0], [NAN, 1.0, 1.0]):
        with pytest.raises(ValueError, match="shares must be a positive number for each of 3 classes"):
            M2(3, 2, Bernoulli(MLP(5, WIDTH)), shares=shares)
