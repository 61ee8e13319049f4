"""What indexes data: plates without a size, sequential ones, at other dims, nested, crossed, twice, or none at all."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, gaussian, linear_gaussian

ALONE = {"evaluate.*|importance|log_weights": "plate|per datum|of its own"}


def _pair(around: Callable, x: torch.Tensor, **others) -> Pair:
    """A linear VAE with ``around(x)`` as its plate."""
    dec = decoder(1, x.shape[-1])
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with around(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with around(x):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    settings = dict(encoder=lambda: Features(x.shape[-1]), parts=(dec, enc), x_dim=x.shape[-1])
    return Pair(model, guide, [(b,) for b in x.split(6)], linear_gaussian(dec, x), **settings | others)


@brought("the ordinary program: everything must be right")
def ordinary() -> Pair:
    return _pair(lambda x: pyro.plate("data", len(x)), noise(12, 3))


@brought("pyro.plate('data') without a size, as in Pyro's ss_vae_M2.py and cvae.py")
def without_size() -> Pair:
    return _pair(lambda x: pyro.plate("data"), noise(12, 3))


@brought("the plate is called after a thing, and has its dim named")
def named_otherwise() -> Pair:
    return _pair(lambda x: pyro.plate("cells", len(x), dim=-1), noise(12, 3), plate="cells")


@brought("one plate, with dim=-2, and nothing in dim -1")
def at_another_dim() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x[:, None])

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x), dim=-2):
            loc, log_sd = enc(x[:, None]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return Pair(
        model, guide, [(b,) for b in x.split(6)], linear_gaussian(dec, x), encoder=lambda: Features(3), parts=(dec, enc)
    )


def _measured(x: torch.Tensor, inner: int, names: tuple[str, str] = ("data", "pixels")) -> Pair:
    """z per datum, and its numbers in a plate of their own in place of to_event; ``inner`` is the dim of that plate."""
    sd, outer = 1.0, -3 - inner

    def turned(v):  # (data, numbers) in the order of the plates
        return v if inner == -1 else v.transpose(-1, -2)

    def model(x):
        w = pyro.param("w", torch.tensor([1.0, -0.5, 0.8]))
        with pyro.plate(names[0], len(x), dim=outer):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x), 1] if inner == -1 else [len(x)]))
            with pyro.plate(names[1], x.shape[1], dim=inner):
                pyro.sample("x", dist.Normal(z * (w if inner == -1 else w[:, None]), sd), obs=turned(x))

    def guide(x):
        w = pyro.param("v", torch.tensor([1.0, -0.5, 0.8]))
        precision = 1 + w @ w
        loc = (x @ w) / precision
        with pyro.plate(names[0], len(x), dim=outer):
            pyro.sample("z", dist.Normal(loc[:, None] if inner == -1 else loc, precision.rsqrt()))

    w = torch.tensor([1.0, -0.5, 0.8]).double()
    answer = gaussian(x, 0.0, torch.outer(w, w) + torch.eye(3).double())
    return Pair(model, guide, [(x,)], answer, plate=names[0], encoder=lambda: Features(3), x_dim=3)


@brought("pixels in a plate inside the data plate: dim -1 is not the data's")
def pixels_in_a_plate() -> Pair:
    return _measured(noise(12, 3), -1)


@brought("measurements in a plate to the left of the data plate")
def measurements_on_the_left() -> Pair:
    return _measured(noise(12, 3), -2)


@brought("the inner plate is the one that is called data, and as long as the batch")
def inner_plate_called_data() -> Pair:
    return _measured(noise(3, 3), -1, ("patients", "data"))


@brought("for i in pyro.plate('data', n): one site per datum", ALONE | {"fit IWAE": "plate|per datum|of its own"})
def sequential() -> Pair:
    dec, x = decoder(), noise(6, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample(f"x_{i}", dist.Normal(dec(z), 1.0).to_event(1), obs=x[i])

    def guide(x):
        pyro.module("enc", enc)
        for i in pyro.plate("data", len(x)):
            loc, log_sd = enc(x[i]).chunk(2, -1)
            pyro.sample(f"z_{i}", dist.Normal(loc, log_sd.exp()).to_event(1))

    return Pair(model, guide, [(x,)], linear_gaussian(dec, x), plate=None, parts=(dec, enc))


@brought("users and items: each user's latent, known items, ratings in both plates, of which some are missing")
def crossed() -> Pair:
    x, rated = noise(8, 4), torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) < 0.7
    items = torch.tensor([0.8, -1.0, 0.5, 1.2])

    def plates(x):
        return pyro.plate("users", x.shape[0], dim=-2), pyro.plate("items", x.shape[1], dim=-1)

    def model(x, rated):
        users, columns = plates(x)
        with columns:
            w = pyro.param("w", items.clone(), event_dim=0)
        with users:
            taste = pyro.sample("taste", dist.Normal(torch.zeros(len(x), 1), 1.0))
        with users, columns, pyro.poutine.mask(mask=rated):
            pyro.sample("x", dist.Normal(taste * w, 1.0), obs=x)

    def guide(x, rated):
        w, users = pyro.param("v", items.clone()), plates(x)[0]
        precision = 1 + rated.float() @ w.square()
        with users:
            loc = (rated * x) @ w / precision
            pyro.sample("taste", dist.Normal(loc[:, None], precision.rsqrt()[:, None]))

    cov = torch.outer(items, items).double() + torch.eye(4).double()
    answer = torch.stack([gaussian(row[k], 0.0, cov[k][:, k]) for row, k in zip(x, rated, strict=True)])
    encode = lambda: Features(8, lambda x, rated: torch.cat([x * rated, rated], 1))  # noqa: E731
    return Pair(model, guide, [(x, rated)], answer, plate="users", encoder=encode)


@brought("one plate object for latents and another, of another name, for what is observed of the same data", ALONE)
def two_plates_of_the_same_data() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("latents", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
        with pyro.plate("observations", len(x)):
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("latents", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    batches = [(b,) for b in x.split(6)]
    return Pair(
        model, guide, batches, linear_gaussian(dec, x), plate=None, encoder=lambda: Features(3), parts=(dec, enc)
    )


@brought("one plate object, entered once for the latent and again for the data")
def plate_entered_twice() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        data = pyro.plate("data", len(x))
        with data:
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
        loc = dec(z)
        with data:
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    batches = [(b,) for b in x.split(6)]
    return Pair(model, guide, batches, linear_gaussian(dec, x), encoder=lambda: Features(3), parts=(dec, enc))
