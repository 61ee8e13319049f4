"""Pairs of all kinds as a user's own module would have them, to be saved here and loaded in another process."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, autoguide, config_enumerate
from pyro.nn import PyroModule, PyroParam, PyroSample
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.experiments.options.guides import GUIDES
from dlvm.guides import (
    Augmented,
    Chain,
    Diagonal,
    FullRank,
    Hamiltonian,
    HamiltonianModel,
    Joint,
    Ladder,
    Local,
    Refined,
    WithGlobals,
    latents,
    local_sites,
)
from dlvm.inference import load
from dlvm.inference.checkpoints.folder import fingerprint
from dlvm.inference.programs.pair import Pair
from dlvm.models import HVAE, PPCA, VAE, TopDown
from dlvm.nets import MLP

Made = tuple[Callable, Callable, tuple[Tensor, ...]]
X = (torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) > 0.5).float()


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Recipe:
    widths: tuple[int, ...]
    level: Level


@dataclass
class Counts:
    seen: int = 0
    by_name: dict | None = None


class Net(nn.Module):
    """Batch statistics, buffers of both kinds, tied and frozen parameters, and attributes of many types."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.3)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("shift", torch.full((5,), 0.1))
        self.register_buffer("passing", torch.full((5,), 0.2), persistent=False)
        self.out_features, self.recipe, self.counts = 5, Recipe((3, 4), Level.HIGH), Counts(3, {"a": [1, 2.5]})
        self.activation, self.scale = torch.tanh, partial(torch.mul, other=0.5)
        self.odd = {"inf": float("inf"), "none": None, 3: (1, [2, {3}]), "where": slice(1, None), "size": X.shape}
        self.odd |= {"dtype": torch.float64, "device": torch.device("cpu"), "make": nn.ReLU, "numbers": np.arange(3.0)}
        self.odd |= {"by": defaultdict(list, {"k": [1]}), "ordered": OrderedDict(z=1, a=2), "view": self.shift[1:3]}
        self.itself, self.method = self.odd, self.shifted
        self.apart = self.first.weight.t()

    def shifted(self, x: Tensor) -> Tensor:
        return x + self.shift + self.passing

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.scale(self.activation(self.first(x))))
        return self.second(self.drop(self.method(h)))


class Own(PyroModule):
    """A constrained parameter, a sampled one, and a net of batch statistics."""

    def __init__(self):
        super().__init__("model")
        self.net = Net()
        self.noise = PyroParam(torch.tensor(0.7), constraint=constraints.positive)
        self.level = PyroParam(torch.full((5,), 0.3), constraint=constraints.unit_interval, event_dim=1)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z) + self.level, self.noise).to_event(1), obs=x)


class Bayesian(PyroModule):
    """A linear layer with a prior on its weights."""

    def __init__(self):
        super().__init__("model")
        self.linear = PyroModule[nn.Linear](4, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2))
        self.linear.bias = PyroSample(prior_of_bias)
        self.rest = PyroModule[nn.Sequential](nn.Linear(1, 1), nn.Tanh())

    @PyroParam(constraint=constraints.positive)
    def noise(self):
        return torch.tensor(0.8)

    def forward(self, x):
        mean = self.rest(self.linear(x[:, :4])).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, self.noise), obs=x[:, 4])


def prior_of_bias(layer: nn.Module) -> dist.Distribution:
    return dist.Normal(torch.zeros(1), 1.0).to_event(1)


class Sequence(PyroModule):
    """A GRU as the decoder of a vector into five steps."""

    def __init__(self):
        super().__init__("model")
        self.rnn, self.head = nn.GRU(2, 3, batch_first=True), nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            h = self.head(self.rnn(z.unsqueeze(-2).expand(-1, 5, -1))[0]).squeeze(-1)
            return pyro.sample("x", dist.Bernoulli(logits=h).to_event(1), obs=x)


class Both(nn.Module):
    """Model and guide as methods of one module, as in Pyro's own example of a VAE, and one declared parameter."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        level = pyro.param("level", torch.zeros(5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z) + level).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


NET = nn.Linear(2, 5)


def function(x):
    """A function that trains a module of its own module, and declares a constrained parameter."""
    pyro.module("net", NET)
    noise = pyro.param("noise", torch.tensor(0.9), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(NET(z), noise).to_event(1), obs=x)


def its_guide(x):
    loc = pyro.param("loc", torch.zeros(6, 2))
    scale = pyro.param("scale", torch.ones(6, 2), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def discrete(x):
    weights = pyro.param("weights", torch.ones(3) / 3, constraint=constraints.simplex)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Bernoulli(logits=MORE(nn.functional.one_hot(z.long(), 3).float())).to_event(1), obs=x)


@config_enumerate
def decorated(x):
    pyro.module("more", MORE)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Categorical(logits=x @ MORE.weight))


MORE = nn.Linear(3, 5)


def with_net(net, x):
    """A function that is given its net."""
    pyro.module("given", net)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)


class Kinds(PyroModule):
    """A class, a one-hot vector, bits, a positive number, a simplex, a direction."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(3 + 4 + 2 + 2 + 3 + 3, 5)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=torch.zeros(3)))
            o = pyro.sample("o", dist.OneHotCategorical(logits=torch.zeros(4)))
            b = pyro.sample("b", dist.Bernoulli(logits=torch.zeros(2)).to_event(1))
            g = pyro.sample("g", dist.Gamma(2.0 * torch.ones(2), 1.0).to_event(1))
            s = pyro.sample("s", dist.Dirichlet(torch.ones(3)))
            d = pyro.sample("d", dist.ProjectedNormal(torch.zeros(3)))
            all_ = torch.cat([nn.functional.one_hot(c.long(), 3).float(), o, b, g, s, d], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.net(all_)).to_event(1), obs=x)


class Globals(PyroModule):
    """Weights that all data share, and a latent vector of each datum."""

    def forward(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(5), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z * w).to_event(1), obs=x)


def numbered(x: Tensor) -> Tensor:
    return torch.arange(len(x))


def vae() -> VAE:
    return VAE(3, Bernoulli(MLP(3, 6, 5)))


def hvae() -> HVAE:
    return HVAE(StandardNormal(2), [DiagonalNormal(MLP(2, 6), 3)], Bernoulli(MLP(3, 6, 5)))


def encoder() -> MLP:
    return MLP(5, 6, activation=nn.Tanh)


def moved(*programs: Callable) -> None:
    """Parameters and buffers are no longer those of a fresh start."""
    for program in programs:
        for tensor in [*getattr(program, "parameters", list)(), *getattr(program, "buffers", list)()]:
            if tensor.is_floating_point():
                tensor.data += 0.1 * torch.rand_like(tensor)


def made() -> Iterator[tuple[str, Made]]:
    """(name, (model, guide, arguments)) of every kind of pair."""
    for word, family in GUIDES.items():
        for kind, model in (("vae", vae()), ("hvae", hvae())):
            yield f"{kind} {word}", (model, family(latents(model, X), encoder()), (X,))
    yield from across()
    yield from automatic()
    yield from few()


def across() -> Iterator[tuple[str, Made]]:
    """Guides of other kinds, and other models."""
    model = hvae()
    sites = latents(model, X)
    yield "joint", (model, Joint(sites, encoder()), (X,))
    yield "residual", (model, Ladder(sites, encoder(), model, merge="residual"), (X,))
    yield "chain", (model, Chain(sites, encoder()), (X,))
    yield "bottom up", (model, FullRank(sites, encoder(), order="bottom_up"), (X,))
    yield "refined", (model, Refined(Diagonal(sites, encoder()), model, Trace_ELBO(), steps=2), (X,))
    yield "local", (model, Local(sites, 6, index=numbered), (X,))
    simple = vae()
    augmented = Augmented(simple, latents(simple, X), encoder(), dim=2)
    yield "augmented", (augmented, Diagonal(augmented.latents, encoder()), (X,))
    moving = HamiltonianModel(simple, latents(simple, X), encoder(), steps=1)
    yield "hamiltonian", (moving, Hamiltonian(Diagonal(latents(simple, X), encoder()), moving), (X,))
    ppca = PPCA(torch.randn(5, 2), torch.zeros(5), 1.0).double()
    yield "float64", (ppca, FullRank(latents(ppca, X.double()), encoder().double()).double(), (X.double(),))
    kinds = Kinds()
    yield "kinds of sites", (kinds, Diagonal(latents(kinds, X), encoder()), (X,))
    shared = Globals("model")
    local = Diagonal(local_sites(latents(shared, X)), encoder())
    yield "globals", (shared, WithGlobals(local, shared, autoguide.AutoNormal, X), (X,))
    images = torch.rand(2, 784).round()
    top = TopDown(mean=images.mean(0))
    yield "top down", (top, Diagonal(latents(top, images), MLP(784, 8)), (images,))
    discrete = VAE(3, Bernoulli(MLP(3, 5)), Bits(3))
    yield "bits", (discrete, Diagonal(latents(discrete, X), encoder()), (X,))


class Bits(nn.Module):
    def __init__(self, bits: int):
        super().__init__()
        self.register_buffer("logits", torch.zeros(bits))

    def forward(self) -> dist.Distribution:
        return dist.Bernoulli(logits=self.logits).to_event(1)


def automatic() -> Iterator[tuple[str, Made]]:
    """Pyro's own guides, before and after their first call."""
    names = ("AutoNormal", "AutoDelta", "AutoDiagonalNormal", "AutoMultivariateNormal", "AutoLowRankMultivariateNormal")
    for name in (*names, "AutoIAFNormal", "AutoLaplaceApproximation", "AutoStructured"):
        model = Globals("model")
        guide = getattr(autoguide, name)(model)
        guide(X)
        yield name, (model, guide, (X,))
    model = Globals("model")
    guides = autoguide.AutoGuideList(model)
    guides.append(autoguide.AutoDelta(poutine.block(model, expose=["w"])))
    guides.append(autoguide.AutoNormal(poutine.block(model, expose=["z"])))
    guides(X)
    yield "list", (model, guides, (X,))


def few() -> Iterator[tuple[str, Made]]:
    """A pair of ours, and programs of a user's own."""
    deep = hvae()
    yield "ladder", (deep, Ladder(latents(deep, X), encoder(), deep), (X,))
    model = Own()
    model.net.drop.eval()
    guide = Diagonal(latents(model, X), MLP(5, 6), posteriors=None)
    guide.encoder.requires_grad_(False)
    model(X)
    yield "own", (model, guide, (X,))
    sequence = Sequence()
    sequence(X)
    yield "sequence", (sequence, Diagonal(latents(sequence, X), encoder()), (X,))
    lazy = Bayesian()
    yield "not called yet", (lazy, autoguide.AutoDiagonalNormal(lazy), (X,))
    both = Both()
    yield "methods", (both.model, both.guide, (X,))
    yield "decorated", (discrete, decorated, (X,))
    yield "functions", (function, its_guide, (X,))
    given = partial(with_net, nn.Linear(2, 5))
    yield "partial", (given, Diagonal(latents(given, X), encoder()), (X,))
    simple = vae()
    yield "scaled", (poutine.scale(simple, scale=0.5), Diagonal(latents(simple, X), encoder()), (X,))


def seen(model: Callable, guide: Callable, args: tuple) -> list:
    """What two runs under a seed show, to the last bit: draws, densities, gradients, and the states they leave."""
    pyro.set_rng_seed(1)
    pair, shown = Pair(model, guide), []
    parameters = list({id(p): p for root in pair.roots.values() for p in root.parameters()}.values())
    for _ in range(2):
        traces = pair.traces(args, {})
        bound = traces[1].log_prob_sum() - traces[0].log_prob_sum()
        trained = [p for p in parameters if p.requires_grad]
        if trained and bound.requires_grad:
            slopes = torch.autograd.grad(bound, trained, allow_unused=True)
            shown += [None if slope is None else fingerprint(slope) for slope in slopes]
        nodes = [node for trace in traces for node in trace.nodes.values() if node["type"] in ("sample", "param")]
        shown += [[node["name"], fingerprint(torch.as_tensor(node["value"]))] for node in nodes]
        shown.append([float(trace.log_prob_sum().detach()).hex() for trace in traces])
    for root in pair.roots.values():
        shown += [[name, fingerprint(value)] for name, value in root.state_dict().items()]
        shown += [[name, type(part).__qualname__, part.training] for name, part in root.named_modules()]
    return [*shown, [p.requires_grad for p in parameters]]


def told_again(folder: str) -> None:
    """Loads every pair below a folder and prints what it shows, in the other process."""
    pyro.set_rng_seed(2)
    torch.set_num_threads(1)
    found = {}
    for place in sorted(Path(folder).iterdir()):
        model, guide = load(place)
        # Clones lie in memory of torch's own: how it is aligned decides on rounding
        args = tuple(value.clone() for value in load_file(place / "args.safetensors").values())
        found[place.name] = seen(model, guide, args)
    print(json.dumps(found))
