"""Terms that count more or less than once: weights of data, of one site, of a subsample."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, gaussian, linear_gaussian


def _latent(dec, x):
    return pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def _drawn(enc, x):
    loc, log_sd = enc(x).chunk(2, -1)
    pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))


@brought("weights of the data around both programs: the bound is their weighted mean")
def weighted_rows() -> Pair:
    dec, x, w = decoder(), noise(12, 3), torch.linspace(0.1, 1.9, 12)
    enc = encoder(dec)

    def model(x, w):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)), poutine.scale(scale=w):
            pyro.sample("x", dist.Normal(dec(_latent(dec, x)), 1.0).to_event(1), obs=x)

    def guide(x, w):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)), poutine.scale(scale=w):
            _drawn(enc, x)

    # every datum's log p(x) is that of the same x, so that weighted and plain means are one number
    x = x[:1].expand(12, 3).contiguous()
    return Pair(
        model, guide, [(x, w)], linear_gaussian(dec, x), plate=None, encoder=lambda: Features(3), parts=(dec, enc)
    )


@brought("weights of the data on the likelihood alone, as importance-weighted classifiers have them")
def weighted_likelihoods() -> Pair:
    dec, x, w = decoder(), noise(12, 3), torch.linspace(0.2, 1.4, 12)
    weight, bias = dec.weight.detach()[:, 0].clone(), dec.bias.detach().clone()

    def model(x, w):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = _latent(dec, x)
            with poutine.scale(scale=w):
                pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x, w):
        a, b = pyro.param("a", weight.clone()), pyro.param("b", bias.clone())
        precision = 1 + w * (a @ a)
        with pyro.plate("data", len(x)):
            loc = w * ((x - b) @ a) / precision
            pyro.sample("z", dist.Normal(loc[:, None], precision.rsqrt()[:, None]).to_event(1))

    return Pair(model, guide, [(x, w)], _tempered(dec, x, w), encoder=lambda: Features(3), parts=(dec,))


@brought("one number on the likelihood alone: neither the number of data nor a scale that all sites share")
def tempered_likelihood() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec, 0.5**-0.5)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = _latent(dec, x)
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            _drawn(enc, x)

    answer = _tempered(dec, x, torch.full((12,), 0.5))
    return Pair(model, guide, [(x,)], answer, encoder=lambda: Features(3), parts=(dec, enc))


def _tempered(dec: nn.Linear, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """log of the integral of N(z; 0, 1) N(x; dec(z), I)^w, one per row."""
    w = w.double()
    each = [linear_gaussian(dec, row[None], v.item() ** -0.5)[0] for row, v in zip(x, w, strict=True)]
    kept = x.shape[1] * 0.5 * torch.tensor(2 * torch.pi).double().log()
    return torch.stack(each) + kept * (1 - w) - 0.5 * x.shape[1] * w.log()


@brought(
    "a latent that all data share, and data with weights of their own: the latent's scale is one",
    {"evaluate.*|importance|log_weights": "share|global|per datum|of its own"},
)
def weighted_data_of_a_global() -> Pair:
    x, w = noise(2), torch.tensor([0.4, 1.6])
    precision = 1 + w.sum()
    at, sd = (w @ x) / precision, precision.rsqrt()

    def model(x, w):
        c = pyro.sample("c", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), poutine.scale(scale=w):
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x, w):
        loc, scale = pyro.param("loc", at.clone()), pyro.param("sd", sd.clone(), dist.constraints.positive)
        pyro.sample("c", dist.Normal(loc, scale))

    u = torch.linspace(-9, 9, 40001).double()
    each = dist.Normal(u[:, None], 1.0).log_prob(x.double()) @ w.double() + dist.Normal(0.0, 1.0).log_prob(u)
    answer = each.logsumexp(0) + (u[1] - u[0]).log()
    return Pair(model, guide, [(x, w)], answer, count=2, plate=None)


@brought("the documented way to subsample: the batch is passed, the plate says how many data there are")
def subsampled_batches() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def plate(x):
        return pyro.plate("data", 120, subsample_size=len(x))

    def model(x):
        pyro.module("dec", dec)
        with plate(x):
            pyro.sample("x", dist.Normal(dec(_latent(dec, x)), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with plate(x):
            _drawn(enc, x)

    batches = [(b,) for b in x.split(6)]
    answer = linear_gaussian(dec, x)
    return Pair(model, guide, batches, answer, scale=20.0, encoder=lambda: Features(3), parts=(dec, enc), x_dim=3)


@brought("two likelihoods of one latent, one of them counted three times")
def one_likelihood_counts_more() -> Pair:
    a, b, x, y = decoder(1, 3), decoder(1, 2, seed=3), noise(12, 3), noise(12, 2, seed=4)
    net, sd = nn.Linear(5, 1), nn.Parameter(torch.zeros(()))
    w = torch.cat([a.weight, 3 * b.weight])[:, 0].detach()
    precision = 1 + a.weight.square().sum() + 3 * b.weight.square().sum()
    with torch.no_grad():
        net.weight.copy_(w[None] / precision)
        net.bias.copy_(-(w / precision) @ torch.cat([a.bias, b.bias]))
        sd.copy_(-0.5 * precision.log())

    def model(x, y):
        pyro.module("a", a)
        pyro.module("b", b)
        with pyro.plate("data", len(x)):
            z = _latent(a, x)
            pyro.sample("x", dist.Normal(a(z), 1.0).to_event(1), obs=x)
            with poutine.scale(scale=3.0):
                pyro.sample("y", dist.Normal(b(z), 1.0).to_event(1), obs=y)

    def guide(x, y):
        pyro.module("net", net)
        log_sd = pyro.param("log_sd", sd.detach().clone())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(torch.cat([x, y], 1)), log_sd.exp()).to_event(1))

    every, mean = torch.cat([a.weight, b.weight, b.weight, b.weight])[:, 0].double(), torch.cat([a.bias, *[b.bias] * 3])
    cov = torch.outer(every, every).detach() + torch.eye(9).double()
    answer = gaussian(torch.cat([x, y, y, y], 1), mean.detach().double(), cov)
    encode = lambda: Features(5, lambda x, y: torch.cat([x, y], 1))  # noqa: E731
    return Pair(model, guide, [(x, y)], answer, encoder=encode, parts=(a, b, net))
