"""More of Pyro's examples, small: attend-infer-repeat, topics, a gamma exponential family; and odd distributions."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import Planar
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO
from torch import nn
from torch.distributions import constraints

from programs.brought import Pair, brought, noise
from programs.discrete import PRIOR_DRAWS
from programs.exact import Features, on_line, standard

SHARED = {"evaluate.*|importance|log_weights": "share|global|per datum|of its own"}
SUBSAMPLED = {"evaluate.*|importance|log_weights": "subsample"}


def _air(subsampled: bool) -> Pair:
    """Up to two objects, each on an axis of its own: present_t, then what_t, masked by it."""
    rows = noise(1, 2).expand(12, 2).contiguous() if subsampled else noise(12, 2)
    nets = nn.ModuleDict({"strength": nn.Linear(1, 2, bias=False)})
    with torch.no_grad():
        nets["strength"].weight.copy_(torch.tensor([[1.2], [0.9]]))
    prior = 0.6

    def strength(t):
        return nets["strength"].weight[t, 0]

    def model(data):
        pyro.module("decode", nets)
        with pyro.plate("data", len(data)) as ix:
            batch, present, loc = data[ix], 1.0, []
            for t in range(2):
                p = (prior * present) * torch.ones(len(batch), 1)
                present = pyro.sample(f"present_{t}", dist.Bernoulli(p).to_event(1))
                what = pyro.sample(f"what_{t}", dist.Normal(torch.zeros(len(batch), 1), 1.0).mask(present).to_event(1))
                loc.append(present * what * strength(t))
            pyro.sample("obs", dist.Normal(torch.cat(loc, -1), 1.0).to_event(1), obs=batch)

    def odds(x, t):  # log p(x_t | there) - log p(x_t | not there)
        return dist.Normal(0.0, (1 + strength(t) ** 2).sqrt()).log_prob(x) - dist.Normal(0.0, 1.0).log_prob(x)

    def guide(data):
        pyro.module("decode", nets)
        with pyro.plate("data", len(data), 4 if subsampled else None) as ix:
            x = data[ix]
            first, second = (odds(x[:, t : t + 1], t) for t in range(2))
            rest = torch.logaddexp(torch.tensor(1 - prior).log(), torch.tensor(prior).log() + second)
            logit = torch.logit(torch.tensor(prior))
            present = 1.0
            for t, ratio in enumerate((first + rest, second)):
                p = torch.sigmoid(logit + ratio) * present
                present = pyro.sample(f"present_{t}", dist.Bernoulli(p).to_event(1))
                w = strength(t)
                q = dist.Normal(w * x[:, t : t + 1] / (1 + w**2), (1 + w**2).rsqrt())
                pyro.sample(f"what_{t}", q.mask(present).to_event(1))

    x, w = rows.double(), nets["strength"].weight[:, 0].detach().double()
    there = dist.Normal(0.0, (1 + w**2).sqrt()).log_prob(x)
    none = standard(x)
    ways = [(none.sum(1), 0.4), (there[:, 0] + none[:, 1], 0.24), (there.sum(1), 0.36)]
    answer = torch.stack([each + torch.tensor(p).double().log() for each, p in ways]).logsumexp(0)
    settings = dict(objective=TraceGraph_ELBO(), discrete=True, parts=(nets,), encoder=lambda: Features(2))
    return Pair(
        model,
        guide,
        [(rows,)],
        answer,
        plate=None if subsampled else "data",
        rows=4 if subsampled else None,
        **settings,
    )


@brought("AIR: a mask that is the value of another latent, so that two runs of a program have two masks")
def air() -> Pair:
    return _air(False)


@brought("AIR, subsampled in the guide; the model follows by replay", SUBSAMPLED)
def air_subsampled() -> Pair:
    return _air(True)


@brought(
    "topics: words of shared topics, a mixture for each document, each word's topic summed out", SHARED | PRIOR_DRAWS
)
def lda() -> Pair:
    words = (torch.rand(5, 4, generator=torch.Generator().manual_seed(3)) < 0.4).long()  # (words, documents)

    def model(data):
        with pyro.plate("topics", 2):
            topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("documents", data.shape[1]):
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("words", data.shape[0]):
                topic = pyro.sample("word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(topic_words[topic]), obs=data)

    def guide(data):
        posterior = pyro.param("topics_q", torch.tensor([[2.0, 1.5], [1.5, 2.0]]), constraint=constraints.positive)
        with pyro.plate("topics", 2):
            pyro.sample("topic_words", dist.Dirichlet(posterior))
        documents = pyro.param("docs_q", torch.full((data.shape[1], 2), 1.3), constraint=constraints.positive)
        with pyro.plate("documents", data.shape[1]):
            pyro.sample("doc_topics", dist.Dirichlet(documents))

    u = (torch.arange(60).double() + 0.5) / 60
    one, two, theta = torch.cartesian_prod(u, u, u).reshape(60, 60, 60, 3).unbind(-1)
    ones = theta * one + (1 - theta) * two  # of a word to be the second of two
    k = words.sum(0).double()
    each = torch.stack(
        [(n * ones.log() + (5 - n) * (1 - ones).log()).logsumexp(2) - torch.tensor(60.0).log() for n in k]
    )
    answer = each.sum(0).flatten().logsumexp(0) - 2 * torch.tensor(60.0).double().log()
    settings = dict(count=4, exact=False, plate=None, samples=1000, tolerance=0.02, discrete=True, ours_alike=False)
    return Pair(model, guide, [(words,)], answer, objective=TraceEnum_ELBO(max_plate_nesting=2), **settings)


@brought("a gamma exponential family: weights that all share in a plate of their own, gammas for q", SHARED)
def gamma_def() -> Pair:
    x = torch.tensor([[1.0], [0.0], [3.0], [2.0]])

    def model(x):
        with pyro.plate("w_plate", 1):
            w = pyro.sample("w", dist.Gamma(2.0, 1.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(1.5, 1.0).expand([1]).to_event(1))
            pyro.sample("obs", dist.Poisson(z * w).to_event(1), obs=x)

    def guide(x):
        positive = dict(constraint=constraints.positive)
        shape, rate = (
            pyro.param("w_shape", torch.tensor([3.0]), **positive),
            pyro.param("w_rate", torch.tensor([2.2]), **positive),
        )
        a, b = pyro.param("z_shape", x + 1.5, **positive), pyro.param("z_rate", torch.full_like(x, 2.2), **positive)
        with pyro.plate("w_plate", 1):
            pyro.sample("w", dist.Gamma(shape, rate))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(a, b).to_event(1))

    u = torch.linspace(-9, 4, 391).double()
    w, z = u.exp()[:, None], u.exp()[None]
    step = (u[1] - u[0]).log()
    prior = dist.Gamma(1.5, 1.0).log_prob(z) + u  # density of log z
    each = [(dist.Poisson(z * w).log_prob(n) + prior).logsumexp(1) + step for n in x[:, 0].double()]
    answer = (sum(each) + dist.Gamma(2.0, 1.5).log_prob(u.exp()) + u).logsumexp(0) + step
    settings = dict(count=4, exact=False, plate=None, samples=2000, tolerance=0.02)
    return Pair(model, guide, [(x,)], answer, **settings)


class Binned(dist.TorchDistribution):
    """A logistic variable in bins of a quarter: sample and log_prob, without a support."""

    arg_constraints = {}

    def __init__(self, loc, log_scale, validate_args=None):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, torch.Size(), validate_args=validate_args)

    def expand(self, shape, _instance=None):
        return Binned(self.loc.expand(shape), self.log_scale.expand(shape))

    def sample(self, shape=()):
        u = torch.rand(self._extended_shape(shape)).clamp(1e-5, 1 - 1e-5)
        return (self.loc + self.log_scale.exp() * torch.logit(u)).mul(4).floor().div(4)

    def log_prob(self, value):
        a, b = (torch.sigmoid((value + d - self.loc) * torch.exp(-self.log_scale)) for d in (0.25, 0.0))
        return torch.log(a - b + 1e-7)


def _normal_guide(enc):
    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return guide


@brought("a likelihood of the user's own without the attribute support")
def without_support() -> Pair:
    x, dec, enc = noise(12, 3).mul(4).floor().div(4), nn.Linear(1, 3), nn.Linear(3, 2)
    sd = nn.Parameter(torch.full((3,), -0.5))

    def model(x):
        pyro.module("dec", dec)
        log_scale = pyro.param("log_scale", sd.detach().clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", Binned(dec(z), log_scale).to_event(1), obs=x)

    def log_joint(u):
        loc = u[:, None, None] * dec.weight.detach().double()[:, 0] + dec.bias.detach().double()
        return Binned(loc, sd.detach().double()).log_prob(x.double()).sum(-1) + standard(u)[:, None]

    settings = dict(exact=False, samples=1000, encoder=lambda: Features(3), parts=(dec, enc), x_dim=3)
    return Pair(model, _normal_guide(enc), [(b,) for b in x.split(6)], on_line(log_joint), **settings)


@brought("one latent's bounds are another latent's value")
def bounds_that_depend() -> Pair:
    x = (torch.arange(12) % 3 == 0).float()

    def model(x):
        sharp = pyro.param("sharp", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Beta(torch.tensor(1.0), 1.0))
            u = pyro.sample("u", dist.Uniform(torch.zeros(()), a))
            pyro.sample("x", dist.Bernoulli(u**sharp), obs=x)

    def guide(x):
        c = pyro.param("c", torch.tensor(1.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Beta(c, torch.tensor(1.0)))
            pyro.sample("u", dist.Uniform(torch.zeros(()), a))

    answer = dist.Bernoulli(torch.tensor(0.25).double()).log_prob(x.double())  # E u = E a / 2
    encode = lambda: Features(1, lambda x: x[:, None])  # noqa: E731
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, exact=False, samples=2000, encoder=encode, x_dim=1)


@brought("a planar flow for q, which knows the density of its own draws alone")
def flow_without_inverse() -> Pair:
    x, dec, enc, flow = noise(12, 3), nn.Linear(1, 3), nn.Linear(3, 2), Planar(1)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z).sin(), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            base = dist.Normal(loc, log_sd.exp()).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    def log_joint(u):
        loc = u[:, None, None] * dec.weight.detach().double()[:, 0] + dec.bias.detach().double()
        return dist.Normal(loc.sin(), 1.0).log_prob(x.double()).sum(-1) + standard(u)[:, None]

    settings = dict(exact=False, samples=1000, encoder=lambda: Features(3), parts=(dec, enc, flow), x_dim=3)
    return Pair(model, guide, [(b,) for b in x.split(6)], on_line(log_joint), **settings)
