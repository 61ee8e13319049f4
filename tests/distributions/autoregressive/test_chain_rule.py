"""Autoregressive distributions: densities sum to 1, and draws follow them, with and without caches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dlvm.distributions import Bits, ChainRule, Greys, Missing, MixedGreys, Tokens
from dlvm.nets import NADE, CausalTransformer, OrderedMADE, PixelCNN

IMAGE = (1, 2, 3)
NETS = {
    "fvsbn": lambda o, c: OrderedMADE(6, (), o, c),
    "made": lambda o, c: OrderedMADE(6, (7, 9), o, c, direct=False),
    "made, narrow": lambda o, c: OrderedMADE(6, (3,), o, c),
    "made, 5 orders": lambda o, c: OrderedMADE(6, (8,), o, c, orders=5),
    "nade": lambda o, c: NADE(6, 5, o, c),
    "pixel_cnn": lambda o, c: PixelCNN(IMAGE, o, 3, layers=2, receptive_field=3, context=c),
    "pixel_cnn, near": lambda o, c: PixelCNN(IMAGE, o, 3, layers=2, receptive_field=1, context=c),
    "pixel_cnn, blind": lambda o, c: PixelCNN(IMAGE, o, 3, layers=2, receptive_field=0, context=c),
    "pixel_cnn, colours": lambda o, c: PixelCNN((3, 1, 2), o, 3, layers=2, receptive_field=2, context=c),
    "transformer": lambda o, c: CausalTransformer(6, o + (o == 1), o, 8, layers=2, heads=2, context=c, step=step_of(o)),
}
ELEMENTS = {"bits": Bits(), "greys": Greys(3), "mixture": MixedGreys(2, 3)}


def step_of(outputs: int) -> float:
    return 1.0 if outputs == 1 else 0.5


def made(net: str, element: str = "bits", context: int = 0) -> ChainRule:
    """In double precision, every parameter drawn so that each input matters."""
    torch.manual_seed(1)
    what = ELEMENTS[element]
    decoder = nn.Linear(2, context) if context else None
    found = ChainRule(NETS[net](what.outputs, context), what, decoder).double()
    for name, parameter in found.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.7)
    return found


def every(levels: Tensor, dim: int = 6) -> Tensor:
    return torch.cartesian_prod(*[levels.double()] * dim)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("context", [0, 4])
def test_bits_sum_to_one(net, context):
    likelihood = made(net, context=context)
    z = torch.randn(4, 2).double()
    log_p = (likelihood(z[:, None]) if context else likelihood()).log_prob(every(torch.arange(2)))
    assert log_p.std() > 0.1
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(log_p.shape[:-1]).double())


@pytest.mark.parametrize("net, element", [*((net, "greys") for net in NETS), ("pixel_cnn, colours", "mixture")])
def test_greys_sum_to_one(net, element):
    log_p = made(net, element)().log_prob(every(torch.arange(3) / 2))
    assert log_p.std() > 0.1 and abs(log_p.exp().sum() - 1) < 1e-9


def test_tokens_sum_to_one():
    torch.manual_seed(0)
    tokens = ChainRule(CausalTransformer(4, 5, width=8), Tokens(5))
    assert abs(tokens().log_prob(every(torch.arange(5), 4).long()).exp().sum() - 1) < 1e-5


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("element, context", [("bits", 0), ("greys", 4)])
def test_steps_of_a_draw_are_the_passs_own_conditionals(net, element, context):
    """The cached walk, fed with the values of a datum, gives the parameters of one pass over it."""
    likelihood = made(net, element, context)
    levels = 2 if element == "bits" else 3
    x = torch.randint(levels, (5, 6)).double() / (levels - 1)
    h = torch.randn(5, context).double() if context else None
    for read in likelihood().readings if not context else likelihood(torch.randn(5, 2).double()).readings:
        at_once = read(x, h)
        walk, seen = read.walk(5, h), set()
        place, parameters = next(walk)
        while True:
            torch.testing.assert_close(parameters, at_once[:, place])
            seen.add(place)
            try:
                place, parameters = walk.send(x[:, place])
            except StopIteration:
                break
        assert seen == set(range(6))


@pytest.mark.parametrize("net", NETS)
def test_draws_follow_the_density(net):
    """By Pearson's chi-square over all 64 data, of two batches whose context differs."""
    likelihood = made(net, context=3)
    p = likelihood(torch.tensor([[2.0, 0.0], [0.0, -2.0]]).double())
    x = p.sample((3000,))
    assert x.shape == (3000, 2, 6)
    expected = 3000 * p.log_prob(every(torch.arange(2)).unsqueeze(1)).exp()
    number = (x @ (2.0 ** torch.arange(5, -1, -1)).double()).long()
    for b in range(2):
        found, wanted = torch.bincount(number[:, b], minlength=64).double(), expected[:, b]
        rare = wanted < 5
        found, wanted = ([*v[~rare], v[rare].sum()] for v in (found, wanted))
        cells = [(f, w) for f, w in zip(found, wanted, strict=True) if w > 0]
        chi = sum((f - w) ** 2 / w for f, w in cells).item()
        assert chi < len(cells) - 1 + 4.5 * math.sqrt(2 * len(cells)), (chi, len(cells))


def test_the_mean_over_orders_is_one_of_densities():
    likelihood = made("made, 5 orders")
    x = every(torch.arange(2))[::7]
    p = likelihood()
    each = torch.stack([Bits()(read(x)).log_prob(x) for read in p.readings])
    torch.testing.assert_close(p.log_prob(x), each.exp().mean(0).log())
    logits = torch.stack([read(x) for read in p.readings]).mean(0)
    assert (Bits()(logits).log_prob(x) - p.log_prob(x)).abs().max() > 0.1


def test_a_blind_pixel_cnn_is_a_factorised_bernoulli():
    likelihood = made("pixel_cnn, blind", context=4)
    h = torch.randn(5, 4).double()
    one, other = (likelihood.net(torch.full((5, 6), v).double(), h) for v in (0.0, 1.0))
    assert torch.equal(one, other)


@pytest.mark.parametrize("net", NETS)
def test_particles_share_what_they_see(net):
    likelihood = made(net, context=4)
    x, z = torch.randint(2, (5, 6)).double(), torch.randn(3, 5, 2).double()
    together = likelihood(z).log_prob(x)
    assert together.shape == (3, 5)
    torch.testing.assert_close(together[1], likelihood(z[1]).log_prob(x))
    torch.testing.assert_close(together[2, 4], likelihood(z[2, 4]).log_prob(x[4]))


@pytest.mark.parametrize("value", [0.5, 2.0, math.nan])
def test_what_is_no_bit_is_refused(value):
    with pytest.raises(ValueError, match="within the support"):
        made("nade")().log_prob(torch.full((2, 6), value).double())


def test_missing_numbers_are_refused():
    with pytest.raises(ValueError, match="AutoregressiveDistribution .* dimensions are not independent"):
        Missing(made("made", context=3))(torch.zeros(2, 2).double())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="net gives 1 numbers per variable where element Greys"):
        ChainRule(NADE(6, 3), Greys(4))
    with pytest.raises(ValueError, match="context must be given exactly where there is a decoder"):
        ChainRule(NADE(6, 3), Bits())(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="context must be given exactly where there is a decoder"):
        ChainRule(NADE(6, 3, context=2), Bits(), nn.Linear(2, 2))()
    with pytest.raises(TypeError, match="needs a method walk"):
        ChainRule(nn.Linear(2, 2), Bits())
    with pytest.raises(ValueError, match="start must be a tensor of shape \\(6, 1\\), got \\(6,\\)"):
        ChainRule(NADE(6, 3), Bits(), start=torch.zeros(6))
