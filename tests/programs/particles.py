"""Nets that take (batch, width) and nothing else: each particle alone gives another number than all in parallel."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from programs.brought import Pair, brought
from programs.brought import noise as noise_of_data
from programs.exact import Features, decoder, encoder, linear_gaussian, on_line, on_plane, standard


def _linear(turn, n: int = 12, x_dim: int = 3, wrapped=None, **others) -> Pair:
    """A linear VAE whose decoder is ``turn(dec, z)``, which is dec(z) for z of shape (batch, 1)."""
    dec, x = decoder(1, x_dim), noise_of_data(n, x_dim)
    enc = encoder(dec)

    class Model(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.dec = wrapped or dec

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(turn(self.dec, z, x), 1.0).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.enc = enc

        def forward(self, x):
            with pyro.plate("data", len(x)):
                loc, log_sd = self.enc(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    model, guide = Model(), Guide()
    settings = dict(encoder=lambda: Features(x_dim), parts=(model, guide), x_dim=x_dim) | others
    return Pair(model, guide, [(b,) for b in x.split(n // 2)], linear_gaussian(dec, x), **settings)


@brought("view(-1, width) makes particles into data")
def view_of_rows() -> Pair:
    return _linear(lambda dec, z, x: dec(z.view(-1, 1)))


@brought("reshape(len(x), -1) and the first column: particles become columns, and nothing fails")
def view_of_widths() -> Pair:
    return _linear(lambda dec, z, x: z.reshape(len(x), -1)[:, :1] @ dec.weight.T + dec.bias)


@brought("boolean indexing of the rows: particles are indexed in place of data, or it fails")
def boolean_index() -> Pair:
    def turn(dec, z, x):
        up, loc = x[:, 0] > 0, torch.zeros_like(x)
        loc[up], loc[~up] = dec(z[up]), dec(z[~up])
        return loc

    return _linear(turn)


@brought("torch.cat of a latent and an input, which has no particles, as in cvae.py")
def concatenated() -> Pair:
    return _linear(lambda dec, z, x: dec(torch.cat([z, 0.0 * x[:, :1]], -1)[:, :1]))


@brought("matrix products with the transpose: z.t() is for two dimensions")
def transposed() -> Pair:
    return _linear(lambda dec, z, x: (dec.weight @ z.t()).t() + dec.bias)


@brought("a loop over the rows of the batch, stacked: z[i] is a particle, not a datum, where there are particles")
def row_by_row() -> Pair:
    return _linear(lambda dec, z, x: torch.stack([dec(z[i]) for i in range(len(x))]))


@brought("the model centres an input by the mean of its batch: a datum's likelihood depends on who is beside it")
def centred_by_the_batch() -> Pair:
    dec, x, c = decoder(), noise_of_data(12, 3), noise_of_data(12, 3, seed=6)
    enc = encoder(dec)

    def model(x, c):
        pyro.module("dec", dec)
        offset = c - c.mean(0)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z) + offset, 1.0).to_event(1), obs=x)

    def guide(x, c):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x - c + c.mean(0)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    batches = list(zip(x.split(6), c.split(6), strict=True))
    answer = torch.cat([linear_gaussian(dec, u - v + v.mean(0)) for u, v in batches])
    return Pair(model, guide, batches, answer, encoder=lambda: Features(3), parts=(dec, enc))


class Unnormed(nn.Module):
    """Batch normalisation behind a linear decoder: of latents in training, by kept statistics otherwise."""

    def __init__(self, dec: nn.Linear, width: int):
        super().__init__()
        self.lift, self.norm, self.down = nn.Linear(1, width, bias=False), nn.BatchNorm1d(width), nn.Linear(width, 3)
        with torch.no_grad():
            self.lift.weight.fill_(1.0)
            self.norm.running_var.fill_(1 - 1e-5)
            self.down.weight.copy_(dec.weight.expand(3, width) / width)
            self.down.bias.copy_(dec.bias)

    def forward(self, z):
        return self.down(self.norm(self.lift(z)))


def _batch_norm(width: int) -> Pair:
    net = Unnormed(decoder(), width)
    return _linear(lambda net, z, x: net(z), wrapped=net, exact=False, samples=400)


BATCH_NORM = {"fit IWAE.*|check.*": "normalises over the batch"}


@brought("BatchNorm1d in the decoder takes (batch, width) alone; training mixes data, evaluation does not", BATCH_NORM)
def batch_norm() -> Pair:
    return _batch_norm(8)


@brought(
    "BatchNorm1d as wide as the batch is long: it takes (particles, batch, width), and normalises another axis",
    BATCH_NORM,
)
def batch_norm_by_coincidence() -> Pair:
    return _batch_norm(6)


@brought("softmax over dim=1, right for (batch, classes): topics, as in ProdLDA")
def softmax_of_dim_one() -> Pair:
    beta = nn.Linear(2, 5, bias=False)
    with torch.no_grad():
        beta.weight.copy_(2 * noise_of_data(5, 2, seed=7))
    x = torch.stack([torch.bincount(torch.randint(5, (8,)), minlength=5).float() for _ in range(10)])
    enc = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))

    class Topics(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.beta = beta

        def forward(self, x):
            with pyro.plate("docs", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Multinomial(8, probs=torch.softmax(self.beta(z), dim=1)), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.enc = enc

        def forward(self, x):
            with pyro.plate("docs", len(x)):
                loc, log_sd = self.enc(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    weight = beta.weight.detach().double()

    def log_joint(a, b):
        words = dist.Multinomial(8, logits=(torch.stack([a, b], -1) @ weight.T)[:, None])
        return words.log_prob(x.double()) + (standard(a) + standard(b))[:, None]

    model, guide = Topics(), Guide()
    settings = dict(plate="docs", exact=False, samples=200, encoder=lambda: Features(5), parts=(model, guide))
    return Pair(model, guide, [(x,)], on_plane(log_joint), **settings)


@brought("dropout in the encoder: in training the guide is another one at every call")
def dropout() -> Pair:
    dec, x = decoder(), noise_of_data(12, 3)
    enc = nn.Sequential(nn.Dropout(0.2), encoder(dec))

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    settings = dict(exact=False, samples=50, encoder=lambda: Features(3), parts=(dec, enc))
    return Pair(model, guide, [(b,) for b in x.split(6)], linear_gaussian(dec, x), **settings)


@brought("the decoder packs sequences of z and its own states: pack_padded_sequence takes (batch, T, width)")
def packed_decoder() -> Pair:
    lengths = torch.tensor([4, 4, 3, 3, 2, 2])
    mask = torch.arange(4) < lengths[:, None]
    x, rnn, enc = noise_of_data(6, 4) * mask, nn.RNN(1, 2, batch_first=True), nn.Linear(4, 2)
    out = nn.Linear(2, 1)

    def decode(z, lengths):
        packed = pack_padded_sequence(z.unsqueeze(1).expand(-1, 4, -1), lengths, batch_first=True)
        return out(pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=4)[0])[..., 0]

    def model(x, lengths):
        pyro.module("rnn", rnn)
        pyro.module("out", out)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            seen = torch.arange(4) < lengths[:, None]
            pyro.sample("x", dist.Normal(decode(z, lengths), 0.7).mask(seen).to_event(1), obs=x)

    def guide(x, lengths):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    def log_joint(u):
        with torch.no_grad():
            states = rnn(u.float()[:, None, None].expand(-1, 4, -1))[0]
            loc = out(states)[..., 0].double()[:, None]
        return (dist.Normal(loc, 0.7).log_prob(x.double()) * mask).sum(-1) + standard(u)[:, None]

    encode = lambda: Features(4, lambda x, lengths: x)  # noqa: E731
    settings = dict(exact=False, samples=200, encoder=encode, parts=(rnn, out, enc))
    return Pair(model, guide, [(x, lengths)], on_line(log_joint), **settings)


def _noisy(noise, spread: float, of_the_guide=None) -> Pair:
    """x = dec(z) + noise + u, and the posterior without the noise as guide."""
    dec, x = decoder(), noise_of_data(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z) + noise(x), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc + (of_the_guide or torch.zeros_like)(loc), log_sd.exp()).to_event(1))

    answer = linear_gaussian(dec, x, (1 + spread**2) ** 0.5)
    settings = dict(encoder=lambda: Features(3), parts=(dec, enc), x_dim=3, exact=False, tolerance=0.02)
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, samples=200, **settings)


ANY_VALUE = {"defensive|quadrature|enumerated": "another density when it is run again|no finite list"}


@brought(
    "the model adds torch.randn of its own to each datum: log p(x) has it integrated out, per particle",
    ANY_VALUE | {"WakeSleep.*|simulate": "made of the data", "TraceTailAdaptive.*": "in parallel"},
)
def noise_of_the_model() -> Pair:
    return _noisy(lambda x: 0.4 * torch.randn(len(x), 3), 0.4)


@brought(
    "the guide moves its mean by torch.randn of its own: q(z given x, noise) is a density, and particles may share it",
    ANY_VALUE,
)
def noise_of_the_guide() -> Pair:
    return _noisy(torch.zeros_like, 0.0, lambda loc: 0.3 * torch.randn(len(loc), 1))
