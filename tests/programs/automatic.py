"""Guides that Pyro makes: AutoGuides, lists of them, EasyGuide, reparametrised and auxiliary sites."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import autoguide
from pyro.infer.autoguide import init_to_value
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, gaussian, linear_gaussian

SHARED = {"evaluate.*|importance|log_weights": "share|global|per datum|of its own"}
JOINT = {"evaluate.*|importance|log_weights|fit IWAE": "datum|whole batch|auxiliary"}
WHOLE = {"evaluate in parts": "rows|batch|datum"}


def normal_mean(x):
    """mu is shared by all data; its posterior is normal."""
    sd = pyro.param("sd", torch.tensor(2.0), constraint=constraints.positive)
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sd), obs=x)


def _posterior(x) -> tuple[torch.Tensor, torch.Tensor]:
    precision = 1 / 9 + len(x) / torch.tensor(4.0)
    return x.sum() / 4 / precision, precision.rsqrt()


def _global(guide_of, model=normal_mean) -> Pair:
    x = 1 + 2 * noise(12)
    cov = 4 * torch.eye(12) + 9 * torch.ones(12, 12)
    return Pair(model, guide_of(*_posterior(x), x), [(x,)], gaussian(x[None], 0.0, cov)[0], count=12, plate=None)


@brought("AutoNormal over a function that declares pyro.param", SHARED)
def auto_normal() -> Pair:
    return _global(
        lambda at, sd, x: autoguide.AutoNormal(
            normal_mean, init_loc_fn=init_to_value(values={"mu": at}), init_scale=sd.item()
        )
    )


@brought("AutoMultivariateNormal draws one vector for all sites, and hands them on as Deltas", SHARED)
def auto_multivariate_normal() -> Pair:
    def made(at, sd, x):
        return autoguide.AutoMultivariateNormal(
            normal_mean, init_loc_fn=init_to_value(values={"mu": at}), init_scale=sd.item()
        )

    return _global(made)


@brought("AutoGuideList of one part", SHARED)
def auto_guide_list() -> Pair:
    def made(at, sd, x):
        guide = autoguide.AutoGuideList(normal_mean)
        guide.append(
            autoguide.AutoNormal(normal_mean, init_loc_fn=init_to_value(values={"mu": at}), init_scale=sd.item())
        )
        return guide

    return _global(made)


@brought("EasyGuide, as Pyro's sparse_gamma_def.py uses it", SHARED)
def easy_guide() -> Pair:
    class Guide(EasyGuide):
        def __init__(self, at, sd):
            super().__init__(normal_mean)
            self.start = at, sd

        def guide(self, x):
            group = self.group(match="mu")
            at, sd = pyro.param("at", self.start[0].clone()[None]), pyro.param("q_sd", self.start[1].clone()[None])
            group.sample("mu_aux", dist.Normal(at, sd).to_event(1))

    return _global(lambda at, sd, x: Guide(at, sd))


@brought("a hand-written PyroModule guide that calls pyro.param", SHARED)
def param_in_a_module_guide() -> Pair:
    class Guide(PyroModule):
        def __init__(self, at, sd):
            super().__init__()
            self.start = at, sd

        def forward(self, x):
            at, sd = pyro.param("at", self.start[0].clone()), pyro.param("q_sd", self.start[1].clone())
            pyro.sample("mu", dist.Normal(at, sd))

    return _global(lambda at, sd, x: Guide(at, sd))


def _local(guide_of, **others) -> Pair:
    """One latent per datum, and a guide made for the batch."""
    dec, x = decoder(), noise(12, 3)
    loc, log_sd = encoder(dec)(x).detach().chunk(2, -1)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    return Pair(model, guide_of(model, loc, log_sd.exp()), [(x,)], linear_gaussian(dec, x), parts=(dec,), **others)


@brought("AutoNormal over local latents: parameters per row of the one batch", WHOLE)
def auto_normal_of_locals() -> Pair:
    return _local(
        lambda model, loc, sd: autoguide.AutoNormal(
            model, init_loc_fn=init_to_value(values={"z": loc}), init_scale=sd[0].item()
        )
    )


@brought("AutoMultivariateNormal over local latents: one vector for the whole batch", JOINT)
def auto_multivariate_normal_of_locals() -> Pair:
    def made(model, loc, sd):
        return autoguide.AutoMultivariateNormal(
            model, init_loc_fn=init_to_value(values={"z": loc}), init_scale=sd[0].item()
        )

    return _local(made, plate=None)


@brought("poutine.reparam moves a latent: z is deterministic, z_decentered is drawn")
def reparametrised() -> Pair:
    dec, x = decoder(), noise(12, 3)
    shifted = nn.Linear(1, 3)
    with torch.no_grad():  # z ~ N(0.5, 2): u = (z - 0.5) / 2 is standard normal
        shifted.weight.copy_(2 * dec.weight)
        shifted.bias.copy_(dec.bias + 0.5 * dec.weight[:, 0])
    enc = encoder(shifted)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.5 * torch.ones(1), 2.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z_decentered", dist.Normal(loc, log_sd.exp()).to_event(1))

    moved = pyro.poutine.reparam(model, config={"z": LocScaleReparam(centered=0.0)})
    batches = [(b,) for b in x.split(6)]
    return Pair(
        moved, guide, batches, linear_gaussian(shifted, x), encoder=lambda: Features(3), parts=(dec, enc), x_dim=3
    )


@brought("the guide draws one auxiliary vector, and both latents are Deltas of it")
def auxiliary_sites() -> Pair:
    w, x = torch.tensor([[1.0, 0.4], [0.5, -0.8], [-0.3, 0.9]]), noise(12, 3)
    precision = torch.eye(2) + w.T @ w
    gain, tril = precision.inverse() @ w.T, torch.linalg.cholesky(precision.inverse())

    def model(x):
        weight = pyro.param("weight", w.clone())
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.stack([a, b], -1) @ weight.T, 1.0).to_event(1), obs=x)

    def guide(x):
        to_loc, scale = pyro.param("gain", gain.clone()), pyro.param("tril", tril.clone(), constraints.lower_cholesky)
        with pyro.plate("data", len(x)):
            q = dist.MultivariateNormal(x @ to_loc.T, scale_tril=scale)
            both = pyro.sample("both", q, infer={"is_auxiliary": True})
            pyro.sample("a", dist.Delta(both[..., 0]))
            pyro.sample("b", dist.Delta(both[..., 1]))

    answer = gaussian(x, 0.0, w @ w.T + torch.eye(3))
    batches = [(b,) for b in x.split(6)]
    return Pair(model, guide, batches, answer, encoder=lambda: Features(3), x_dim=3)


@brought("the guide observes what the model observes, to train a classifier beside, as in Pyro's contrib.cevae")
def observed_in_the_guide() -> Pair:
    dec, x, t = decoder(), noise(12, 3), (torch.arange(12) % 2).float()
    enc, head = encoder(dec), nn.Linear(3, 1)

    def model(x, t=None):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("t", dist.Bernoulli(0.25), obs=t)
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x, t=None):
        pyro.module("enc", enc)
        pyro.module("head", head)
        with pyro.plate("data", len(x)):
            pyro.sample("t", dist.Bernoulli(logits=head(x).squeeze(-1)), obs=t, infer={"is_auxiliary": True})
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    answer = linear_gaussian(dec, x) + dist.Bernoulli(0.25).log_prob(t).double()
    batches = list(zip(x.split(6), t.split(6), strict=True))
    settings = dict(ours_alike=False, encoder=lambda: Features(3), parts=(dec, enc, head))
    return Pair(model, guide, batches, answer, **settings)
