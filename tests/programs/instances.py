"""The tutorial's class, whose methods are the programs, and what a session leaves for its second instance."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, linear_gaussian
from programs.parameters import batches, function_guide, function_model, linear


class Encoder(nn.Module):
    def __init__(self, dec):
        super().__init__()
        both = encoder(dec)
        self.loc, self.log_scale = nn.Linear(3, 1), nn.Linear(3, 1)
        with torch.no_grad():
            for part, i in ((self.loc, 0), (self.log_scale, 1)):
                part.weight.copy_(both.weight[i : i + 1])
                part.bias.copy_(both.bias[i : i + 1])

    def forward(self, x):
        return self.loc(x), self.log_scale(x).exp()


class VAE(nn.Module):
    """The tutorial's: one module, whose methods are the two programs."""

    def __init__(self):
        super().__init__()
        self.decoder = decoder()
        self.encoder = Encoder(self.decoder)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample(
                "latent", dist.Normal(x.new_zeros((x.shape[0], 1)), x.new_ones((x.shape[0], 1))).to_event(1)
            )
            pyro.sample("obs", dist.Normal(self.decoder.forward(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder.forward(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def _tutorial(before: Callable[[VAE, torch.Tensor], None] | None = None) -> Pair:
    x = noise(12, 3)
    if before is not None:
        before(VAE(), x)
    vae = VAE()
    answer = linear_gaussian(vae.decoder, x)
    return Pair(vae.model, vae.guide, batches(x), answer, encoder=lambda: Features(3), parts=(vae,), x_dim=3)


@brought("a module's methods as model and guide: whose parameters are they?")
def bound_methods() -> Pair:
    return _tutorial()


def _trained_by_us(vae: VAE, x: torch.Tensor) -> None:
    from dlvm.inference import ELBO, fit

    adam = lambda parameters: torch.optim.Adam(parameters, 0.1)  # noqa: E731
    list(
        fit(vae.model, vae.guide, ELBO(), batches(x), epochs=3, seed=0, progress=False, optimizer=adam, engine="eager")
    )


@brought("a second instance of the class in one session, after the first was trained", reference=_tutorial)
def second_instance() -> Pair:
    return _tutorial(_trained_by_us)


def _trained_by_stock(vae: VAE, x: torch.Tensor) -> None:
    _stock_steps(vae.model, vae.guide, x)


def _stock_steps(model: Callable, guide: Callable, x: torch.Tensor) -> None:
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        svi.step(x)


@brought("a second instance after stock SVI left the first one's parameters in the store", reference=_tutorial)
def second_instance_after_stock() -> Pair:
    return _tutorial(_trained_by_stock)


@brought("gradients that others have left on the parameters", reference=_tutorial)
def stale_gradients() -> Pair:
    pair = _tutorial()
    for parameter in pair.parts[0].parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    return pair


@brought("a notebook's cell with functions, run twice: what pyro.param finds in the store goes on being trained")
def functions_run_twice() -> Pair:
    before = linear(function_model, function_guide)
    _stock_steps(before.model, before.guide, before.first[0])
    again = linear(function_model, function_guide)
    store, dec = pyro.get_param_store(), decoder()
    with torch.no_grad():
        sd = store["sd"].item()
        dec.weight.copy_(store["w"])
        dec.bias.copy_(store["b"])
    answer = linear_gaussian(dec, torch.cat([x for (x,) in again.batches]), sd)
    return Pair(again.model, again.guide, again.batches, answer, exact=False, samples=400, encoder=lambda: Features(3))
