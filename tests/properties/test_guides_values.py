"""Guides on data of any shape, type and size: the density of what was drawn, whoever computes it and however."""

from __future__ import annotations

from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as running
from hypothesis import strategies as st
from pyro import poutine
from pyro.distributions import constraints
from pyro.nn import PyroModule
from torch import Tensor

from dlvm import guides
from dlvm.guides import (
    Amortized,
    Diagonal,
    FullRank,
    Hamiltonian,
    HamiltonianModel,
    Joint,
    Ladder,
    Latent,
    Local,
    Plate,
    latents,
    local_sites,
)
from dlvm.guides.sites.site_types import Reshaped
from dlvm.nets import MLP

FLOWS = ["Planar", "Radial", "Householder", "Sylvester", "IAF", "NeuralSpline", "RealNVP"]
NAMES = ["Diagonal", "FullRank", "LowRank", "Mixture", "StudentT", *FLOWS, "Joint", "Chain"]
CONTINUOUS = {
    "scalar": Latent(torch.Size([]), constraints.real),
    "one": Latent(torch.Size([1])),
    "vector": Latent(torch.Size([3])),
    "matrix": Latent(torch.Size([2, 2]), constraints.independent(constraints.real, 2)),
    "positive": Latent(torch.Size([2]), constraints.positive),
    "interval": Latent(torch.Size([2]), constraints.interval(-1.0, 2.0)),
    "simplex": Latent(torch.Size([4]), constraints.simplex),
    "cholesky": Latent(torch.Size([2, 2]), constraints.lower_cholesky),
    "correlations": Latent(torch.Size([3, 3]), constraints.corr_cholesky),
}
DISCRETE = {
    "bits": Latent(torch.Size([3]), constraints.boolean),
    "class": Latent(torch.Size([]), constraints.integer_interval(0, 3)),
    "one-hot": Latent(torch.Size([3]), constraints.one_hot),
    "direction": Latent(torch.Size([3]), constraints.sphere),
}
ALL = CONTINUOUS | DISCRETE
KINDS = {name: tuple(CONTINUOUS if name == "Joint" else ALL) for name in NAMES}
COUNTS = st.integers(1, 5)
SCALES = st.sampled_from([0.0, 1e-30, 1.0, 30.0, 1e4])
every_guide = pytest.mark.parametrize("name", NAMES)


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


@st.composite
def specs(draw, kinds=tuple(CONTINUOUS)) -> dict[str, Latent]:
    """One to three sites, of any kinds."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    return {f"z{len(chosen) - i}": ALL[kind] for i, kind in enumerate(chosen)}


def made(name: str, spec: dict[str, Latent], dtype: torch.dtype = torch.float64, seed: int = 0) -> Amortized:
    """A guide of this spec for data of width 4, some steps away from its start."""
    torch.manual_seed(seed)
    guide = getattr(guides, name)(spec, MLP(4, 6)).to(dtype)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return guide


def rows(n: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return scale * torch.randn(n, 4, dtype=dtype, generator=torch.Generator().manual_seed(n))


def sites(trace: poutine.Trace) -> dict[str, dict]:
    """Those that were drawn or given, without the plate's own."""
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample" and name != "data"}


def drawn(guide: Amortized, *args, particles: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Values of the sites, and their log q together, shape (*batch), nats."""
    with pyro.plate("particles", particles, dim=-2) if particles else nullcontext():
        trace = poutine.trace(guide).get_trace(*args)
    trace.compute_log_prob()
    return {n: s["value"] for n, s in sites(trace).items()}, sum(s["log_prob"] for s in sites(trace).values())


def scored(guide: Amortized, values: dict[str, Tensor], *args) -> Tensor:
    """log q of values that another run has drawn: what a flow has to invert, and no one remembers."""
    auxiliary = {name: value for name, value in values.items() if name in ("joint", "trajectory")}
    given = {name: value.detach().clone() for name, value in (auxiliary or values).items()}
    trace = poutine.trace(poutine.condition(guide, given)).get_trace(*args)
    trace.compute_log_prob()
    return sum(s["log_prob"] for s in sites(trace).values())


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def holds_for_each_datum(guide: Amortized, x: Tensor) -> None:
    """log q is that of a copy, of any order of the data, of each datum by itself, and of each particle by itself."""
    values, log_q = drawn(guide, x)
    assert log_q.shape == (len(x),) and log_q.isfinite().all()
    order = torch.randperm(len(x))
    near(scored(guide, values, x), log_q)
    near(scored(guide, {n: v[order] for n, v in values.items()}, x[order]), log_q[order])
    near(scored(guide, {n: v[-1:] for n, v in values.items()}, x[-1:]), log_q[-1:])
    many, log_q = drawn(guide, x, particles=2)
    assert log_q.shape == (2, len(x)) and all(v.shape[1:] == values[n].shape for n, v in many.items())
    near(torch.stack([scored(guide, {n: v[k] for n, v in many.items()}, x) for k in range(2)]), log_q)


@every_guide
def test_each_datum_has_a_density_of_its_own(name):
    @quick(3)
    @given(specs(), COUNTS, st.integers(0, 99))
    def property(spec, n, seed):
        holds_for_each_datum(made(name, spec, seed=seed), rows(n))

    property()


@pytest.mark.slow
@every_guide
def test_and_so_in_many_more_shapes(name):
    @quick(12)
    @given(specs(KINDS[name]), COUNTS, st.integers(0, 99))
    def property(spec, n, seed):
        holds_for_each_datum(made(name, spec, seed=seed), rows(n))

    property()


@quick(6)
@given(specs(tuple(ALL)), COUNTS, st.sampled_from(["top_down", "bottom_up", "independent"]))
def test_of_any_kind_and_in_any_order(spec, n, order):
    torch.manual_seed(n)
    holds_for_each_datum(FullRank(spec, MLP(4, 6), order=order).double(), rows(n))


class Chained(PyroModule):
    """p(z2) p(z1 | z2) p(x | z1), Gaussian."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2.tanh(), 0.7).to_event(1))
            pyro.sample("x", dist.Normal(z1.repeat_interleave(2, -1), 0.5).to_event(1), obs=x)


@pytest.mark.parametrize("kind", ["precision", "residual", "hamiltonian", "hamiltonian joint"])
def test_and_so_where_the_model_is_read(kind):
    @quick(3)
    @given(COUNTS)
    def property(n):
        torch.manual_seed(n)
        model, x = Chained(), rows(n)
        spec = latents(model, x)
        if "hamiltonian" not in kind:
            return holds_for_each_datum(Ladder(spec, MLP(4, 6), model, kind).double(), x)
        moved = HamiltonianModel(model, spec, MLP(4, 6), steps=2).double()
        start = (Joint if "joint" in kind else Diagonal)(spec, MLP(4, 6)).double()
        holds_for_each_datum(Hamiltonian(start, moved).double(), x)

    property()


@every_guide
@pytest.mark.parametrize("kind", ["scalar", "one"])
def test_the_density_of_a_number_integrates_to_one(name, kind):
    grid = torch.cat([torch.linspace(-60, -8, 2001), torch.linspace(-8, 8, 8001), torch.linspace(8, 60, 2001)]).double()
    guide = made(name, {"z": ALL[kind]}, seed=3)
    u = grid.view(-1, 1) if kind == "scalar" else grid.view(-1, 1, 1)
    if name == "Joint":
        u = grid.view(-1, 1, 1)
    with torch.no_grad(), pyro.plate("particles", len(grid), dim=-2):
        log_q = scored(guide, {"joint" if name == "Joint" else "z": u}, rows(1))
    near(torch.trapezoid(log_q.exp().squeeze(-1), grid), torch.tensor(1.0).double(), 2e-3)


@pytest.mark.parametrize("kind", ["bits", "class", "one-hot"])
def test_the_masses_of_all_values_sum_to_one(kind):
    guide = made("Diagonal", {"z": ALL[kind]})
    every = {"bits": torch.cartesian_prod(*[torch.arange(2.0)] * 3), "class": torch.arange(4), "one-hot": torch.eye(3)}
    values = every[kind].unsqueeze(1)
    with pyro.plate("particles", len(values), dim=-2):
        near(scored(guide, {"z": values}, rows(1)).double().exp().sum(0), torch.ones(1).double())


@every_guide
def test_float32_is_float64_but_for_rounding(name):
    @quick(2)
    @given(specs(), st.integers(0, 99))
    def property(spec, seed):
        guide = made(name, spec, torch.float32, seed)
        x = rows(3, dtype=torch.float32)
        values, log_q = drawn(guide, x)
        assert log_q.dtype is torch.float32 and all(v.dtype is torch.float32 for v in values.values())
        exact = scored(guide.double(), {n: v.double() for n, v in values.items()}, x.double())
        near(log_q.double(), exact, 5e-3)

    property()


@quick(12)
@given(specs(tuple(ALL)), st.sampled_from(["strided", "expanded", "wants a gradient", "integers", "truth values"]))
def test_it_does_not_matter_how_data_lie_in_memory(spec, layout):
    guide, x = made("Diagonal", spec, torch.float32), (rows(3, dtype=torch.float32) > 0).float()
    x = x[:1].expand(3, -1) if layout == "expanded" else x
    values, log_q = drawn(guide, x.clone())
    laid = {"strided": x.T.contiguous().T, "integers": x.long(), "truth values": x.bool()}.get(layout, x)
    laid = laid.clone().requires_grad_() if layout == "wants a gradient" else laid
    near(scored(guide, values, laid), scored(guide, values, x.clone()), 1e-5)


@every_guide
def test_draws_densities_and_slopes_are_finite_however_large_the_data(name):
    """Where exp leaves the floats and a share of a simplex vanishes, values stay in their support."""

    @quick(4)
    @given(specs(KINDS[name]), SCALES, st.sampled_from([torch.float32, torch.float64]))
    @example({"z2": ALL["positive"], "z1": ALL["cholesky"]}, 100.0, torch.float32)
    @example({"z2": ALL["simplex"], "z1": ALL["vector"]}, 100.0, torch.float32)
    def property(spec, scale, dtype):
        guide = made(name, spec, dtype)
        values, log_q = drawn(guide, rows(3, scale, dtype))
        assert log_q.isfinite().all()
        for site, latent in spec.items():
            assert values[site].isfinite().all() and latent.support.check(values[site]).all(), (site, values[site])
        if log_q.requires_grad:
            slopes = torch.autograd.grad(log_q.sum(), list(guide.parameters()), allow_unused=True)
            assert all(slope is None or slope.isfinite().all() for slope in slopes)

    property()


@quick(20)
@given(st.sampled_from(list(CONTINUOUS)), SCALES, st.integers(0, 99))
def test_a_map_to_a_support_has_the_volume_that_its_slope_has(kind, scale, seed):
    latent, generator = ALL[kind], torch.Generator().manual_seed(seed)
    site = Reshaped(latent)
    u = min(scale, 3.0) * torch.randn(site.size, dtype=torch.float64, generator=generator)
    event, volume = site.moved(u)
    near(site.flatten(event), u, 1e-6)
    if kind not in ("simplex", "correlations"):  # these have more numbers than are free
        free = (lambda u: site.moved(u)[0].tril()[torch.tril(torch.ones(2, 2)) > 0]) if kind == "cholesky" else None
        slope = torch.autograd.functional.jacobian(free or (lambda u: site.moved(u)[0].flatten()), u)
        near(slope.view(site.size, site.size).slogdet()[1], volume, 1e-5)


@quick(12)
@given(st.integers(1, 5), st.sampled_from(["top_down", "bottom_up", "independent"]), st.booleans())
def test_a_given_site_leaves_the_density_of_the_others_given_it(n, order, by_name):
    spec = {"y": ALL["class"]._replace(position=1), "z": ALL["vector"]}
    torch.manual_seed(n)
    guide, x, y = Diagonal(spec, MLP(4, 6), order=order).double(), rows(n), torch.arange(n) % 4
    given = poutine.trace(guide).get_trace(x, y=y) if by_name else poutine.trace(guide).get_trace(x, y)
    whole = poutine.trace(poutine.condition(guide, {"y": y, "z": given.nodes["z"]["value"].detach()})).get_trace(x)
    for trace in (given, whole):
        trace.compute_log_prob()
    assert "y" not in given.nodes
    near(given.nodes["z"]["log_prob"], whole.nodes["z"]["log_prob"])


@quick(10)
@given(st.permutations(range(5)), st.sampled_from([torch.int32, torch.int64]))
def test_a_table_gives_each_datum_its_own_row(order, dtype):
    guide = Local({"z": Latent(torch.Size([2]))}, 5, index=lambda x, index: index)
    index = torch.tensor(order, dtype=dtype)
    found = poutine.trace(guide).get_trace(rows(5)[index.long()], index).nodes["z"]["fn"].mean
    near(found, poutine.trace(guide).get_trace(rows(5), torch.arange(5)).nodes["z"]["fn"].mean[index.long()])


def test_a_table_takes_its_data_by_name_too():
    assert Local({"z": Latent(torch.Size([2]))}, 5)(x=rows(5))["z"].shape == (5, 2)


@quick(10)
@given(specs(tuple(ALL)), COUNTS, st.booleans())
def test_a_spec_is_what_a_model_says_and_the_model_is_left_as_it_was(spec, n, fails):
    """Whether it runs to its end or fails in the middle."""
    guide = made("Diagonal", spec)
    guide.encoder.layers[0].weight.requires_grad_(False)
    state = torch.get_rng_state(), dict(pyro.get_param_store()), [p.requires_grad for p in guide.parameters()]

    def program(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        values = guide(x)
        if fails:
            raise ArithmeticError("in the middle")
        return w, values

    program.parameters = guide.parameters
    with pytest.raises(ArithmeticError, match="in the middle") if fails else nullcontext():
        found = latents(program, rows(n))
    assert torch.equal(torch.get_rng_state(), state[0]) and dict(pyro.get_param_store()) == state[1]
    assert [p.requires_grad for p in guide.parameters()] == state[2] and not pyro.poutine.runtime._PYRO_STACK
    if not fails:
        assert list(found) == ["w", *spec] and found["w"].plates == ()
        assert [tuple(found[name].shape) for name in spec] == [tuple(latent.shape) for latent in spec.values()]
        assert list(local_sites(found)) == list(spec) and local_sites(found, "rows") == {}
        assert Diagonal(local_sites(found), MLP(4, 6))(rows(n).float()).keys() == spec.keys()


@quick(10)
@given(st.integers(1, 6), st.integers(1, 6))
def test_a_batch_of_a_plate_counts_for_all_of_it_and_is_no_larger(n, size):
    guide = Diagonal({"z": Latent(torch.Size([2]), plates=(Plate(size=size),))}, MLP(4, 6)).double()
    if n > size:
        with pytest.raises(ValueError, match=f"a batch of {n} data does not fit the plate 'data', .* {size};"):
            guide(rows(n))
        return
    trace = poutine.trace(guide).get_trace(rows(n))
    trace.compute_log_prob()
    assert trace.nodes["z"]["scale"] == size / n
