"""Leapfrog steps on the model's density carry a guide's draws, and the bound stays one."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, LinearGaussian, assert_close, gauss_hermite
from oracles.forcing import Forced
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, Joint, Ladder, StudentT, latents
from dlvm.guides.hamiltonian import Hamiltonian, HamiltonianModel
from dlvm.guides.leapfrog import Leapfrog
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, check, evaluate, log_weights
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

XS = torch.stack([X_1, -X_1, X_1 + 1])
CORRELATED = LinearGaussian(GOLDEN_1.weight @ torch.tensor([[1.0, 0.9], [0.0, 0.5]]).double(), GOLDEN_1.mu, GOLDEN_1.s2)


class LinearNormal(nn.Module):
    """N(W c + b, L L^T), whose covariance is the same for every context c."""

    def __init__(self, net, dim):
        super().__init__()
        self.net, self.head = net, nn.Linear(net.out_features, dim)
        self.tril = nn.Parameter(torch.eye(dim) + 0.1 * torch.randn(dim, dim))

    def forward(self, *context):
        return dist.MultivariateNormal(self.head(self.net(*context)), scale_tril=self.tril.tril())


def linear_pair(steps, oracle=GOLDEN_1, leaps=1, size=0.2):
    """A linear model, reverse model and guide; the start of the guide is diagonal."""
    pyro.set_rng_seed(0)
    model = PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt()).requires_grad_(False)
    spec, linear = latents(model, XS), {"family": LinearNormal, "hidden": ()}
    encoders = [MLP(4, activation=nn.Identity) for _ in range(2)]
    hamiltonian = HamiltonianModel(model, spec, encoders[0], steps, leaps, size, **linear).double()
    start = Diagonal(spec, encoders[1])
    nn.init.zeros_(start.posteriors[0].head.weight[2:])  # variances are the same for every x
    return hamiltonian, Hamiltonian(start, hamiltonian, **linear).double()


def carried(oracle, hamiltonian, guide, x, noise):
    """[z_T, v_1, .., v_T] for noise (n, 2 (T + 1)), by the matrices of a linear leapfrog; differentiable."""
    e0, *rest = noise.split(2, -1)
    q0 = guide.guide.posteriors[0](x).base_dist
    z, momenta, mean = q0.loc + q0.scale * e0, [], oracle.posterior(x).loc
    half = oracle.precision / 2
    for t, (momentum, e) in enumerate(zip(guide.momenta, rest, strict=True)):
        q = momentum(x, z)
        v = q.loc + e @ q.scale_tril.mT if q.scale_tril.dim() == 2 else q.loc + (q.scale_tril @ e[..., None])[..., 0]
        size = hamiltonian.leapfrog.log_size[t].exp()
        for _ in range(hamiltonian.leapfrog.leaps):
            middle = v - size * ((z - mean) @ half)
            z = z + size * middle
            v = middle - size * ((z - mean) @ half)
        momenta.append(v)
    return torch.cat([z, *momenta], -1)


def exact_bound(oracle, hamiltonian, guide, x):
    """E log w of one x (1, 4): a quadratic in the noise, by two nodes per dimension."""
    nodes, log_weight = gauss_hermite(2, 2 * (1 + len(guide.momenta)))
    rows = x.expand(len(nodes), -1)
    forced = Forced({"trajectory": carried(oracle, hamiltonian, guide, rows, nodes)})(guide)
    return log_weight.exp() @ log_weights(hamiltonian, forced, rows)[0]


def moments(oracle, hamiltonian, guide, x):
    """The exact Gaussian of [z_T, v_1, .., v_T]: the map from noise is affine."""
    dim = 2 * (1 + len(guide.momenta))
    points = torch.cat([torch.zeros(1, dim), torch.eye(dim)])
    at = carried(oracle, hamiltonian, guide, x.expand(dim + 1, -1), points).detach()
    slope = at[1:] - at[0]
    return Gaussian(at[0], slope.T @ slope)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("steps", "leaps"), [(1, 1), (2, 1), (1, 3)])
def test_its_bound_is_below_that_of_its_exact_marginal(steps, leaps):
    pair, x = linear_pair(steps, leaps=leaps), XS[:1]
    joint = moments(GOLDEN_1, *pair, x)
    marginal = GOLDEN_1.elbo(x[0], Gaussian(joint.loc[:2], joint.cov[:2, :2]))
    assert exact_bound(GOLDEN_1, *pair, x) < marginal - 1e-3 < GOLDEN_1.log_px(x[0]) - 1e-3


@pytest.mark.usefixtures("float64")
def test_with_the_exact_reverse_model_it_is_the_marginals():
    hamiltonian, guide = pair = linear_pair(1)
    x = XS[:1]
    joint = moments(GOLDEN_1, *pair, x)
    gain = torch.linalg.solve(joint.cov[:2, :2], joint.cov[:2, 2:]).T
    reverse = hamiltonian.reverse[0]
    with torch.no_grad():
        reverse.head.weight.copy_(torch.cat([torch.zeros(2, 4), gain], 1))
        reverse.head.bias.copy_(joint.loc[2:] - gain @ joint.loc[:2])
        reverse.tril.copy_(torch.linalg.cholesky(joint.cov[2:, 2:] - gain @ joint.cov[:2, 2:]))
    marginal = GOLDEN_1.elbo(x[0], Gaussian(joint.loc[:2], joint.cov[:2, :2]))
    assert_close(exact_bound(GOLDEN_1, *pair, x), marginal, 1e-9)


@pytest.mark.usefixtures("float64")
def test_one_trained_step_closes_the_gap_of_a_diagonal_start():
    pair, x = linear_pair(1, CORRELATED), XS[:1]
    parameters = [p for module in pair for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=150, history_size=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -exact_bound(CORRELATED, *pair, x)
        loss.backward()
        return loss

    optimizer.step(closure)
    gap = CORRELATED.log_px(x[0]) - exact_bound(CORRELATED, *pair, x)
    assert CORRELATED.diagonal_gap > 0.2
    assert -1e-9 < gap < 0.01 * CORRELATED.diagonal_gap


@pytest.mark.usefixtures("float64")
def test_the_draws_are_those_of_the_linear_map_and_have_its_density():
    pair, x = linear_pair(2), XS[:1].expand(40_000, -1)
    exact = moments(GOLDEN_1, *pair, XS[:1])
    site = poutine.trace(pair[1]).get_trace(x).nodes["trajectory"]
    drawn, found = site["value"].detach(), site["fn"].log_prob(site["value"])
    assert_close(found, exact.log_prob(drawn), 1e-9)
    assert_close(site["fn"].log_prob(drawn.clone()), found, 1e-9)
    z = (drawn.mean(0) - exact.loc) / (exact.cov.diagonal() / len(x)).sqrt()
    assert z.abs().max() < 4.5
    assert_close(torch.cov(drawn.T), exact.cov, 0.06 * exact.cov.abs().max())


@pytest.mark.usefixtures("float64")
def test_weights_average_to_the_evidence():
    pair = linear_pair(2)
    with torch.no_grad():
        w = (log_weights(*pair, XS, num_particles=40_000) - GOLDEN_1.log_px(XS)).exp()
    assert ((w.mean(0) - 1) / (w.std(0) / len(w) ** 0.5)).abs().max() < 4
    found = evaluate(*pair, XS, num_particles=4000)
    assert abs(found.log_px - GOLDEN_1.log_px(XS).mean()) < 5 * found.log_px_se


def quartic(u):
    return -(u**3) + 0.7 * u.flip(-1)


@pytest.mark.usefixtures("float64")
def test_leapfrog_runs_backwards_keeps_volume_and_energy_to_second_order():
    start, errors = torch.randn(7, 4), []
    leap = Leapfrog(2, 2, leaps=3, size=0.3)
    u, v = there = leap(1, *start.split(2, -1), quartic)
    assert (torch.cat(there, -1) - start).abs().min() > 1e-3
    assert_close(torch.cat(leap(1, u, v, quartic, back=True), -1), start, 1e-10)

    jacobian = torch.func.vmap(torch.func.jacrev(lambda w: torch.cat(leap(0, *w.split(2, -1), quartic), -1)))(start)
    assert_close(torch.linalg.det(jacobian), torch.ones(7), 1e-10)

    def energy(u, v):
        return (u**4 / 4 + v**2 / 2).sum(-1) - 0.7 * u.prod(-1)

    for leaps in (20, 40, 80):
        after = Leapfrog(1, 2, leaps, 1 / leaps)(0, *start.split(2, -1), quartic)
        errors.append((energy(*after) - energy(*start.split(2, -1))).abs().mean())
    assert 3.7 < errors[0] / errors[1] < 4.3 and 3.9 < errors[1] / errors[2] < 4.1


def binary_pair(Guide=Diagonal, steps=2):
    pyro.set_rng_seed(0)
    x = (torch.rand(6, 5) > 0.5).to(torch.get_default_dtype())
    model = VAE(2, Bernoulli(MLP(2, 6, 5, activation=nn.Tanh)))
    hamiltonian = HamiltonianModel(model, latents(model, x), MLP(5, 6, activation=nn.Tanh), steps)
    return hamiltonian, Hamiltonian(Guide(latents(model, x), MLP(5, 6, activation=nn.Tanh)), hamiltonian), x


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_the_gradient_of_every_parameter_is_that_of_finite_differences():
    hamiltonian, guide, x = binary_pair()
    parameters = dict(hamiltonian.named_parameters()) | dict(guide.named_parameters())

    def loss():
        pyro.set_rng_seed(3)
        return ELBO(2).differentiable_loss(hamiltonian, guide, x)

    gradients = torch.autograd.grad(loss(), list(parameters.values()))
    for (name, parameter), exact in zip(parameters.items(), gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            ends = []
            for sign in (1, -2):
                parameter += sign * 1e-5 * direction
                ends.append(loss())
            parameter += 1e-5 * direction
        assert (exact != 0).any(), name
        assert_close((ends[0] - ends[1]) / 2e-5, (exact * direction).sum(), 1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("objective", [partial(ELBO, 1), partial(IWAE, 3)], ids=["ELBO", "IWAE"])
def test_dreg_has_the_mean_of_the_total_gradient_for_step_sizes_model_and_guide(objective):
    hamiltonian, guide, x = binary_pair(steps=1)
    start, momentum = guide.guide.posteriors[0].head.bias, guide.momenta[0].head.bias
    decoder = hamiltonian.model.likelihood
    parameters = [hamiltonian.leapfrog.log_size, start, momentum, next(decoder.parameters())]
    rows, means, variances = x[:1].expand(500, -1), [], []
    for estimator in (None, DReG()):
        found = []
        for _ in range(60):
            loss = objective(estimator=estimator).differentiable_loss(hamiltonian, guide, rows)
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        found = torch.stack(found) / len(rows)
        means.append(found.mean(0))
        variances.append(found.var(0) / len(found))
    t = (means[0] - means[1]) / (variances[0] + variances[1]).sqrt()
    assert t.abs().max() < 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("Guide", "objective"),
    [(Diagonal, IWAE(3, DReG())), (Joint, ELBO(2, STL())), (partial(IAF, width=8), ELBO(2))],
)
def test_every_parameter_learns_and_captured_steps_are_the_eager_ones(Guide, objective):
    runs = []
    for engine in ("eager", "captured"):
        hamiltonian, guide, x = binary_pair(Guide)
        parameters = [*hamiltonian.parameters(), *guide.parameters()]
        before = [p.clone() for p in parameters]
        svi = SVI(hamiltonian, guide, partial(torch.optim.SGD, lr=1e-2), objective, engine=engine)
        losses = [svi.step(x) for _ in range(3)]
        assert all((a != b).any() for a, b in zip(before, parameters, strict=True))
        runs.append((losses, [p.detach() for p in parameters]))
    assert check(hamiltonian, guide, objective, x) == dict.fromkeys(["z", "v2", "v1"], "Monte Carlo")
    assert runs[0][0] == runs[1][0] and all(map(torch.equal, runs[0][1], runs[1][1]))


@pytest.mark.slow
def test_pyros_own_svi_trains_model_guide_and_step_sizes():
    hamiltonian, guide, x = binary_pair()
    before = hamiltonian.leapfrog.log_size.clone(), hamiltonian.model.likelihood.net.bias.clone()
    svi = pyro.infer.SVI(hamiltonian, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(40)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 30
    after = hamiltonian.leapfrog.log_size, hamiltonian.model.likelihood.net.bias
    assert all((a != b).all() for a, b in zip(after, before, strict=True))
    assert not set(map(id, guide.parameters())) & set(map(id, hamiltonian.parameters()))


def counts(x):
    """Two latents with supports of their own; the evidence is a beta-binomial's and a third."""
    with pyro.plate("data", len(x)):
        share = pyro.sample("share", dist.Beta(2.0, 3.0))
        kinds = pyro.sample("kinds", dist.Dirichlet(torch.ones(3)))
        pyro.sample("x", dist.Binomial(6, share), obs=x[:, 0])
        pyro.sample("y", dist.Categorical(kinds), obs=x[:, 1].long())


@pytest.mark.usefixtures("float64")
def test_constrained_sites_together_have_the_exact_evidence():
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 2.0]])
    spec = latents(counts, x)
    hamiltonian = HamiltonianModel(counts, spec, MLP(2, 4), steps=2)
    guide = Hamiltonian(StudentT(spec, MLP(2, 4), start=4.0, order="bottom_up"), hamiltonian)
    for module in (*guide.guide.posteriors, *guide.momenta, *hamiltonian.reverse):
        nn.init.zeros_(module.head.weight)  # heavy tails at the start, and equal ones of the momenta: bounded weights
        nn.init.zeros_(module.head.bias)
    shapes = {name: tuple(value.shape) for name, value in guide(x).items()}
    assert shapes == {"share": (3,), "kinds": (3, 3), "v2": (3, 3), "v1": (3, 3)}
    exact = dist.BetaBinomial(2.0, 3.0, 6).log_prob(x[:, 0]) - torch.tensor(3.0).log()
    with torch.no_grad():
        w = (log_weights(hamiltonian, guide, x, num_particles=40_000) - exact).exp()
    error = w.std(0) / len(w) ** 0.5
    assert error.max() < 0.03
    assert ((w.mean(0) - 1) / error).abs().max() < 4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("weight", "size"), [(1.0, None), (0.3, None), (1.0, 30)])
def test_the_slope_counts_each_datum_once_and_masked_ones_by_their_prior(weight, size):
    x, seen = torch.randn(3, 2), torch.tensor([True, False, True])

    def model(x):
        plate = pyro.plate("data", size or len(x), subsample_size=len(x) if size else None)
        with plate, poutine.scale(scale=weight):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    spec, u = latents(model, x), torch.randn(4, 3, 2)
    hamiltonian = HamiltonianModel(model, spec, MLP(2, 4), steps=2)
    with torch.no_grad():
        slope = hamiltonian.slope(torch.arange(3), (x,), {})(u)
    assert_close(slope, -u + seen[:, None] * (x - u), 1e-12)
    if weight == 1.0:
        guide = Hamiltonian(Diagonal(spec, MLP(2, 4)), hamiltonian)
        assert "v1" in check(hamiltonian, guide, IWAE(2), x)
        losses = []
        for value in (ELBO().loss, lambda *pair: -log_weights(*pair).sum().item()):
            pyro.set_rng_seed(1)
            losses.append(value(hamiltonian, guide, x))
        assert losses[0] == pytest.approx((size or 3) / 3 * losses[1])


def test_what_makes_no_sense_is_refused():
    hamiltonian, guide, x = binary_pair()
    model, encoder = hamiltonian.model, MLP(5, 6)
    spec = latents(model, x)
    for settings in ({"steps": 0}, {"leaps": 0}, {"size": 0.0}):
        with pytest.raises(ValueError, match="steps and leaps must be at least 1 and size positive"):
            HamiltonianModel(model, spec, encoder, **settings)
    with pytest.raises(ValueError, match="named 'v1', as one of the guide's own"):
        HamiltonianModel(model, {"v1": spec["z"]}, encoder)
    with pytest.raises(ValueError, match="'z' is discrete, and a density over it has no slope"):
        HamiltonianModel(model, {"z": spec["z"]._replace(support=dist.constraints.boolean)}, encoder)
    with pytest.raises(ValueError, match="needs data"):
        hamiltonian(None)
    for other in (model, Ladder(spec, encoder, model)):
        with pytest.raises(TypeError, match="guide must be an amortised guide"):
            Hamiltonian(other, hamiltonian)
    with pytest.raises(TypeError, match="model must be the HamiltonianModel"):
        Hamiltonian(guide.guide, model)
    with pytest.raises(ValueError, match=r"guide has the latent sites \['y'\] and the model \['z'\]"):
        Hamiltonian(Diagonal({"y": spec["z"]}, encoder), hamiltonian)
    both = HamiltonianModel(model, {"z": spec["z"], "y": spec["z"]}, encoder)
    with pytest.raises(ValueError, match="build both from the same latents"):
        Hamiltonian(Joint({"y": spec["z"], "z": spec["z"]}, encoder), both)


def test_a_function_that_declares_parameters_is_refused():
    def model(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.zeros(3, 2)
    spec = latents(model, x)
    hamiltonian = HamiltonianModel(model, spec, MLP(2, 4))
    with pytest.raises(TypeError, match="declares the parameter 'loc'"):
        Hamiltonian(Diagonal(spec, MLP(2, 4)), hamiltonian)(x)


def test_a_step_far_too_large_for_the_slope_still_gives_a_bound():
    """Counts of a Gamma rate on its exponential scale, whose slope at the start is in the hundreds."""
    shape, counts = 3.0, torch.tensor([400.0, 0.0, 3.0])

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(shape, 1.0))
            pyro.sample("x", dist.Poisson(rate), obs=x[:, 0])

    x = counts.unsqueeze(-1)
    exact = dist.NegativeBinomial(shape, torch.tensor(0.5)).log_prob(counts)
    pair = HamiltonianModel(model, latents(model, x), calm(), steps=2, size=0.3)
    guide = Hamiltonian(Diagonal(latents(model, x), calm()), pair)
    log_w = log_weights(pair, guide, x[1:], num_particles=20_000)
    weight = (log_w.double() - exact[1:]).exp()
    assert ((weight.mean(0) - 1) / (weight.std(0) / len(weight) ** 0.5)).abs().max() < 4
    assert log_weights(pair, guide, x, num_particles=50).isfinite().all()


def calm() -> MLP:
    """An encoder that large counts do not carry away."""
    net = MLP(1, 4)
    torch.nn.init.zeros_(net.layers[0].weight)
    return net
