"""What a datum is can be said where nothing tells it: one of crossed plates, a table that all share, another axis."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from dlvm.inference import described
from programs import sequences
from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, gaussian, linear_gaussian


@brought("time on the first axis, and said so: series are cut into chunks as any data")
def series_along_an_axis() -> Pair:
    pair = sequences.time_major.make()
    described(pair.model, per_datum={"x": 1})
    return pair


@brought("as many steps as data, and the axis and the plate of the data said")
def square_series() -> Pair:
    pair = sequences.time_major_square.make()
    described(pair.model, data_plate="data", per_datum={"x": 1})
    return pair


@brought("a latent for every cell of crossed plates of one size: a datum is a row, as it is said")
def rows_of_cells() -> Pair:
    x, w = noise(8, 4), torch.tensor([0.7, 1.1, 0.4, 0.9])

    def model(x):
        weight = pyro.param("w", w.clone())
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    def guide(x):
        weight = pyro.param("v", w.clone())
        precision = 1 + weight.square()
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", x.shape[1], dim=-1):
            pyro.sample("z", dist.Normal(weight * x / precision, precision.rsqrt()))

    answer = gaussian(x, 0.0, torch.diag(1 + w.square()))
    described(model, data_plate="rows")
    return Pair(model, guide, [(b,) for b in x.split(4)], answer, plate="rows", x_dim=4)


@brought("a table as long as the batch, which its last datum does not look at: it is said to be shared")
def shared_table() -> Pair:
    dec, x, table = decoder(), noise(12, 3), noise(6, 3, seed=3)
    enc, marks = encoder(dec), torch.tensor([1.0, 1, 1, 1, 1, 0]).repeat(2)[:, None]

    def shifted(x, marks, offsets):
        return x - marks * offsets.mean(0)

    def model(x, marks, offsets):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z) + marks * offsets.mean(0), 1.0).to_event(1), obs=x)

    def guide(x, marks, offsets):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(shifted(x, marks, offsets)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    described(model, shared="offsets")
    batches = [(*rows, table) for rows in zip(x.split(6), marks.split(6), strict=True)]
    answer = linear_gaussian(dec, shifted(x, marks, table))
    return Pair(model, guide, batches, answer, encoder=lambda: Features(3, shifted), parts=(dec, enc))
