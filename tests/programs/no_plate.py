"""Programs without a data plate, with sites beside it, and with plates that subsample by themselves."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, linear_gaussian

ALONE = {"evaluate.*|importance|log_weights|fit IWAE": "plate|per datum|of its own"}


def _drawn(enc, x):
    loc, log_sd = enc(x).chunk(2, -1)
    return dist.Normal(loc, log_sd.exp()).to_event(1)


@brought("one datum a call, and no plate: x is a vector, its first axis no row of data", ALONE)
def one_datum_a_call() -> Pair:
    dec, x = decoder(), noise(6, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.sample("z", _drawn(enc, x))

    return Pair(model, guide, [(row,) for row in x], linear_gaussian(dec, x), plate=None, parts=(dec, enc))


@brought("a whole batch in one event, to_event(2): no plate, one number for all", ALONE)
def batch_in_an_event() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(2), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.sample("z", _drawn(enc, x).to_event(1))

    answer = linear_gaussian(dec, x).sum()
    return Pair(model, guide, [(x,)], answer, count=1, plate=None, encoder=lambda: Features(3), parts=(dec, enc))


def _beside(extra: str, once: float = 0.0) -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        if extra == "deterministic outside":
            pyro.deterministic("norm", dec.weight.square().sum())
        if extra == "factor outside":
            pyro.factor("penalty", torch.tensor(once) + 0.0 * dec.weight.sum())
        if extra == "observed outside":
            pyro.sample("known", dist.Normal(dec.weight.sum() - dec.weight.sum().detach(), 1.0), obs=torch.tensor(3.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = dec(z)
            if extra == "deterministic inside":
                pyro.deterministic("loc", loc, event_dim=1)
            if extra == "deterministic without event_dim":
                pyro.deterministic("loc", loc)
            if extra == "factor inside":
                pyro.factor("tilt", 0.5 * x[:, 0])
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", _drawn(enc, x))

    answer = linear_gaussian(dec, x) + (0.5 * x[:, 0].double() if extra == "factor inside" else 0.0)
    settings = dict(encoder=lambda: Features(3), parts=(dec, enc), x_dim=3, once=once)
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, **settings)


@brought("pyro.deterministic before the plate makes a batch one datum")
def deterministic_outside() -> Pair:
    return _beside("deterministic outside")


@brought("pyro.deterministic inside the plate is observed, and no data: bits per dimension count it")
def deterministic_inside() -> Pair:
    return _beside("deterministic inside")


@brought("the same without event_dim, where Pyro itself makes its shape part of the batch")
def deterministic_of_a_batch_shape() -> Pair:
    return _beside("deterministic without event_dim")


@brought("pyro.factor before the plate: counted once per batch")
def factor_outside() -> Pair:
    return _beside("factor outside", -2.5)


@brought("pyro.factor inside the plate: part of every datum's weight, and no observed number")
def factor_inside() -> Pair:
    return _beside("factor inside")


@brought("an observed site before the plate, which is no datum")
def observed_outside() -> Pair:
    return _beside("observed outside", dist.Normal(0.0, 1.0).log_prob(torch.tensor(3.0)).item())


def _subsampling(in_model: bool, in_guide: bool) -> Pair:
    dec, x = decoder(), noise(1, 3).expand(12, 3).contiguous()  # the same x everywhere, so that any subsample is right
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x), 4 if in_model else None) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(i), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x[i])

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x), 4 if in_guide else None) as i:
            pyro.sample("z", _drawn(enc, x[i]))

    return Pair(model, guide, [(x,)], linear_gaussian(dec, x), plate=None, rows=4, parts=(dec, enc))


SUBSAMPLED = {"evaluate.*|importance|log_weights": "subsample"}


@brought("the guide alone subsamples and the model follows by replay, as in Pyro's lda.py and air.py", SUBSAMPLED)
def subsampling_in_the_guide() -> Pair:
    return _subsampling(False, True)


@brought("both programs draw one subsample of data that are passed whole, as in the SVI tutorial", SUBSAMPLED)
def subsampling_in_both() -> Pair:
    return _subsampling(True, True)
