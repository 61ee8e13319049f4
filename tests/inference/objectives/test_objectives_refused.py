"""Pairs and settings whose gradient would be wrong are refused, in words that say what to do."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.transforms import planar
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from dlvm.inference import (
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    RWS,
    STL,
    VIMCO,
    DReG,
    ScoreFunction,
    Separate,
    WakeSleep,
    check,
    fit,
    free_bits,
    linear,
    tempered,
    total_correlation,
)

XS = torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.7, 0.9], [0.1, 2.0]])


class Model(PyroModule):
    """z ~ N(0, I), x ~ N(w z, I); the decoder may normalise over the batch, and z may be masked."""

    def __init__(self, batch_norm: bool = False, mask: torch.Tensor | None = None):
        super().__init__("model")
        self.weight = nn.Parameter(torch.tensor([[0.8, 0.2], [0.0, 0.5]]))
        self.norm = nn.BatchNorm1d(2) if batch_norm else nn.Identity()
        self.mask = mask

    def forward(self, x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=True if self.mask is None else self.mask):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            h = self.norm(z.reshape(-1, 2)).reshape(z.shape)
            pyro.sample("x", dist.Normal(h @ self.weight, 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self, mask: torch.Tensor | None = None, flow: bool = False):
        super().__init__("guide")
        self.weight = nn.Parameter(torch.tensor([[0.3, 0.0], [0.1, 0.3]]))
        self.mask, self.flow = mask, planar(2) if flow else None

    def forward(self, x):
        q = dist.Normal(x @ self.weight, 0.7).to_event(1)
        if self.flow is not None:
            q = dist.TransformedDistribution(q, [self.flow])
        with pyro.plate("data", len(x)), poutine.mask(mask=True if self.mask is None else self.mask):
            pyro.sample("z", q)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Separate(model=CUBO(2.0, 4), guide=IWAE(4)), "must be a bound to be raised"),
        (lambda: Separate(model=IWAE(4, DReG()), guide=MIWAE(2, 2)), "estimators are for the guide alone"),
        (lambda: Separate(model=IWAE(4, VIMCO()), guide=IWAE(4)), "estimators are for the guide alone"),
        (lambda: RWS(1), "would never move the guide"),
        (lambda: CUBO(float("inf")), "order must be finite and at least 1"),
        (lambda: CUBO(float("nan")), "order must be finite and at least 1"),
        (lambda: tempered(ELBO(), {}), "beta names no site"),
        (lambda: tempered(ELBO(), float("nan")), "beta: value must be one finite number"),
        (lambda: free_bits(ELBO(), float("inf")), "nats must be finite and at least 0"),
        (lambda: free_bits(ELBO(), {"z": float("nan")}), "nats must be finite and at least 0"),
        (lambda: free_bits(ELBO(), 1.0, groups=2.0), "groups must be finite and at least 1, got 2.0"),
        (lambda: MIWAE(groups=2.0, num_particles=2), "groups and num_particles must be positive integers, got 2.0"),
    ],
)
def test_settings_without_a_meaning_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_single_particle_of_reweighted_wake_sleep_is_fine_with_dreams():
    assert RWS(1, sleep=0.5).num_particles == 1


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (WakeSleep(), "cannot be fitted to dreams of the model: automatic guides"),
        (RWS(3, sleep=0.5), "cannot be fitted to dreams of the model: automatic guides"),
        (tempered(ELBO(), {"z": 0.5}), "beta for single sites needs a KL for each latent site"),
        (free_bits(ELBO(), 0.5), "free_bits needs a KL for each latent site"),
    ],
)
def test_automatic_guides_have_no_site_of_their_own_to_dream_or_to_weigh(objective, words):
    model = Model()
    guide = AutoNormal(model)
    guide(XS)
    with pytest.raises(ValueError, match=words):
        objective.loss_and_grads(model, guide, XS)
    assert all(p.grad is None for p in guide.parameters())


def test_an_objective_whose_schedule_has_moved_does_not_start_another_run():
    run = partial(fit, train=[(XS,)] * 2, epochs=2, progress=False, engine="eager")
    objective = tempered(ELBO(), linear(0.0, 1.0, steps=4))
    assert len(list(run(Model(), Guide(), objective))) == 2
    with pytest.raises(ValueError, match="has made 4 steps in another run; make a new objective"):
        run(Model(), Guide(), objective)
    assert len(list(run(Model(), Guide(), objective.objective))) == 2


@pytest.mark.parametrize("estimator", [DReG(), VIMCO(everywhere=True), ScoreFunction(everywhere=True)], ids=repr)
def test_a_decoder_that_normalises_over_the_batch_needs_the_total_derivative(estimator):
    model, guide = Model(batch_norm=True), Guide()
    with pytest.raises(ValueError, match="normalises over the batch"):
        check(model, guide, IWAE(3, estimator), XS)
    assert check(model, guide, IWAE(3), XS) == {"z": "Monte Carlo"}
    assert model.norm.num_batches_tracked == 0
    assert check(model.eval(), guide, IWAE(3, estimator), XS) == {"z": "Monte Carlo"}


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide")
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3, DReG()), ELBO(analytic_kl=True), WakeSleep()], ids=repr)
def test_a_latent_that_the_model_is_conditioned_on_is_not_drawn_as_well(objective):
    conditioned = poutine.condition(Model(), data={"z": torch.ones(4, 2)})
    with pytest.raises(ValueError, match=r"guide draws \['z'\], which the model observes"):
        objective.loss(conditioned, Guide(), XS)


def test_masks_of_model_and_guide_must_be_the_same():
    mask, other = torch.tensor([True, True, False, False]), torch.tensor([True, False, False, False])
    for p, q in ((mask, None), (None, mask), (mask, other)):
        with pytest.raises(
            ValueError, match="'z' has a mask in the model that the guide's lacks, or .* put poutine.mask"
        ):
            check(Model(mask=p), Guide(mask=q), ELBO(), XS)
    assert check(Model(mask=mask), Guide(mask=mask.clone()), ELBO(), XS) == {"z": "Monte Carlo"}
    assert check(Model(mask=torch.ones(4, dtype=torch.bool)), Guide(), ELBO(), XS) == {"z": "Monte Carlo"}


def test_scales_are_compared_by_value_and_not_by_type():
    double, single = torch.tensor(2.0, dtype=torch.float64), torch.tensor(2.0)
    for scale in (double, single, 2.0):
        pair = poutine.scale(Model(), scale=scale), poutine.scale(Guide(), scale=2.0)
        assert check(*pair, IWAE(2, DReG()), XS) == {"z": "Monte Carlo"}
    with pytest.raises(ValueError, match="'z' has scale .*3.* in the model and 2.0 in the guide"):
        check(poutine.scale(Model(), scale=double + 1), poutine.scale(Guide(), scale=2.0), IWAE(2), XS)


def test_total_correlation_needs_draws_that_carry_a_gradient():
    detached = ScoreFunction(everywhere=True)
    for inner in (IWAE(2, detached), Separate(IWAE(2), IWAE(2, detached))):
        with pytest.raises(ValueError, match="goes through the draws, which .* treats as constants"):
            total_correlation(inner, 3.0).loss_and_grads(Model(), Guide(), XS)


@pytest.mark.parametrize("objective", [ELBO(3, STL()), IWAE(3, DReG())], ids=repr)
def test_a_flow_without_an_inverse_has_no_density_at_fixed_draws(objective):
    with pytest.raises(ValueError, match=r"no density for values other than its own last draw .* use Total\(\)"):
        objective.differentiable_loss(Model(), Guide(flow=True), XS)
    total = type(objective)(3)
    assert torch.isfinite(total.differentiable_loss(Model(), Guide(flow=True), XS))


def test_wake_sleep_needs_something_to_dream_of():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1), obs=x)

    for objective in (WakeSleep(), RWS(3)):
        with pytest.raises(ValueError, match=r"needs latent sites; for a model without, MaximumLikelihood\(\)"):
            objective.loss(model, lambda x: None, XS)


@pytest.mark.parametrize("objective", [IWAE(3), IWAE(3, DReG()), CUBO(2.0, 3)], ids=repr)
def test_only_a_bound_that_is_linear_in_the_log_weights_takes_a_subsampled_inner_plate(objective):
    def model(x):
        mean = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 100, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ValueError, match=r"plate 'data' around site 'x' is subsampled \(4 of 100\).* use ELBO"):
        objective.loss(model, guide, XS[:, 0])
