"""What is refused where a guide or a spec is made of a program."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from pyro.infer import ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from dlvm.guides import (
    Augmented,
    Diagonal,
    Hamiltonian,
    HamiltonianModel,
    Joint,
    Ladder,
    Latent,
    Refined,
    WithGlobals,
    latents,
    local_sites,
)
from dlvm.inference import IWAE
from refusals.case import NOT_CALLABLE, NOT_COUNTS, NOT_NUMBERS, Case
from refusals.guides_parts import NOT_ENCODERS, NOT_FAMILIES, NOT_HIDDEN, NOT_SPECS, SITES, encoder
from refusals.pairs import GUIDE, MODEL, X


def shared(x=None, w=None):
    """p(w) prod p(z) p(x | z, w)"""
    w = pyro.sample("w", dist.Normal(0.0, 1.0), obs=w)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + w, 1.0).to_event(1), obs=x)


def given(x, z=None):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=z)
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


LOCAL = Diagonal(local_sites(latents(shared, X)), encoder())
MOVED = HamiltonianModel(MODEL, SITES, encoder())
LADDER = Ladder(SITES, encoder(), MODEL)
OTHER = [Diagonal({"w": SITES["z"]}, encoder()), Joint({"w": SITES["z"]}, encoder())]
NOT_PROGRAMS = st.one_of(NOT_CALLABLE, st.sampled_from([type(MODEL), nn.Linear, dist.Normal, dict, SITES]))
NOT_GUIDES = st.sampled_from([None, 3, "guide", MODEL, SITES, Diagonal, LADDER, MOVED, shared, encoder(), X])
NOT_RATES = st.one_of(NOT_NUMBERS, st.sampled_from([None, 0, -0.1, float("nan"), float("inf"), False, X]))
NOT_OBJECTIVES = st.sampled_from([None, "elbo", 3, Trace_ELBO, ELBO, IWAE, len, MODEL, nn.MSELoss(), torch.optim.Adam])
NOT_AUTOMATIC = st.sampled_from(
    [
        None,
        3,
        "AutoNormal",
        AutoNormal(shared),
        Diagonal,
        GUIDE,
        lambda model: model,
        lambda model: GUIDE,
        [],
        dict,
        str,
    ]
)


def augmented(**changed: object) -> Augmented:
    return Augmented(**dict(model=MODEL, latents=SITES, encoder=encoder(), dim=1) | changed)


def moved(**changed: object) -> HamiltonianModel:
    return HamiltonianModel(**dict(model=MODEL, latents=SITES, encoder=encoder()) | changed)


def hamiltonian(**changed: object) -> Hamiltonian:
    return Hamiltonian(**dict(guide=GUIDE, model=MOVED) | changed)


def refined(**changed: object) -> Refined:
    return Refined(**dict(guide=GUIDE, model=MODEL, objective=Trace_ELBO()) | changed)


def with_globals(local=LOCAL, model=shared, family=AutoNormal, args=(X,), **changed: object) -> WithGlobals:
    return WithGlobals(local, model, family, *args, **changed)


COMMON = {"encoder": NOT_ENCODERS, "family": NOT_FAMILIES, "hidden": NOT_HIDDEN, "latents": NOT_SPECS}
CASES = [
    Case("latents", "model", lambda v: latents(v, X), NOT_PROGRAMS),
    Case("latents", "args", lambda v: latents(given, X, v), st.sampled_from([X, X.clone(), X * 3.0]), "arguments"),
    *(Case("Augmented", p, lambda v, p=p: augmented(**{p: v}), bad) for p, bad in COMMON.items()),
    *(Case("HamiltonianModel", p, lambda v, p=p: moved(**{p: v}), bad) for p, bad in COMMON.items()),
    Case("Augmented", "model", lambda v: augmented(model=v), NOT_PROGRAMS),
    Case("Augmented", "dim", lambda v: augmented(dim=v), NOT_COUNTS),
    Case("Augmented", "latents", lambda v: augmented(latents={v: SITES["z"]}), st.just("a")),
    Case("HamiltonianModel", "model", lambda v: moved(model=v), NOT_PROGRAMS),
    Case(
        "HamiltonianModel",
        "latents",
        lambda v: moved(latents={v: SITES["z"]}),
        st.sampled_from(["v1", "trajectory"]),
        "rename",
    ),
    Case(
        "HamiltonianModel",
        "latents",
        lambda v: moved(latents={"z": Latent((2,), v)}),
        st.sampled_from([dist.constraints.boolean, dist.constraints.one_hot]),
        "discrete",
    ),
    Case("HamiltonianModel", "steps", lambda v: moved(steps=v), NOT_COUNTS),
    Case("HamiltonianModel", "leaps", lambda v: moved(leaps=v), NOT_COUNTS),
    Case("HamiltonianModel", "size", lambda v: moved(size=v), NOT_RATES),
    Case("Hamiltonian", "guide", lambda v: hamiltonian(guide=v), NOT_GUIDES),
    Case("Hamiltonian", "guide", lambda v: hamiltonian(guide=v), st.sampled_from(OTHER)),
    Case(
        "Hamiltonian", "model", lambda v: hamiltonian(model=v), st.one_of(NOT_PROGRAMS, st.sampled_from([MODEL, GUIDE]))
    ),
    Case("Hamiltonian", "family", lambda v: hamiltonian(family=v), NOT_FAMILIES),
    Case("Hamiltonian", "hidden", lambda v: hamiltonian(hidden=v), NOT_HIDDEN),
    Case("Refined", "guide", lambda v: refined(guide=v), NOT_GUIDES),
    Case("Refined", "model", lambda v: refined(model=v), NOT_PROGRAMS),
    Case("Refined", "objective", lambda v: refined(objective=v), NOT_OBJECTIVES),
    Case("Refined", "steps", lambda v: refined(steps=v), NOT_COUNTS),
    Case("Refined", "rate", lambda v: refined(rate=v), NOT_RATES),
    Case(
        "WithGlobals", "local", lambda v: with_globals(v), st.sampled_from([None, 3, "z", {}, [], X, Diagonal, SITES])
    ),
    Case("WithGlobals", "model", lambda v: with_globals(model=v), NOT_PROGRAMS),
    Case("WithGlobals", "model", lambda v: with_globals(model=v), st.sampled_from([MODEL, given])),
    Case("WithGlobals", "family", lambda v: with_globals(family=v), NOT_AUTOMATIC),
    Case("WithGlobals", "args", lambda v: with_globals(args=v), st.sampled_from([(X, torch.tensor(1.0))]), "global"),
    Case("WithGlobals", "plate", lambda v: with_globals(plate=v), st.sampled_from([None, 3, "", ("data",), b"data"])),
]
