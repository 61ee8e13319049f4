"""Sequences: ragged ones with masks, time on the first axis, tokens, recurrent encoders, no latents at all."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from programs.brought import Pair, brought, noise
from programs.exact import Features, Smoother, chains, gaussian, on_line, standard


class DMM(nn.Module):
    """A deep Markov model as in Pyro's example: padded mini-batches, masks on every step, an annealing factor."""

    def __init__(self):
        super().__init__()
        self.transition, self.emission = nn.Linear(1, 1, bias=False), nn.Parameter(torch.tensor(0.5).log())
        self.z_0, self.smoother = nn.Parameter(torch.zeros(1)), Smoother()
        with torch.no_grad():
            self.transition.weight.fill_(0.8)

    def model(self, mini_batch, mini_batch_mask, annealing_factor=1.0):
        pyro.module("dmm", self)
        z_prev = self.z_0.expand(mini_batch.size(0), 1)
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, mini_batch.size(1) + 1)):
                m = mini_batch_mask[:, t - 1 : t]
                with poutine.scale(None, annealing_factor):
                    z_t = pyro.sample(f"z_{t}", dist.Normal(self.transition(z_prev), 1.0).mask(m).to_event(1))
                x_t = dist.Normal(z_t, self.emission.exp()).mask(m).to_event(1)
                pyro.sample(f"obs_x_{t}", x_t, obs=mini_batch[:, t - 1 : t])
                z_prev = z_t

    def guide(self, mini_batch, mini_batch_mask, annealing_factor=1.0):
        pyro.module("dmm", self)
        messages, z_prev = self.smoother(mini_batch, mini_batch_mask), torch.zeros(len(mini_batch), 1)
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t, (precision, shift) in enumerate(messages, 1):
                q = dist.Normal(*self.smoother.q((precision[:, None], shift[:, None]), z_prev))
                with poutine.scale(None, annealing_factor):
                    z_prev = pyro.sample(f"z_{t}", q.mask(mini_batch_mask[:, t - 1 : t]).to_event(1))


def _ragged(*factor: float) -> Pair:
    lengths = [4, 4, 3, 2, 2, 1, 4, 3, 3, 1]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    x, dmm = 1.3 * noise(10, 4) * mask, DMM()
    encode = lambda: Features(8, lambda x, mask, *rest: torch.cat([x, mask.float()], 1))  # noqa: E731
    batches = [(x[:5], mask[:5], *factor), (x[5:], mask[5:], *factor)]
    settings = dict(plate="z_minibatch", encoder=encode, parts=(dmm,))
    return Pair(dmm.model, dmm.guide, batches, chains(x, lengths), **settings)


@brought("a ragged DMM: bound methods, one pyro.module in both, masked steps")
def dmm() -> Pair:
    return _ragged()


@brought("the same with an annealing factor as a Python float among the arguments")
def dmm_annealed_to_one() -> Pair:
    return _ragged(1.0)


def _time_major(steps: int, batch: int) -> Pair:
    x, w = noise(steps, batch), torch.linspace(0.5, 1.2, steps)

    def model(x):
        weight = pyro.param("w", w.clone())
        with pyro.plate("data", x.shape[1]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for t in range(x.shape[0]):
                pyro.sample(f"x_{t}", dist.Normal(weight[t] * z, 1.0), obs=x[t])

    def guide(x):
        weight = pyro.param("v", w.clone())
        precision = 1 + weight @ weight
        with pyro.plate("data", x.shape[1]):
            pyro.sample("z", dist.Normal(weight @ x / precision, precision.rsqrt()))

    answer = gaussian(x.T, 0.0, torch.outer(w, w) + torch.eye(steps))
    encode = lambda: Features(steps, lambda x: x.T)  # noqa: E731
    return Pair(model, guide, [(x,)], answer, encoder=encode, x_dim=steps)


@brought("time on the first axis, data on the second")
def time_major() -> Pair:
    return _time_major(3, 12)


@brought("time on the first axis, and as many steps as data")
def time_major_square() -> Pair:
    return _time_major(4, 4)


class Tokens(PyroModule):
    """A token's logits are linear in z and in the token before it."""

    def __init__(self, words: int = 5):
        super().__init__("model")
        self.before, self.out = nn.Embedding(words, words), nn.Linear(1, words)

    def forward(self, x):
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        with pyro.plate("data", len(x)):
            zero = self.out.weight.new_zeros(1)
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            logits = self.before(before) + self.out(z).unsqueeze(-2)
            pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=x)


class TokensGuide(PyroModule):
    def __init__(self, words: int = 5):
        super().__init__("guide")
        self.embed, self.gru, self.out = nn.Embedding(words, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        h = self.gru(self.embed(x))[1][0]
        with pyro.plate("data", len(x)):
            loc, log_sd = self.out(h).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))


class Bag(nn.Module):
    out_features = 4

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)

    def forward(self, x):
        return self.embed(x).mean(-2)


def _tokens(dtype=torch.float32, x=None) -> Pair:
    x = torch.randint(5, (10, 4)) if x is None else x
    model, guide = Tokens().to(dtype), TokensGuide().to(dtype)

    def log_joint(u):
        seen = x.clamp_max(4)
        before = torch.cat([torch.zeros_like(x[:, :1]), seen[:, :-1]], 1)
        with torch.no_grad():
            logits = model.before(before).double()[None] + model.out(u[:, None].to(dtype)).double()[:, None, None]
        return dist.Categorical(logits=logits).log_prob(seen).sum(-1) + standard(u)[:, None]

    answer = on_line(log_joint)
    encode = lambda: Bag().to(dtype)  # noqa: E731
    settings = dict(exact=False, samples=2000, encoder=encode, spec=(x[:2],), parts=(model, guide), x_dim=4)
    return Pair(model, guide, [(b,) for b in x.split(4)], answer, **settings)


@brought("integer tokens, a recurrent encoder, and a last batch that is smaller")
def tokens() -> Pair:
    return _tokens()


@brought("the programs are in double precision, the data are integers")
def tokens_in_double() -> Pair:
    return _tokens(torch.float64)


@brought(
    "one token is out of range: torch's own words, and where it happened",
    {".*": "index out of range.*(batch|argument|epoch)|outside its likelihood's support"},
)
def token_out_of_range() -> Pair:
    x = torch.randint(5, (10, 4))
    x[9, 2] = 5
    return _tokens(x=x)


@brought("the guide packs its sequences, which have no particles")
def packed_encoder() -> Pair:
    lengths = torch.tensor([4, 4, 3, 3, 2, 2])
    mask = torch.arange(4) < lengths[:, None]
    x, w, gru, out = (
        noise(6, 4) * mask,
        nn.Parameter(torch.tensor([0.6, -0.4, 0.9, 0.3])),
        nn.GRU(1, 4),
        nn.Linear(4, 2),
    )

    def model(x, lengths):
        weight = pyro.param("w", w.detach().clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            seen = torch.arange(4) < lengths[:, None]
            pyro.sample("x", dist.Normal(z * weight, 1.0).mask(seen).to_event(1), obs=x)

    def guide(x, lengths):
        pyro.module("gru", gru)
        pyro.module("out", out)
        h = gru(pack_padded_sequence(x.T[..., None], lengths))[1][0]
        with pyro.plate("data", len(x)):
            loc, log_sd = out(h).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    cov = torch.outer(w, w).detach().double() + torch.eye(4).double()
    answer = torch.stack([gaussian(r[m], 0.0, cov[m][:, m]) for r, m in zip(x, mask, strict=True)])
    encode = lambda: Features(4, lambda x, lengths: x)  # noqa: E731
    settings = dict(exact=False, samples=2000, encoder=encode, parts=(gru, out))
    return Pair(model, guide, [(x[:4], lengths[:4]), (x[4:], lengths[4:])], answer, **settings)


@brought("no latent at all: an autoregressive model, a guide that does nothing")
def no_latents() -> Pair:
    net, x = nn.Linear(1, 1), noise(12, 4)

    def model(x):
        pyro.module("net", net)
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(before[..., None])[..., 0], 1.0).to_event(1), obs=x)

    before = torch.cat([torch.zeros(12, 1), x[:, :-1]], 1)
    loc = (before * net.weight.item() + net.bias.item()).double()
    answer = dist.Normal(loc, 1.0).log_prob(x.double()).sum(1)
    return Pair(model, lambda x: None, [(b,) for b in x.split(6)], answer, parts=(net,), x_dim=4)
