"""Pyro's tutorials and examples in our own words and small: what their authors' ways of writing bring with them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.cevae import CEVAE, TraceCausalEffect_ELBO
from pyro.infer import TraceEnum_ELBO
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, on_line, on_plane, standard

GREY = {"fit.*|check.*|evaluate.*|importance": "outside its likelihood's support"}


def double(net: nn.Module):
    """The net as a function of numbers in double precision, without gradients."""

    def called(*inputs):
        with torch.no_grad():
            found = net(*(v.float() for v in inputs))
        return found.double() if isinstance(found, torch.Tensor) else tuple(v.double() for v in found)

    return called


class Decoder(nn.Module):
    def __init__(self, z_dim, hidden, pixels):
        super().__init__()
        self.fc1, self.fc21, self.softplus = nn.Linear(z_dim, hidden), nn.Linear(hidden, pixels), nn.Softplus()

    def forward(self, z):
        return torch.sigmoid(self.fc21(self.softplus(self.fc1(z))))


class Encoder(nn.Module):
    def __init__(self, z_dim, hidden, pixels):
        super().__init__()
        self.fc1, self.softplus = nn.Linear(pixels, hidden), nn.Softplus()
        self.fc21, self.fc22 = nn.Linear(hidden, z_dim), nn.Linear(hidden, z_dim)
        self.pixels = pixels

    def forward(self, x):
        hidden = self.softplus(self.fc1(x.reshape(-1, self.pixels)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class VAE(nn.Module):
    """Of images, which the programs flatten by themselves."""

    def __init__(self, z_dim=2, hidden=8, validate=None):
        super().__init__()
        self.encoder, self.decoder = Encoder(z_dim, hidden, 4), Decoder(z_dim, hidden, 4)
        self.z_dim, self.validate = z_dim, validate

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zero = torch.zeros(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
            loc_img = self.decoder.forward(z)
            pixels = dist.Bernoulli(loc_img, validate_args=self.validate).to_event(1)
            pyro.sample("obs", pixels, obs=x.reshape(-1, 4))
            return loc_img

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder.forward(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))


def _images(x: torch.Tensor, validate=None) -> Pair:
    vae = VAE(validate=validate)
    logits = torch.logit(double(vae.decoder)(torch.cartesian_prod(*[torch.linspace(-7, 7, 121).double()] * 2)))

    def log_joint(a, b):
        pixels = dist.Bernoulli(logits=logits[:, None], validate_args=False).log_prob(x.reshape(-1, 4).double())
        return pixels.sum(-1) + (standard(a) + standard(b))[:, None]

    encode = lambda: Features(4, lambda x: x.reshape(len(x), 4))  # noqa: E731
    settings = dict(exact=False, samples=1000, encoder=encode, parts=(vae,), x_dim=4)
    return Pair(vae.model, vae.guide, [(b,) for b in x.split(6)], on_plane(log_joint), **settings)


@brought("the VAE tutorial with images, methods as programs, and a net of sigmoids")
def vae() -> Pair:
    return _images((noise(12, 1, 2, 2) > 0).float())


@brought(
    "grey pixels under a Bernoulli whose validation is off: no likelihood, so that a refusal is right",
    GREY,
    "|".join(GREY),
)
def vae_of_grey_pixels() -> Pair:
    return _images(torch.sigmoid(noise(12, 1, 2, 2)), validate=False)


class CVAE(nn.Module):
    """In-painting: where x is -1 the pixel is to be predicted, and only there is y observed."""

    def __init__(self, baseline: nn.Module):
        super().__init__()
        self.baseline_net, self.prior_net = baseline, nn.Linear(8, 2)
        self.generation_net, self.recognition_net = nn.Sequential(nn.Linear(1, 4), nn.Sigmoid()), nn.Linear(8, 2)

    def normal(self, net, *parts):
        loc, log_scale = net(torch.cat(parts, -1)).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        with pyro.plate("data"):
            with torch.no_grad():
                y_hat = self.baseline_net(xs).view(xs.shape)
            zs = pyro.sample("z", self.normal(self.prior_net, xs, y_hat))
            loc = self.generation_net(zs)
            if ys is not None:
                mask_loc = loc[(xs == -1).view(-1, 4)].view(xs.shape[0], -1)
                mask_ys = ys[xs == -1].view(xs.shape[0], -1)
                pyro.sample("y", dist.Bernoulli(mask_loc, validate_args=False).to_event(1), obs=mask_ys)
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            pyro.sample("z", self.normal(self.recognition_net, xs, ys))


@brought("the CVAE example: boolean masks on pixels, view by the batch, a frozen baseline, a plate of no size")
def cvae() -> Pair:
    ys = (noise(12, 4) > 0).float()
    xs = torch.where(torch.arange(4) == (torch.arange(12) % 4)[:, None], ys, -1.0)
    net = CVAE(nn.Linear(4, 4).requires_grad_(False))
    loc, log_scale = net.prior_net(torch.cat([xs, net.baseline_net(xs)], -1)).detach().double().chunk(2, -1)

    def log_joint(u):
        z = loc + log_scale.exp() * u[:, None, None]
        pixels = dist.Bernoulli(double(net.generation_net)(z)).log_prob(ys.double()) * (xs == -1)
        return pixels.sum(-1) + standard(u)[:, None]

    encode = lambda: Features(8, lambda xs, ys: torch.cat([xs, ys], 1))  # noqa: E731
    settings = dict(exact=False, samples=1000, encoder=encode, parts=(net,))
    return Pair(net.model, net.guide, [(xs[:6], ys[:6]), (xs[6:], ys[6:])], on_line(log_joint), **settings)


class SCANVI(nn.Module):
    """z1 -> z2 with the label's help, counts of z2 and of a library size; the guide pays for a classifier."""

    def __init__(self, alpha: float = 0.1, scale: float = 0.1):
        super().__init__()
        self.shift, self.x_decoder = nn.Linear(1 + 2, 1), nn.Sequential(nn.Linear(1, 2), nn.Softmax(-1))
        self.z2l_encoder, self.classifier, self.z1_encoder = nn.Linear(2, 4), nn.Linear(1, 2), nn.Linear(3, 2)
        self.theta, self.alpha, self.scale_factor = nn.Parameter(torch.tensor([3.0, 4.0])), alpha, scale

    @staticmethod
    def joined(z, y):
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
        return torch.cat([z.expand(*shape, z.shape[-1]), y.expand(*shape, y.shape[-1])], -1)

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(len(x), 2)), obs=y)
            z2 = pyro.sample("z2", dist.Normal(self.shift(self.joined(z1, y)), 0.8).to_event(1))
            size = pyro.sample("l", dist.LogNormal(torch.full((len(x), 1), 1.5), 0.4).to_event(1))
            logits = (size * self.x_decoder(z2) + 1e-6).log() - self.theta.log()
            counts = dist.NegativeBinomial(total_count=self.theta, logits=logits)
            pyro.sample("x", counts.to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z2_loc, z2_log, l_loc, l_log = self.z2l_encoder(torch.log1p(x)).split(1, -1)
            pyro.sample("l", dist.LogNormal(1.5 + 0.3 * l_loc, 0.4 + 0 * l_log).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z2_loc, z2_log.exp()).to_event(1))
            q_y = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", q_y)
            else:
                pyro.factor("classification_loss", -self.alpha * -q_y.log_prob(y), has_rsample=False)
            loc, log_scale = self.z1_encoder(self.joined(z2, y)).chunk(2, -1)
            pyro.sample("z1", dist.Normal(loc, log_scale.exp()).to_event(1))


@brought("scANVI: labelled and unlabelled cells, a scale around everything, pyro.factor in the guide, TraceEnum_ELBO")
def scanvi() -> Pair:
    net = SCANVI()
    x, y = torch.poisson(torch.full((12, 2), 2.0)), torch.eye(2)[torch.arange(12) % 2]
    batches = [(x[:4],), (x[4:8], y[4:8]), (x[8:],)]
    grid = torch.cartesian_prod(torch.linspace(-7, 7, 101), torch.linspace(-6, 6, 61)).double()
    z2, size = grid[:, :1], (1.5 + 0.4 * grid[:, 1:]).exp()
    with torch.no_grad():
        theta = net.theta.double()
        logits = (size * double(net.x_decoder)(z2) + 1e-6).log() - theta.log()
        counts = dist.NegativeBinomial(total_count=theta, logits=logits[:, None]).log_prob(x.double()).sum(-1)
        w, b = net.shift.weight[0].double(), net.shift.bias.double()
        each = []
        for label in range(2):
            prior = dist.Normal(b + w[1 + label], (0.64 + w[0] ** 2) ** 0.5).log_prob(z2) + standard(grid[:, 1:])
            each.append((counts + prior).logsumexp(0) + torch.tensor(14 / 100 * 12 / 60 / 2).log())
    each = torch.stack(each, 1)
    answer = torch.cat([each[:4].logsumexp(1), (each[4:8] * y[4:8]).sum(1), each[8:].logsumexp(1)])
    encode = lambda: Features(2, lambda x, y=None: torch.log1p(x))  # noqa: E731
    settings = dict(exact=False, samples=2000, plate="batch", scale=0.1, discrete=True, encoder=encode, parts=(net,))
    objective = TraceEnum_ELBO(max_plate_nesting=1)
    guide = pyro.infer.config_enumerate(net.guide)
    return Pair(net.model, guide, batches, answer, objective=objective, spec=(x[:4],), ours_alike=False, **settings)


@brought("Pyro's own CEVAE: observed sites in the guide, subsample=x, an objective of its own")
def cevae() -> Pair:
    x, t, y = (noise(10, 3) > 0).float(), (torch.arange(10) % 2).float(), noise(10)
    net = CEVAE(3, outcome_dist="normal", latent_dim=1, hidden_dim=4, num_layers=2)
    with torch.no_grad(), poutine.block():
        u = torch.linspace(-9, 9, 801)
        z = u[:, None, None]
        each = net.model.x_dist(z).log_prob(x) + net.model.t_dist(z).log_prob(t) + net.model.y_dist(t, z).log_prob(y)
    answer = (each + standard(u)[:, None]).double().logsumexp(0) + torch.tensor(18 / 800).log()
    encode = lambda: Features(4, lambda x, t, y: torch.cat([x, y[:, None]], 1))  # noqa: E731
    settings = dict(exact=False, samples=1000, encoder=encode, parts=(net,), ours_alike=False)
    settings["steps_alike"] = False  # two nets of both programs have one name in Pyro's store, and stock mixes them
    batches = [(x[:5], t[:5], y[:5]), (x[5:], t[5:], y[5:])]
    return Pair(net.model, net.guide, batches, answer, objective=TraceCausalEffect_ELBO(), **settings)
