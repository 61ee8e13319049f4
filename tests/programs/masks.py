"""Sites that count for some data only, or more or less than once: masks, missing labels and modalities, scales."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import init_to_value  # noqa: F401  (users import it beside)
from pyro.nn import PyroModule
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, Smoother, chains, decoder, encoder, gaussian, linear_gaussian

NO_MASK = {".*": "mask"}


class Steps(PyroModule):
    """z_0 -> z_1, each seen through x_t; the second step of some rows is padding."""

    def __init__(self):
        super().__init__("model")
        self.a, self.sd = nn.Parameter(torch.tensor(0.8)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x, mask):
        with pyro.plate("data", len(x)):
            z = torch.zeros(1)
            for t in pyro.markov(range(2)):
                m = mask[:, t : t + 1]
                z = pyro.sample(f"z_{t}", dist.Normal(self.a * z, 1.0).mask(m).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(z, self.sd).mask(m).to_event(1), obs=x[:, t : t + 1])


class StepsGuide(PyroModule):
    def __init__(self, masked=True):
        super().__init__("guide")
        self.smoother, self.masked = Smoother(), masked

    def forward(self, x, mask):
        messages = self.smoother(x, mask)
        with pyro.plate("data", len(x)):
            z = torch.zeros(1)
            for t, (precision, shift) in enumerate(messages):
                q = dist.Normal(*self.smoother.q((precision[:, None], shift[:, None]), z))
                m = mask[:, t : t + 1] if self.masked else True
                z = pyro.sample(f"z_{t}", q.mask(m).to_event(1))


def _steps(masked: bool) -> Pair:
    mask = torch.arange(12)[:, None].remainder(2).add(1) > torch.arange(2)
    x = (1.3 * noise(12, 2)) * mask
    model, guide = Steps(), StepsGuide(masked)
    encode = lambda: Features(4, lambda x, mask: torch.cat([x, mask.float()], 1))  # noqa: E731
    answer = chains(x, mask.sum(1).tolist())
    return Pair(model, guide, [(x, mask)], answer, exact=masked, encoder=encode, parts=(model, guide), samples=20)


@brought("what .mask() says of a latent reaches neither guides from latents() nor check")
def masked_latents() -> Pair:
    return _steps(True)


@brought(
    "a guide that lacks the model's mask weighs padding: only a refusal is right",
    NO_MASK,
    "check.*|fit.*|evaluate.*|importance",
)
def masked_in_the_model_alone() -> Pair:
    return _steps(False)


@brought("poutine.mask around all sites of a padded row: the row counts nothing")
def rows_of_padding() -> Pair:
    dec = decoder()
    enc, seen, x = encoder(dec), torch.arange(12) % 3 > 0, noise(12, 3)

    def model(x, seen):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x, seen):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            loc, log_sd = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_sd.exp()).to_event(1))

    answer = linear_gaussian(dec, x) * seen
    return Pair(model, guide, [(x, seen)], answer, encoder=lambda: Features(3), parts=(dec, enc))


@brought("obs_mask makes a site that the guide draws for the rows without a label, masked in the model")
def missing_labels() -> Pair:
    dec, x, y = decoder(), noise(12, 3), noise(12, seed=5)
    enc, seen, head = nn.Linear(3, 1), torch.arange(12) % 2 > 0, nn.Parameter(torch.tensor(0.7))
    with torch.no_grad():
        enc.weight.copy_(dec.weight.T)
        enc.bias.copy_(-dec.weight[:, 0] @ dec.bias)

    class Model(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.dec, self.head = dec, head

        def forward(self, x, y, seen):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("t", dist.Normal(self.head * z[..., 0], 0.5), obs=y, obs_mask=seen)
                pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.enc, self.slope, self.log_sd = (
                enc,
                nn.Parameter(torch.tensor(0.7)),
                nn.Parameter(torch.tensor(0.5).log()),
            )

        def forward(self, x, y, seen):
            label = seen / (2 * self.log_sd).exp()
            precision = 1 + dec.weight.detach().square().sum() + label * self.slope**2
            loc = (self.enc(x)[:, 0] + label * self.slope * y) / precision
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(loc[:, None], precision.rsqrt()[:, None]).to_event(1))
                with poutine.mask(mask=~seen):
                    pyro.sample("t_unobserved", dist.Normal(self.slope * z[..., 0], self.log_sd.exp()))

    both = torch.cat([dec.weight[:, 0], head[None]]).detach().double()
    cov = torch.outer(both, both) + torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.25]))
    mean = torch.cat([dec.bias, torch.zeros(1)]).detach().double()
    labelled = gaussian(torch.cat([x, y[:, None]], 1), mean, cov)
    answer = torch.where(seen, labelled, linear_gaussian(dec, x))
    encode = lambda: Features(5, lambda x, y, seen: torch.cat([x, (y * seen)[:, None], seen[:, None]], 1))  # noqa: E731
    model, guide = Model(), Guide()
    return Pair(model, guide, [(x, y, seen)], answer, encoder=encode, parts=(model, guide))


@brought("a product of experts over two modalities, one of which some rows lack, told by a mask on its likelihood")
def missing_modality() -> Pair:
    a, b, x, y = decoder(1, 3), decoder(1, 2, seed=3), noise(12, 3), noise(12, 2, seed=4)
    has_y = torch.arange(12) % 3 > 0

    class Model(PyroModule):
        def __init__(self):
            super().__init__("model")
            self.a, self.b = a, b

        def forward(self, x, y, has_y):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.a(z), 1.0).to_event(1), obs=x)
                pyro.sample("y", dist.Normal(self.b(z), 1.0).to_event(1).mask(has_y), obs=y)

    class Experts(PyroModule):
        def __init__(self):
            super().__init__("guide")
            self.weights = nn.ParameterList(net.weight.detach()[:, 0].clone() for net in (a, b))
            self.biases = nn.ParameterList(net.bias.detach().clone() for net in (a, b))

        def forward(self, x, y, has_y):
            precision, shift = 1.0, 0.0
            for w, bias, value, seen in zip(self.weights, self.biases, (x, y), (1.0, has_y.float()), strict=True):
                precision, shift = precision + seen * (w @ w), shift + seen * ((value - bias) @ w)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((shift / precision)[:, None], precision.rsqrt()[:, None]).to_event(1))

    w = torch.cat([a.weight, b.weight])[:, 0].detach().double()
    cov, mean = torch.outer(w, w) + torch.eye(5).double(), torch.cat([a.bias, b.bias]).detach().double()
    answer = torch.where(has_y, gaussian(torch.cat([x, y], 1), mean, cov), linear_gaussian(a, x))
    encode = lambda: Features(6, lambda x, y, seen: torch.cat([x, y * seen[:, None], seen[:, None]], 1))  # noqa: E731
    model, guide = Model(), Experts()
    return Pair(model, guide, [(x, y, has_y)], answer, encoder=encode, parts=(model, guide))


@brought("pixels are missing one by one: NaN in the argument, left out by a mask under to_event")
def missing_pixels() -> Pair:
    dec, x = decoder(1, 4), noise(12, 4)
    x[torch.arange(12), torch.arange(12) % 4] = torch.nan
    w, bias = nn.Parameter(dec.weight.detach()[:, 0].clone()), nn.Parameter(dec.bias.detach().clone())

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            seen = dist.Normal(dec(z), 1.0).mask(~x.isnan())
            pyro.sample("x", seen.to_event(1), obs=x.nan_to_num())

    def guide(x):
        w_, bias_ = pyro.param("w", w.detach().clone()), pyro.param("bias", bias.detach().clone())
        seen = (~x.isnan()).float()
        precision = 1 + (seen * w_**2).sum(1, keepdim=True)
        loc = (seen * w_ * (x.nan_to_num() - bias_)).sum(1, keepdim=True) / precision
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, precision.rsqrt()).to_event(1))

    kept = [~row.isnan() for row in x]
    cov = torch.outer(w, w).detach().double() + torch.eye(4).double()
    answer = torch.stack(
        [gaussian(r[k], bias.detach().double()[k], cov[k][:, k]) for r, k in zip(x, kept, strict=True)]
    )
    encode = lambda: Features(4, lambda x: x.nan_to_num())  # noqa: E731
    return Pair(model, guide, [(x,)], answer, encoder=encode, parts=(dec,))
