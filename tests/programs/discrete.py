"""Discrete latents: drawn, summed out by Pyro, in chains, without a bound."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints

from programs.brought import Pair, brought, noise
from programs.exact import Features, gaussian

PRIOR_DRAWS = {"Trace_ELBO.*|RenyiELBO.*|TraceTailAdaptive.*": "marked to be enumerated"}  # stock draws them from p
ENUM = dict(objective=TraceEnum_ELBO(max_plate_nesting=1), discrete=True)


def _mixture(draw: str) -> Pair:
    """Three clusters, c then x; the responsibilities are linear in x, since all clusters have one covariance."""
    x = 1.5 * noise(12, 2)
    means, weights = 1.5 * noise(3, 2, seed=4), torch.tensor([0.5, 0.3, 0.2])
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(means)
        net.bias.copy_(weights.log() - 0.5 * means.square().sum(1))

    def model(x):
        locs = pyro.param("locs", means.clone())
        probs = pyro.param("probs", weights.clone(), constraint=constraints.simplex)
        with pyro.plate("data", len(x)):
            if draw == "one-hot":
                c = pyro.sample("c", dist.OneHotCategorical(probs)) @ locs
            else:
                c = locs[pyro.sample("c", dist.Categorical(probs))]
            pyro.sample("x", dist.Normal(c, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            family = dist.OneHotCategorical if draw == "one-hot" else dist.Categorical
            pyro.sample("c", family(logits=net(x)))

    each = torch.stack([gaussian(x, m.double(), torch.eye(2)) for m in means], 1) + weights.double().log()
    settings = dict(encoder=lambda: Features(2), parts=(net,), discrete=True, x_dim=2)
    if draw == "summed":
        guide, settings = config_enumerate(guide), settings | ENUM
    if draw == "in the model alone":
        model, settings = (
            config_enumerate(model),
            settings | ENUM | dict(parts=(), exact=False, samples=400, ours_alike=False),
        )
    guide = guide if draw != "in the model alone" else lambda x: None
    return Pair(model, guide, [(b,) for b in x.split(6)], each.logsumexp(1), **settings)


@brought("classes, drawn")
def mixture() -> Pair:
    return _mixture("classes")


@brought("one-hot vectors, drawn")
def mixture_of_one_hot() -> Pair:
    return _mixture("one-hot")


@brought("classes, summed out by TraceEnum_ELBO through the guide")
def mixture_summed_out() -> Pair:
    return _mixture("summed")


@brought(
    "classes, summed out in the model alone: the guide lacks the site, which is to be summed out everywhere",
    PRIOR_DRAWS,
)
def mixture_summed_out_in_the_model() -> Pair:
    return _mixture("in the model alone")


@brought("two binary causes that explain each other away, the second drawn given the first")
def binary_causes() -> Pair:
    x = noise(12, 2)
    effect, bias = torch.tensor([[1.0, 0.5], [-0.7, 1.2]]), torch.tensor([0.2, -0.3])

    class Model(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.effect, self.bias = nn.Parameter(effect.clone()), nn.Parameter(bias.clone())

        def forward(self, x):
            with pyro.plate("data", len(x)):
                a = pyro.sample("a", dist.Bernoulli(0.3))
                b = pyro.sample("b", dist.Bernoulli(0.6))
                loc = torch.stack([a, b], -1) @ self.effect + self.bias
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def log_joint(x, effect, bias):  # [a][b] -> (n,)
        prior = torch.tensor([[0.7 * 0.4, 0.7 * 0.6], [0.3 * 0.4, 0.3 * 0.6]]).log().to(x)
        locs = torch.stack(
            [torch.stack([bias, bias + effect[1]]), torch.stack([bias + effect[0], bias + effect.sum(0)])]
        )
        return dist.Normal(locs[:, :, None], 1.0).log_prob(x).sum(-1) + prior[:, :, None]

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.effect, self.bias = nn.Parameter(effect.clone()), nn.Parameter(bias.clone())

        def forward(self, x):
            joint = log_joint(x, self.effect, self.bias)
            with pyro.plate("data", len(x)):
                each = joint.logsumexp(1)
                a = pyro.sample("a", dist.Bernoulli(logits=each[1] - each[0]))
                odds = joint[:, 1] - joint[:, 0]
                pyro.sample("b", dist.Bernoulli(logits=torch.where(a > 0, odds[1], odds[0])))

    answer = log_joint(x.double(), effect.double(), bias.double()).flatten(0, 1).logsumexp(0)
    model, guide = Model(), Guide()
    settings = dict(encoder=lambda: Features(2), parts=(model, guide), discrete=True, x_dim=2)
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, **settings)


class Thinned(dist.TorchDistribution):
    """``seen`` and a Poisson number more: sample and log_prob, and nothing else."""

    arg_constraints = {}

    def __init__(self, seen, rate):
        self.seen, self.rate = torch.broadcast_tensors(seen, rate)
        super().__init__(self.seen.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Thinned(self.seen.expand(batch_shape), self.rate.expand(batch_shape))

    def sample(self, sample_shape=()):
        shape = torch.Size(sample_shape) + self.seen.shape
        return self.seen.expand(shape) + torch.poisson(self.rate.detach().expand(shape))

    def log_prob(self, value):
        return dist.Poisson(self.rate, validate_args=False).log_prob(value - self.seen)


@brought("a count without a bound, of which a part is seen; q is a class of the user's own")
def unbounded_count() -> Pair:
    x = torch.poisson(torch.full((12,), 2.5))

    def model(x):
        rate = pyro.param("rate", torch.tensor(5.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(rate))
            pyro.sample("x", dist.Binomial(k, 0.5), obs=x)

    def guide(x):
        rest = pyro.param("rest", torch.tensor(2.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("k", Thinned(x, rest))

    answer = dist.Poisson(torch.tensor(2.5).double()).log_prob(x.double())
    settings = dict(encoder=lambda: Features(1, lambda x: x[:, None]), discrete=True, x_dim=1)
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, **settings)


def forward_algorithm(start, move, emit) -> torch.Tensor:
    """log p of sequences: start (S,), move (S, S), emit [(n, S) log-likelihood of each step]; shape (n,)."""
    alpha = start.log() + emit[0]
    for each in emit[1:]:
        alpha = (alpha[:, :, None] + move.log()).logsumexp(1) + each
    return alpha.logsumexp(1)


@brought("a hidden Markov model over padded sequences, all states summed out, as Pyro's hmm.py", PRIOR_DRAWS)
def hidden_markov() -> Pair:
    lengths = torch.tensor([4, 3, 3, 2, 4, 1])
    x = (noise(6, 4) > 0).float()
    start, move = torch.tensor([0.6, 0.4]), torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    probs = torch.tensor([0.2, 0.7])

    def model(x, lengths):
        p_move = pyro.param("move", move.clone(), constraint=constraints.simplex)
        p_emit = pyro.param("emit", probs.clone(), constraint=constraints.unit_interval)
        with pyro.plate("sequences", len(x), dim=-1):
            state = 0
            for t in pyro.markov(range(x.shape[1])):
                with pyro.poutine.mask(mask=t < lengths):
                    p = start if t == 0 else p_move[state]
                    state = pyro.sample(f"s_{t}", dist.Categorical(p), infer={"enumerate": "parallel"})
                    pyro.sample(f"x_{t}", dist.Bernoulli(p_emit[state]), obs=x[:, t])

    emit = [dist.Bernoulli(probs).log_prob(x[:, t, None]) * (t < lengths)[:, None] for t in range(4)]
    answer = forward_algorithm(start.double(), move.double(), [e.double() for e in emit])
    settings = dict(exact=False, plate="sequences", samples=400, ours_alike=False, **ENUM)
    return Pair(model, lambda x, lengths: None, [(x[:3], lengths[:3]), (x[3:], lengths[3:])], answer, **settings)
