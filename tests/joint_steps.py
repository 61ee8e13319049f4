"""Pairs and objectives whose steps several ranks make together, and draws that depend on the content of rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MAP,
    MIWAE,
    NVIL,
    PIWAE,
    REBAR,
    RELAX,
    RWS,
    STL,
    SVI,
    TVO,
    VIMCO,
    DisARM,
    DReG,
    GumbelRao,
    GumbelSoftmax,
    MaximumLikelihood,
    MovingAverage,
    Renyi,
    ScoreFunction,
    Separate,
    StraightThrough,
    VRMax,
    WakeSleep,
    capacity,
    free_bits,
    linear,
    tempered,
    total_correlation,
)
from dlvm.nets import MLP

DATA = 50
X_DIM, Z_DIM = 3, 2
NOISE_OF = {"rows": torch.zeros(0)}


class Model(PyroModule):
    """z -> x, Gaussian or binary z, in a plate of one of several kinds."""

    def __init__(self, kind: str):
        super().__init__("model")
        self.kind, self.net = kind, MLP(Z_DIM, 4, X_DIM)
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4]))

    def forward(self, x):
        NOISE_OF["rows"] = x.detach()
        shift = 0.0
        if self.kind.startswith("global"):
            shift = pyro.sample("w", dist.Normal(torch.zeros(X_DIM), 1.0).to_event(1))
        size = DATA if self.kind in ("fixed", "global") else len(x)
        with pyro.plate("data", size, subsample_size=len(x)):
            z = torch.zeros(len(x), Z_DIM) if self.kind == "observed" else self.latent()
            scale = torch.full((X_DIM,), 0.7)
            pyro.sample("x", dist.Normal(self.net(z) + shift, scale).to_event(1), obs=x)

    def latent(self) -> Tensor:
        if self.kind == "enumerated":
            z = pyro.sample("z", dist.Bernoulli(logits=self.logits[0]), infer={"enumerate": "parallel"})
            return torch.stack([z, 1 - z], -1)
        if self.kind == "binary":
            return pyro.sample("z", dist.Bernoulli(logits=self.logits).to_event(1))
        return pyro.sample("z", dist.Normal(self.logits, torch.ones(Z_DIM)).to_event(1))


class Guide(PyroModule):
    """q(z | x) for the same kinds."""

    def __init__(self, kind: str):
        super().__init__("guide")
        self.kind, self.net = kind, MLP(X_DIM, 4, 2 * Z_DIM)
        self.loc = nn.Parameter(torch.full((X_DIM,), 0.2))

    def forward(self, x):
        NOISE_OF["rows"] = x.detach()
        if self.kind.startswith("global"):
            pyro.sample("w", dist.Normal(self.loc, 0.5).to_event(1))
        size = DATA if self.kind in ("fixed", "global") else len(x)
        with pyro.plate("data", size, subsample_size=len(x)):
            loc, scale = self.net(x).chunk(2, -1)
            if self.kind == "binary":
                pyro.sample("z", dist.Bernoulli(logits=loc).to_event(1))
            elif self.kind not in ("enumerated", "observed"):
                pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


CASES: dict[str, tuple[str, Callable]] = {
    "elbo": ("plain", lambda: ELBO(2)),
    "analytic_kl": ("plain", lambda: ELBO(2, analytic_kl=True)),
    "iwae": ("plain", lambda: IWAE(3)),
    "iwae_stl": ("plain", lambda: IWAE(3, STL())),
    "iwae_dreg": ("plain", lambda: IWAE(3, DReG())),
    "iwae_score": ("plain", lambda: IWAE(3, ScoreFunction(MovingAverage(), everywhere=True))),
    "iwae_vimco": ("plain", lambda: IWAE(3, VIMCO(everywhere=True))),
    "renyi": ("plain", lambda: Renyi(0.3, 3)),
    "vr_max": ("plain", lambda: VRMax(3)),
    "miwae": ("plain", lambda: MIWAE(2, 2)),
    "piwae": ("plain", lambda: PIWAE(2, 2, DReG())),
    "ciwae": ("plain", lambda: CIWAE(0.4, 3)),
    "cubo": ("plain", lambda: Separate(model=IWAE(4), guide=CUBO(2.0, 4))),
    "tvo": ("plain", lambda: TVO(4, 3)),
    "wake_sleep": ("plain", lambda: WakeSleep(2)),
    "rws": ("plain", lambda: RWS(3, 0.5)),
    "rws_dreg": ("plain", lambda: RWS(3, doubly=True)),
    "warm_up": ("plain", lambda: tempered(ELBO(2), linear(0.0, 1.0, steps=4))),
    "free_bits": ("plain", lambda: free_bits(ELBO(2, analytic_kl=True), 0.42)),  # between the ranks' own rates
    "free_bits_by_group": ("plain", lambda: free_bits(ELBO(2, analytic_kl=True), 0.161, groups=2)),
    "capacity": ("plain", lambda: capacity(ELBO(2, analytic_kl=True), 0.42, 10.0)),
    "untouched_correlation": ("plain", lambda: total_correlation(ELBO(2), 1.0)),
    "total_correlation": ("plain", lambda: total_correlation(ELBO(), 4.0)),
    "total_correlation_iwae": ("plain", lambda: total_correlation(IWAE(3), linear(0.5, 3.0, steps=4))),
    "map": ("plain", lambda: MAP(ELBO(2), dist.Normal(0.0, 1.0), DATA)),
    "maximum_likelihood": ("observed", MaximumLikelihood),
    "fixed_elbo": ("fixed", lambda: ELBO(2)),
    "fixed_iwae": ("fixed", lambda: IWAE(3, DReG())),
    "fixed_map": ("fixed", lambda: MAP(ELBO(2), dist.Normal(0.0, 1.0), DATA)),
    "fixed_free_bits": ("fixed", lambda: free_bits(ELBO(2, analytic_kl=True), 0.42)),
    "fixed_total_correlation": ("fixed", lambda: total_correlation(ELBO(2), 4.0)),
    "fixed_capacity": ("fixed", lambda: capacity(ELBO(2, analytic_kl=True), 0.42, 10.0)),
    "global_elbo": ("global", ELBO),
    "global_pyro": ("global", infer.Trace_ELBO),
    "binary_score": ("binary", lambda: ELBO(2, ScoreFunction(MovingAverage()))),
    "binary_nvil": ("binary", lambda: ELBO(2, ScoreFunction(NVIL(MLP(X_DIM, 3, 1))))),
    "binary_vimco": ("binary", lambda: IWAE(3, VIMCO())),
    "binary_gumbel_rao": ("binary", lambda: ELBO(2, GumbelRao(0.7, 3))),
    "binary_rebar": ("binary", lambda: IWAE(3, REBAR())),
    "binary_relax": ("binary", lambda: IWAE(3, RELAX(MLP(Z_DIM + X_DIM, 3, 1)))),
    "binary_disarm": ("binary", lambda: IWAE(3, DisARM())),
    "binary_rws": ("binary", lambda: RWS(3, 0.5)),
    "binary_gumbel": ("binary", lambda: ELBO(2, GumbelSoftmax(0.7))),
    "binary_straight_through": ("binary", lambda: ELBO(2, StraightThrough(0.7))),
    "pyro_trace": ("binary", lambda: infer.Trace_ELBO(2, vectorize_particles=True)),
    "pyro_mean_field": ("plain", infer.TraceMeanField_ELBO),
    "pyro_graph": ("binary", infer.TraceGraph_ELBO),
    "pyro_enum": ("enumerated", lambda: infer.TraceEnum_ELBO(max_plate_nesting=1)),
    "pyro_renyi": ("plain", lambda: infer.RenyiELBO(0.5, 3, vectorize_particles=True)),
}


def batches() -> list[Tensor]:
    """Of 5 rows, shared out as 2 and 3; of 1, so that one rank has none; of 4."""
    x = torch.randn(10, X_DIM, generator=torch.Generator().manual_seed(1))
    return list(x.split([5, 1, 4]))


def by_content(shape) -> Tensor:
    """Numbers in (-1, 1) that depend on the row of the batch, the particle and the dimension, and on nothing else."""
    rows = NOISE_OF["rows"]
    if len(shape) < 2 or shape[-2] != len(rows):
        return torch.arange(shape[-1]).sin().expand(shape).clone()
    where = torch.arange(shape[:-2].numel()).reshape(*shape[:-2], 1, 1) * 7.0
    key = (rows * torch.tensor([3.0, 5.0, 7.0])).sum(-1, keepdim=True)
    return torch.sin(key + where + 3.0 * torch.arange(shape[-1]) + 0.5)


@contextmanager
def without_chance() -> Iterator[None]:
    """Inside, numbers are double, and draws depend on the content of rows."""
    dtype = torch.get_default_dtype()
    uniform = lambda shape: 0.5 + 0.49 * by_content(torch.Size(shape))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        normal = torch.distributions.normal
        patch.setattr(normal, "_standard_normal", lambda shape, **kind: 2 * by_content(torch.Size(shape)))
        patch.setattr(torch, "bernoulli", lambda probs: (uniform(probs.shape) < probs).to(probs))
        patch.setattr(torch, "rand", lambda *shape, **kind: uniform(torch.empty(*shape).shape))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def trained(name: str) -> dict[str, Tensor]:
    """Losses, gradient norms and everything that is learned, after three steps."""
    kind, make = CASES[name]
    pyro.set_rng_seed(0)
    model, guide = Model(kind), Guide(kind)
    objective = make()
    svi = SVI(model, guide, partial(torch.optim.SGD, lr=0.01, momentum=0.5), objective, engine="eager", clip_norm=30.0)
    told = []
    for x in batches():
        told += [svi.step(x), svi.grad_norm]
    told.append(svi.evaluate_loss(batches()[0]))
    parts = {"model": model, "guide": guide, "objective": objective}
    modules = {word: part for word, part in parts.items() if isinstance(part, nn.Module)}
    state = {f"{word}.{key}": v.clone() for word, part in modules.items() for key, v in part.state_dict().items()}
    return {"losses": torch.tensor(told), **state}


def all_trained(names: Iterable[str] = CASES) -> dict[str, Tensor]:
    with without_chance():
        return {f"{name}/{key}": value for name in names for key, value in trained(name).items()}
