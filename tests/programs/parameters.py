"""Where parameters live: functions, modules that call pyro.param, lists of modules, tied weights, per datum."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, linear_gaussian


def batches(x):
    return [(b,) for b in x.split(6)]


def linear(model_of: Callable, guide_of: Callable, **others) -> Pair:
    """A pair from functions of (decoder, exact encoder)."""
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)
    settings = dict(encoder=lambda: Features(3), x_dim=3) | others
    return Pair(model_of(dec), guide_of(enc), batches(x), linear_gaussian(dec, x), **settings)


class Decoding(PyroModule):
    """A model with a decoder as its attribute."""

    def __init__(self, dec):
        super().__init__("model")
        self.dec = dec

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)


def function_model(dec):
    def model(x):
        w = pyro.param("w", dec.weight.detach().clone())
        b = pyro.param("b", dec.bias.detach().clone())
        sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.T + b, sd).to_event(1), obs=x)

    return model


def function_guide(enc):
    def guide(x):
        a = pyro.param("a", enc.weight.detach().clone())
        c = pyro.param("c", enc.bias.detach().clone())
        with pyro.plate("data", len(x)):
            loc, log_sd = (x @ a.T + c).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return guide


@brought("plain functions that declare all by pyro.param")
def functions() -> Pair:
    return linear(function_model, function_guide)


class ParamInside(PyroModule):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@brought("PyroModules that call pyro.param when they run")
def param_inside_pyro_modules() -> Pair:
    return linear(lambda dec: ParamInside(function_model(dec)), lambda enc: ParamInside(function_guide(enc)))


class Constrained(PyroModule):
    def __init__(self, dec):
        super().__init__("model")
        self.w, self.b = nn.Parameter(dec.weight.detach().clone()), nn.Parameter(dec.bias.detach().clone())
        self.sd = PyroParam(torch.tensor(1.0), constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.w.T + self.b, self.sd).to_event(1), obs=x)


@brought("PyroParam with a constraint, and a function for a guide")
def pyro_params() -> Pair:
    return linear(Constrained, function_guide)


@brought("modules that a function closes over, registered by pyro.module under one name for a list of them")
def modules_in_a_list() -> Pair:
    dec, x = decoder(), noise(12, 3)
    nets = nn.ModuleList([encoder(dec), dec])

    def model(x):
        pyro.module("nets", nets)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(nets[1](z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("nets", nets)
        with pyro.plate("data", len(x)):
            loc, log_sd = nets[0](x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    return Pair(model, guide, batches(x), linear_gaussian(dec, x), encoder=lambda: Features(3), parts=(nets,))


@brought("the guide reads the model's weights: one parameter in both programs")
def tied_weights() -> Pair:
    dec, x = decoder(), noise(12, 3)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.back = dec

        def forward(self, x):
            w = self.back.weight[:, 0]
            precision = 1 + w @ w
            with pyro.plate("data", len(x)):
                loc = (x - self.back.bias) @ w / precision
                pyro.sample("z", dist.Normal(loc[:, None], precision.rsqrt()).to_event(1))

    model, guide = Decoding(dec), Guide()
    return Pair(model, guide, batches(x), linear_gaussian(dec, x), encoder=lambda: Features(3), parts=(model, guide))


def _guided(guide_of, **others) -> Pair:
    """A guide with parameters of its own for every datum."""
    dec, x = decoder(), noise(12, 3)
    loc, log_sd = encoder(dec)(x).detach().chunk(2, -1)

    def model(i):
        pyro.module("dec", dec)
        with pyro.plate("data", 12, subsample=i) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x[rows])

    index = [(b,) for b in torch.randperm(12).split(4)]
    answer = linear_gaussian(dec, x)[torch.cat([b for (b,) in index])]
    return Pair(model, guide_of(loc, log_sd), index, answer, scale=3.0, parts=(dec,), **others)


@brought("pyro.param per datum, declared inside a plate that subsamples it")
def param_per_datum() -> Pair:
    def guide_of(loc, log_sd):
        def guide(i):
            with pyro.plate("data", 12, subsample=i):
                at = pyro.param("loc", loc.clone(), event_dim=1)
                sd = pyro.param("sd", log_sd.exp(), constraint=constraints.positive, event_dim=1)
                pyro.sample("z", dist.Normal(at, sd).to_event(1))

        return guide

    return _guided(guide_of, encoder=None)


@brought("a guide that was never amortised, made for the one batch that there is")
def made_for_the_batch() -> Pair:
    dec, x = decoder(), noise(12, 3)
    loc, log_sd = encoder(dec)(x).detach().chunk(2, -1)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        at, sd = pyro.param("at", loc.clone()), pyro.param("sd", log_sd.exp(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(at, sd).to_event(1))

    return Pair(model, guide, [(x,)], linear_gaussian(dec, x), encoder=lambda: Features(3), parts=(dec,))


@brought("half of the decoder is frozen, and stays as it was")
def frozen() -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)
    dec.bias.requires_grad_(False)

    return Pair(Decoding(dec), function_guide(enc), batches(x), linear_gaussian(dec, x), encoder=lambda: Features(3))


@brought(
    "nothing that is trained gets a gradient: stock does nothing without a word",
    {"fit.*|check.*|losses.*": "gradient"},
    must="fit.*|check.*",
)
def no_gradient_anywhere() -> Pair:
    def cut(enc):
        def guide(x):
            a, c = pyro.param("a", enc.weight.detach().clone()), pyro.param("c", enc.bias.detach().clone())
            with pyro.plate("data", len(x)):
                loc, log_sd = (x @ a.T + c).detach().chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

        return guide

    def fixed(dec):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(dec(z).detach(), 1.0).to_event(1), obs=x)

        return model

    return linear(fixed, cut)
