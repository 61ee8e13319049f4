"""Labels that some batches have and others have not: sites that are observed here and latent there."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, gaussian

CLASSES, WIDE = 3, 4


class Exact(nn.Module):
    """p(y | x) and p(z | x, y) of: y uniform, z ~ N(0, 1), x ~ N(w z + means[y], I); all are linear in x."""

    def __init__(self, w: torch.Tensor, means: torch.Tensor):
        super().__init__()
        cov_inverse = (torch.outer(w, w) + torch.eye(WIDE)).inverse()
        self.logits, self.loc = nn.Linear(WIDE, CLASSES), nn.Linear(WIDE + CLASSES, 1)
        self.log_sd = nn.Parameter(-0.5 * (1 + w @ w).log())
        with torch.no_grad():
            self.logits.weight.copy_(means @ cov_inverse)
            self.logits.bias.copy_(-0.5 * torch.einsum("ci,ij,cj->c", means, cov_inverse, means))
            gain = w / (1 + w @ w)
            self.loc.weight.copy_(torch.cat([gain, -means @ gain])[None])
            self.loc.bias.zero_()


def semi_supervised(batches, plate=lambda n: pyro.plate("data", n), weight: float = 1.0, **others) -> Pair:
    """M2 with a linear decoder; every (x,), (x, None) or (x, y) may be a batch, y one-hot."""
    net = nn.Linear(1 + CLASSES, WIDE)
    with torch.no_grad():
        net.weight.copy_(torch.cat([decoder(1, WIDE).weight, 1.5 * noise(WIDE, CLASSES, seed=8)], 1))
        net.bias.zero_()
    w, means = net.weight[:, 0].detach(), net.weight[:, 1:].T.detach()
    q = Exact(w, means)

    def joined(z, y):
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
        return torch.cat([z.expand(*shape, z.shape[-1]), y.expand(*shape, CLASSES)], -1)

    def model(x, y=None):
        pyro.module("decoder", net)
        with plate(len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(len(x), CLASSES)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(joined(z, y)), 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("encoder", q)
        with plate(len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=q.logits(x)))
            pyro.sample("z", dist.Normal(q.loc(joined(x, y)), q.log_sd.exp()).to_event(1))

    answers = []
    for x, *label in batches:
        cov = torch.outer(w, w).double() + torch.eye(WIDE).double()
        each = torch.stack([gaussian(x, m.double(), cov) for m in means], 1) - torch.tensor(CLASSES).double().log()
        given = label[0] if label else None
        answers.append(each.logsumexp(1) if given is None else (each * given).sum(1))
    others = dict(encoder=lambda: Features(WIDE, lambda x, y=None: x), spec=(batches[0][0],), parts=(net, q)) | others
    both = dict(objective=TraceEnum_ELBO(max_plate_nesting=1), discrete=True)
    return Pair(model, config_enumerate(guide), batches, torch.cat(answers), **both | others)


def data() -> tuple[list, list]:
    """Two batches with labels, and three without."""
    x, y = noise(20, WIDE, seed=2), torch.eye(CLASSES)[torch.arange(20) % CLASSES]
    labelled = [(x[:4], y[:4]), (x[4:8], y[4:8])]
    return labelled, [(b,) for b in x[8:].split(4)]


@brought("labelled batches first: the label is an observed site there, and a latent one later")
def labelled_first() -> Pair:
    labelled, plain = data()
    return semi_supervised(labelled + plain)


@brought("batches without labels first")
def unlabelled_first() -> Pair:
    labelled, plain = data()
    return semi_supervised(plain + labelled, optimizer="SGD")


@brought("None stands where the label is missing, batch by batch")
def none_for_the_label() -> Pair:
    labelled, plain = data()
    return semi_supervised([*labelled[:1], *[(x, None) for (x,) in plain], *labelled[1:]], optimizer="SGD")


@brought("M2 with pyro.plate('data') of no size, as Pyro's ss_vae_M2.py writes it")
def m2_without_size() -> Pair:
    labelled, plain = data()
    return semi_supervised(plain + labelled, plate=lambda n: pyro.plate("data"), optimizer="SGD")


@brought("all unlabelled: the ordinary M2")
def m2_unlabelled() -> Pair:
    return semi_supervised(data()[1])


@brought("one of two modalities may be None")
def modality_none() -> Pair:
    a, b = decoder(1, 3), decoder(1, 2, seed=3)
    nets = nn.ModuleDict({"a": a, "b": b})
    own = nn.ParameterDict({"a": a.weight.detach()[:, 0].clone(), "b": b.weight.detach()[:, 0].clone()})
    bias = {"a": a.bias.detach().clone(), "b": b.bias.detach().clone()}

    def model(x=None, y=None):
        pyro.module("nets", nets)
        with pyro.plate("data", len(y if x is None else x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            for name, net, value in (("x", a, x), ("y", b, y)):
                if value is not None:
                    pyro.sample(name, dist.Normal(net(z), 1.0).to_event(1), obs=value)

    def guide(x=None, y=None):
        precision, shift = 1.0, 0.0
        for word, value in (("a", x), ("b", y)):
            if value is not None:
                w = pyro.param(f"own_{word}", own[word].detach().clone())
                precision, shift = precision + w @ w, shift + (value - bias[word]) @ w
        with pyro.plate("data", len(y if x is None else x)):
            pyro.sample("z", dist.Normal((shift / precision)[:, None], precision.rsqrt()).to_event(1))

    x, y = noise(12, 3), noise(12, 2, seed=4)
    batches = [(x[:4], y[:4]), (x[4:8], None), (None, y[8:])]
    answer = []
    for u, v in batches:
        used = [(n, t) for n, t in ((a, u), (b, v)) if t is not None]
        w = torch.cat([n.weight.detach()[:, 0] for n, _ in used]).double()
        mean = torch.cat([n.bias.detach() for n, _ in used]).double()
        answer.append(
            gaussian(torch.cat([t for _, t in used], 1), mean, torch.outer(w, w) + torch.eye(len(w)).double())
        )

    def features(x=None, y=None):
        n = len(y if x is None else x)
        return torch.cat([torch.zeros(n, 3) if x is None else x, torch.zeros(n, 2) if y is None else y], 1)

    settings = dict(encoder=lambda: Features(5, features), parts=(nets,), optimizer="SGD")
    return Pair(model, guide, batches, torch.cat(answer), **settings)
