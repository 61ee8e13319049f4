"""VRNN, SRNN and STORN: densities are those of loops written by hand, draws follow them, and padding is not seen."""

from __future__ import annotations

from copy import deepcopy

import pyro
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.distributions import Bernoulli
from dlvm.guides import Sequential, latents
from dlvm.inference import FIVO, SVI
from dlvm.models import SRNN, STORN, VRNN
from dlvm.nets import MLP, Recurrent

X_DIM, Z_DIM, HIDDEN, STEPS = 3, 2, 4, 5
WIDTHS = {VRNN: 2 * HIDDEN, SRNN: Z_DIM + HIDDEN, STORN: HIDDEN}
LENGTHS = torch.tensor([5, 1, 3, 4])
each_model = pytest.mark.parametrize("kind", [*WIDTHS], ids=lambda kind: kind.__name__)


def made(kind: type) -> PyroModule:
    torch.manual_seed(0)
    model = kind(Z_DIM, X_DIM, HIDDEN, Bernoulli(MLP(WIDTHS[kind], X_DIM))).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return model


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randint(2, (4, STEPS, X_DIM)).double()
    return x, torch.randn(4, STEPS, Z_DIM).double()


def sites(model: PyroModule, z: Tensor) -> dict[str, Tensor]:
    """Values of the latent sites."""
    return {"z": z} if isinstance(model, STORN) else {f"z_{t + 1}": z[..., t, :] for t in range(z.shape[-2])}


def log_joint(model: PyroModule, z: Tensor, *args: object, **drawn: object) -> Tensor:
    """log p(x, z) of each sequence by the program, shape (batch,)."""
    values = sites(model, z) if z is not None else {}
    trace = poutine.trace(poutine.condition(model, {**values, **drawn.pop("values", {})})).get_trace(*args, **drawn)
    trace.compute_log_prob()
    return sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample" and site["name"] != "data")


def by_hand(model: PyroModule, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) of one sequence, shapes (T, x_dim) and (T, z_dim)."""
    h, last_x, last_z, total = (
        torch.zeros(1, HIDDEN).double(),
        torch.zeros(X_DIM).double(),
        torch.zeros(Z_DIM).double(),
        0,
    )
    for x_t, z_t in zip(x, z, strict=True):
        if isinstance(model, VRNN):
            prior, seen = model.prior(h[0]), torch.cat([model.of_z(z_t), h[0]])
        elif isinstance(model, SRNN):
            prior, seen = model.prior(torch.cat([last_z, h[0]])), torch.cat([z_t, h[0]])
        else:
            net, prior = model.net, torch.distributions.Normal(torch.zeros(Z_DIM).double(), 1.0)
            weights = net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0
            h = torch.gru_cell(torch.cat([last_x, z_t])[None], h, *weights)
            seen = h[0]
        logits = (
            model.likelihood.net(seen) if hasattr(model.likelihood, "net") else model.likelihood(seen).base_dist.logits
        )
        total = total + prior.log_prob(z_t).sum() - F.binary_cross_entropy_with_logits(logits, x_t, reduction="sum")
        if isinstance(model, VRNN):
            h = model.cell(torch.cat([model.of_x(x_t), model.of_z(z_t)])[None], h)
        elif isinstance(model, SRNN):
            h = model.cell(x_t[None], h)
        last_x, last_z = x_t, z_t
    return total


@each_model
@torch.no_grad()
def test_a_ragged_batch_has_the_density_of_a_loop_over_each_sequence_alone(kind):
    model, (x, z) = made(kind), data()
    behind = (torch.arange(STEPS) >= LENGTHS[:, None])[..., None]
    found = log_joint(model, z, torch.where(behind, torch.nan, x), LENGTHS)
    wanted = [by_hand(model, x[i, :length], z[i, :length]) for i, length in enumerate(LENGTHS)]
    torch.testing.assert_close(found, torch.stack(wanted))
    torch.testing.assert_close(
        log_joint(model, z, x), torch.stack([by_hand(model, *pair) for pair in zip(x, z, strict=True)])
    )


@each_model
@torch.no_grad()
def test_steps_are_those_of_the_program_for_several_particles(kind):
    model, (x, _) = made(kind), data()
    z = torch.randn(3, 4, STEPS, Z_DIM).double()
    log_z, log_x = model.stepwise(x, LENGTHS).densities(z)
    alone = torch.stack([log_joint(model, one, x, LENGTHS) for one in z])
    torch.testing.assert_close((log_z + log_x).sum(-1), alone)


@each_model
@torch.no_grad()
def test_draws_have_the_density_that_the_program_says(kind):
    """Under draws of one model, the ratio of another's density to its own is 1 on average."""
    model, n = made(kind), 4000
    other = deepcopy(model)
    for p in other.parameters():
        p.add_(0.02 * torch.randn_like(p))
    lengths = torch.arange(n) % 3 + 1
    pyro.set_rng_seed(2)
    trace = poutine.trace(model).get_trace(n=n, steps=3, lengths=lengths)
    values = {k: s["value"] for k, s in trace.nodes.items() if s["type"] == "sample" and k != "data"}
    own, others = (log_joint(m, None, values=values, n=n, steps=3, lengths=lengths) for m in (model, other))
    ratio = (others - own).exp()
    assert ratio.std() > 0.02 and (ratio.mean() - 1).abs() < 4 * ratio.std() / n**0.5
    x = model(n=7, steps=3, lengths=lengths[:7])
    assert x.shape == (7, 3, X_DIM) and (x[lengths[:7] == 1, 1:] == 0).all()


@each_model
def test_what_is_missing_is_refused_and_so_are_data_of_another_width(kind):
    model, (x, _) = made(kind), data()
    x[2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match=f"x has numbers that are missing.*{kind.__name__}.*fill them in"):
        model(x, LENGTHS)
    with pytest.raises(ValueError, match="event shape .3,. from .*, got .4,."):
        kind(Z_DIM, X_DIM, HIDDEN, Bernoulli(MLP(WIDTHS[kind], X_DIM + 1)))
    with pytest.raises(TypeError, match=f"likelihood Bernoulli must take vectors of width {WIDTHS[kind]}"):
        kind(Z_DIM, X_DIM, HIDDEN, Bernoulli(MLP(WIDTHS[kind] + 1, X_DIM)))
    with pytest.raises(TypeError, match="likelihood must be a module"):
        kind(2, 3, 4, nn.Linear)


@pytest.mark.parametrize("kind", [VRNN, STORN], ids=lambda kind: kind.__name__)
def test_particle_filters_learn_them_with_guides_over_time(kind):
    """FIVO goes through steps that are held against both programs, and captured steps are eager ones."""
    losses = []
    for engine in ("eager", "captured"):
        model, (x, _) = made(kind).float(), data()
        guide = Sequential(latents(model, x.float(), LENGTHS), Recurrent(X_DIM, 6, "backward"))
        pyro.set_rng_seed(3)
        svi = SVI(model, guide, torch.optim.Adam, FIVO(3), engine=engine)
        losses.append([svi.step(x.float(), LENGTHS) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
