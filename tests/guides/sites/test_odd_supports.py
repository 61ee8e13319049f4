"""Sites that are no vectors of real numbers: directions with an exact posterior, and maps to every other support."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close, inverse
from pyro import poutine
from pyro.distributions import constraints
from torch import nn

from dlvm.distributions import DiagonalNormal, FullRankNormal, VonMisesFisherDirection, positive
from dlvm.guides import IAF, Chain, Diagonal, FullRank, Joint, Ladder, Latent, Sylvester, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, check, log_weights
from dlvm.nets import MLP

GUIDES = {"diagonal": Diagonal, "full_rank": FullRank, "iaf": IAF, "sylvester": partial(Sylvester, depth=2)}
every_guide = pytest.mark.parametrize("name", GUIDES)
C, S2 = 1.5, 0.4
independent = constraints.independent


def compass(x):
    """z uniform on the sphere, x ~ N(C z, S2 I): z | x is von Mises-Fisher around x, kappa = C |x| / S2."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.ProjectedNormal(x.new_zeros(3)))
        pyro.sample("x", dist.Normal(C * z, S2**0.5).to_event(1), obs=x)


def log_px(x):
    kappa = C * x.norm(dim=-1) / S2
    log_mean = kappa + torch.log1p(-torch.exp(-2 * kappa)) - torch.log(2 * kappa)  # log sinh(kappa) / kappa
    return -1.5 * math.log(2 * math.pi * S2) - (x.square().sum(-1) + C**2) / (2 * S2) + log_mean


def on_compass(Guide=Diagonal):
    x = 1.3 * nn.functional.normalize(torch.randn(6, 3), dim=-1)  # of one length: kappa is the same for all
    return Guide(latents(compass, x), MLP(3, activation=nn.Identity)), x


@every_guide
def test_a_direction_has_the_exact_posterior_by_hand(name, float64):
    """The posterior of a linear encoder holds the true one: every weight is p(x)."""
    guide, x = on_compass(GUIDES[name])
    head = guide.posteriors[0].head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:3] = torch.eye(3)
        head.bias[3] = inverse(positive, torch.tensor(C * 1.3 / S2))
    assert_close(log_weights(compass, guide, x, num_particles=4), log_px(x).expand(4, -1), 1e-9)


@pytest.mark.slow
def test_training_finds_the_direction():
    guide, x = on_compass()
    gap = [(log_px(x) - log_weights(compass, guide, x, num_particles=500).mean(0)).mean()]
    svi = SVI(compass, guide, partial(torch.optim.Adam, lr=0.05), ELBO(4, estimator=STL()))
    for _ in range(250):
        svi.step(x)
    gap.append((log_px(x) - log_weights(compass, guide, x, num_particles=500).mean(0)).mean())
    assert gap[0] > 0.5 and abs(gap[1]) < 0.02


def test_a_direction_is_checked_overridden_and_a_parent():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.ProjectedNormal(torch.zeros(3)))
            z1 = pyro.sample("z1", dist.Normal(z2[..., :2], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)

    class Held(VonMisesFisherDirection):
        """The same family under another name."""

    x = torch.randn(5, 2)
    spec = latents(model, x)
    guide = FullRank(spec, MLP(2, 8))
    assert [type(part) for part in guide.posteriors] == [VonMisesFisherDirection, FullRankNormal]
    assert set(check(model, guide, IWAE(3), x)) == {"z2", "z1"}
    means = []
    for sign in (1.0, -1.0):
        z2 = torch.tensor([sign, 0.0, 0.0]).expand(5, 3)
        means.append(poutine.trace(poutine.condition(guide, {"z2": z2})).get_trace(x).nodes["z1"]["fn"].mean)
    assert not torch.allclose(*means, atol=1e-4)
    assert type(Diagonal(spec, MLP(2, 8), posteriors={"z2": Held}).posteriors[0]) is Held
    assert Chain(spec, MLP(2, 8))(x)["z2"].norm(dim=-1).sub(1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="'z2' is a direction and has no place in one real vector"):
        Joint(spec, MLP(2, 8))
    with pytest.raises(ValueError, match="'z2' has support Sphere"):
        Ladder(spec, MLP(2, 8), model)


@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_other_spheres_are_refused_with_the_remedy(shape):
    support = independent(constraints.sphere, 1) if len(shape) == 2 else constraints.sphere
    with pytest.raises(ValueError, match=r"on a sphere; .*shape \(d,\) with d of at least 2.*sites of their own"):
        Diagonal({"z": Latent(torch.Size(shape), support)}, MLP(4, 8))


def test_a_support_without_a_map_is_refused_by_name():
    with pytest.raises(ValueError, match="'z' has support UnitLowerCholesky.*no map from real vectors"):
        Diagonal({"z": Latent(torch.Size([2, 2]), constraints.unit_lower_cholesky)}, MLP(4, 8))


def all_of(z):
    return z.reshape(len(z), -1)


def but_last(z):
    return z[..., :-1]


def triangle(z, offset=0):
    rows, columns = torch.tril_indices(z.shape[-2], z.shape[-1], offset)
    return z[..., rows, columns]


SUPPORTS = {  # shape, support, the coordinates that the density is over
    "positive": ((), constraints.positive, all_of),
    "positive_matrix": ((2, 2), independent(constraints.positive, 2), all_of),
    "parts_named": ((2, 2), constraints.positive, all_of),
    "unit_interval": ((3,), independent(constraints.unit_interval, 1), all_of),
    "interval": ((2,), independent(constraints.interval(-1.0, torch.tensor([2.0, 5.0]).double()), 1), all_of),
    "greater_than": ((), constraints.greater_than(2.0), all_of),
    "less_than": ((2,), independent(constraints.less_than(-1.0), 1), all_of),
    "simplex": ((4,), constraints.simplex, but_last),
    "simplices": ((2, 3), independent(constraints.simplex, 1), lambda z: z[..., :-1].flatten(1)),
    "ordered": ((3,), constraints.ordered_vector, all_of),
    "positive_ordered": ((3,), constraints.positive_ordered_vector, all_of),
    "corr_cholesky": ((3, 3), constraints.corr_cholesky, partial(triangle, offset=-1)),
    "correlation": ((3, 3), constraints.corr_matrix, partial(triangle, offset=-1)),
    "lower_cholesky": ((3, 3), constraints.lower_cholesky, triangle),
    "covariance": ((2, 2), constraints.positive_definite, triangle),
}
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def log_det(u, map_, chart):
    """log |d chart(map(u)) / du| by autograd, one row at a time."""
    jacobian = torch.autograd.functional.jacobian(lambda v: chart(map_(v)).sum(0), u.detach()).transpose(0, 1)
    assert jacobian.shape == (len(u), u.shape[1], u.shape[1])
    return torch.linalg.slogdet(jacobian).logabsdet


@every_guide
@pytest.mark.parametrize("support", SUPPORTS)
def test_density_is_that_of_an_independent_change_of_variables(name, support, float64):
    shape, constraint, chart = SUPPORTS[support]
    guide = GUIDES[name]({"z": Latent(torch.Size(shape), constraint)}, MLP(4, 5))
    site = poutine.trace(guide).get_trace(X.double()).nodes["z"]
    q, z = site["fn"], site["value"]
    assert z.shape == (3, *shape) and constraint.check(z).all()
    u, through = z, torch.distributions.ComposeTransform(guide.sites[0].parts)
    for part in reversed(q.transforms):  # the very draw, by the caches
        u = part.inv(u)
    assert_close(guide.sites[0].flatten(z), u, 1e-7)
    assert_close(q.log_prob(z), q.base_dist.log_prob(u) - log_det(u, through, chart), 1e-8)
    (q.log_prob(z).sum() + z.pow(3).sum() + z.reshape(3, -1).cumsum(-1).sin().sum()).backward()
    for parameter, value in guide.named_parameters() if u.shape[1] > 1 else ():  # one number has nothing to mix with
        assert value.grad is not None and value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("family", [DiagonalNormal, FullRankNormal])
@pytest.mark.parametrize("support", SUPPORTS)
def test_joint_has_the_same_density(support, family, float64):
    shape, constraint, chart = SUPPORTS[support]
    spec = {"z2": Latent(torch.Size(shape), constraint), "z1": Latent(torch.Size([2]))}
    guide = Joint(spec, MLP(4, 5), family)
    trace = poutine.trace(guide).get_trace(X.double())
    trace.compute_log_prob()
    u, part = trace.nodes["joint"]["value"], guide.parts["z2"]
    through = torch.distributions.ComposeTransform(part.parts)
    assert constraint.check(trace.nodes["z2"]["value"]).all()
    assert_close(trace.nodes["z2"]["log_prob"], -log_det(u[:, : part.size], through, chart), 1e-8)
    assert trace.nodes["z1"]["log_prob"].abs().max() == 0


PRIORS = {
    "gamma": lambda: dist.Gamma(2.0, 1.0),
    "beta": lambda: dist.Beta(2.0, 3.0),
    "uniform": lambda: dist.Uniform(-1.0, 2.0),
    "pareto": lambda: dist.Pareto(torch.tensor(1.0), 3.0),
    "two_gammas": lambda: dist.Gamma(torch.tensor([1.5, 3.0]), 1.0).to_event(1),
    "dirichlet": lambda: dist.Dirichlet(torch.tensor([1.5, 2.0, 3.0])),
    "lkj_cholesky": lambda: dist.LKJCholesky(2, 1.5),
    "lkj": lambda: dist.LKJ(2, torch.tensor(1.5)),
    "wishart": lambda: dist.Wishart(torch.tensor(4.0), torch.tensor([[1.0, 0.3], [0.3, 0.8]])),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_integrate_to_one_over_the_free_numbers(name, float64):
    """int p(f(u)) |df/du| du = 1: the guide's density is over the same coordinates as the model's."""
    prior = PRIORS[name]()
    site = Diagonal({"z": Latent(prior.event_shape, prior.support)}, MLP(4, 5)).sites[0]
    reach, points = {1: (18.0, 3601), 2: (16.0, 321), 3: (8.0, 65)}[site.size]
    axis = torch.linspace(-reach, reach, points)
    u = torch.cartesian_prod(*[axis] * site.size).reshape(-1, site.size)
    log_p = torch.zeros(())
    for part in site.parts:
        z = part(u)
        log_p = log_p + part.log_abs_det_jacobian(u, z)
        u = z
    with pyro.validation_enabled(False):
        log_p = log_p.reshape(len(u)) + prior.log_prob(u)
    assert_close(log_p.exp().sum() * (axis[1] - axis[0]) ** site.size, 1.0, 1e-4)
