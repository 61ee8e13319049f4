"""What a loop hands over: streams, rows that are left over, arguments of all kinds, arguments that are no rows."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, linear_gaussian


def _linear(batches, x, model=None, **others) -> Pair:
    """A linear VAE; ``model(dec)`` makes another one of the same p(z | x)."""
    dec = decoder()
    enc = others.pop("enc", encoder)(dec)

    def plain(x, *rest):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x, *rest):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    settings = dict(encoder=lambda: Features(3), parts=(dec, enc)) | others
    return Pair(model(dec) if model else plain, guide, batches, linear_gaussian(dec, x), **settings)


class Stream(IterableDataset):
    def __iter__(self):
        yield from noise(12, 3)


class Rewound:
    """Anything that can be iterated again, and has no length."""

    def __iter__(self):
        yield from ((b,) for b in noise(12, 3).split(6))


@brought("a DataLoader over an IterableDataset, which raises TypeError when asked for its length")
def stream() -> Pair:
    return _linear(DataLoader(Stream(), batch_size=6), noise(12, 3))


@brought("an object with __iter__ alone")
def without_length() -> Pair:
    return _linear(Rewound(), noise(12, 3))


@brought("a DataLoader of bare rows, collated to lists")
def loader_of_lists() -> Pair:
    x = noise(12, 3)
    return _linear(DataLoader(torch.utils.data.TensorDataset(x), batch_size=5), x)


@brought("the last batch has one row")
def one_row_left() -> Pair:
    x = noise(13, 3)
    return _linear([(b,) for b in x.split(6)], x)


@brought(
    "batch normalisation in the encoder cannot train on a last batch of one row: stock fails so too",
    {"losses.*|check.*|fit.*": "Expected more than 1 value per channel"},
)
def one_row_left_and_batch_norm() -> Pair:
    x = noise(13, 3)
    batches = [(b,) for b in x.split(6)]
    normed = lambda dec: nn.Sequential(nn.BatchNorm1d(3), encoder(dec))  # noqa: E731
    return _linear(batches, x, enc=normed, exact=False, samples=400)


@brought("an argument that no row of data belongs to has as many rows as the batch")
def shared_argument_of_equal_length() -> Pair:
    x, table = noise(12, 3), noise(12, 3, seed=9)

    def made(dec):
        def model(x, table):
            pyro.module("dec", dec)
            offset = table.mean(0)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(dec(z) + offset, 1.0).to_event(1), obs=x)

        return model

    dec = decoder()
    shifted = x - table.mean(0)
    enc = encoder(dec)

    def guide(x, table):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x - table.mean(0)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return Pair(
        made(dec), guide, [(x, table)], linear_gaussian(dec, shifted), encoder=lambda: Features(3), parts=(dec, enc)
    )


@dataclass
class Config:
    sd: float = 1.0
    name: str = "a"


@brought("a float, None, a word and an object of the user's own as arguments")
def arguments_of_all_kinds() -> Pair:
    x = noise(12, 3)

    def made(dec):
        def model(x, sd, weights, config, how):
            pyro.module("dec", dec)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                scale = sd * config.sd if weights is None and how == "mean" else torch.nan
                pyro.sample("x", dist.Normal(dec(z), scale).to_event(1), obs=x)

        return model

    batches = [(b, 1.0, None, Config(), "mean") for b in x.split(6)]
    return _linear(batches, x, made)


@brought("the first argument is no data: model(settings, x)")
def settings_first() -> Pair:
    x, dec = noise(12, 3), decoder()
    enc = encoder(dec)

    def model(step, x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(step, x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    batches = [(7, b) for b in x.split(6)]
    encode = lambda: Features(3, lambda step, x: x)  # noqa: E731
    return Pair(model, guide, batches, linear_gaussian(dec, x), encoder=encode, parts=(dec, enc))


@brought("numbers for data: x of shape (batch,), integers that index a table the programs hold")
def rows_by_index() -> Pair:
    x, dec = noise(12, 3), decoder()
    enc = encoder(dec)

    def model(i):
        pyro.module("dec", dec)
        with pyro.plate("data", 12, subsample=i) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x[rows])

    def guide(i):
        pyro.module("enc", enc)
        with pyro.plate("data", 12, subsample=i) as rows:
            loc, log_sd = enc(x[rows]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    encode = lambda: Features(3, lambda i: x[i])  # noqa: E731
    batches = [(b,) for b in torch.randperm(12).split(4)]
    order = torch.cat([b for (b,) in batches])
    return Pair(model, guide, batches, linear_gaussian(dec, x)[order], scale=3.0, encoder=encode, parts=(dec, enc))


@brought("the model is conditioned beforehand, and called without an argument", {".*": "argument|batch|data"})
def no_argument() -> Pair:
    x, dec = noise(12, 3), decoder()
    enc = encoder(dec)

    def joint():
        pyro.module("dec", dec)
        with pyro.plate("data", 12):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1))

    def guide():
        pyro.module("enc", enc)
        with pyro.plate("data", 12):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return Pair(pyro.condition(joint, data={"x": x}), guide, [()], linear_gaussian(dec, x), parts=(dec, enc))
