"""Batches whose rows weigh otherwise in a rank's share than in the whole batch are not shared out."""

from __future__ import annotations

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.inference import ELBO
from dlvm.inference.distributed.sharding import Share, Shares
from dlvm.inference.programs.pair import Pair

ROWS = 7


def alone(x: Tensor) -> Tensor:
    return x


def centred(x: Tensor) -> Tensor:
    return x - x.mean(0)


def beyond_the_rows_that_are_tried(x: Tensor) -> Tensor:
    return x + x.roll(40, 0)


def programs(
    encode=alone, decode=alone, shared: bool = False, masked: bool = False, full: int | None = None
) -> tuple[Pair, nn.ModuleList]:
    """p(w) p(z) p(x | z, w, x) and a guide of the same sites; w is shared by all data."""
    nets = nn.ModuleList(net for net in (encode, decode) if isinstance(net, nn.Module))

    def plate(x):
        return pyro.plate("data", full, subsample_size=len(x)) if full else pyro.plate("data", len(x))

    def draw(x, loc, scale):
        with poutine.mask(mask=x[:, 0] > 0) if masked else poutine.mask(mask=True):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0)) if shared else 0.0
        with plate(x):
            z = draw(x, torch.zeros(2), 1.0)
            pyro.sample("x", dist.Normal(z + w + 0.1 * decode(x), 1.0).to_event(1), obs=x)

    def guide(x):
        if shared:
            pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))
        with plate(x):
            draw(x, 0.5 * encode(x), 0.7)

    model.nets = guide.nets = nets
    return Pair(model, guide), nets


def shared_out(pair: Pair, ranks: int, rank: int = 0, rows: int = ROWS) -> Share:
    torch.manual_seed(0)
    x = torch.randn(rows, 2)
    return Shares(SimpleNamespace(rank=rank, size=ranks), SimpleNamespace(pair=pair, objective=ELBO()))((x,), {})


@pytest.mark.parametrize("ranks", [2, 3, 9])
@pytest.mark.parametrize("kind", [dict(), dict(shared=True, full=70), dict(masked=True)], ids=str)
def test_rows_that_weigh_alone_are_shared_out(kind, ranks):
    found = [shared_out(programs(**kind)[0], ranks, rank) for rank in range(ranks)]
    assert sum(share.part for share in found) == pytest.approx(1.0)
    assert sum(len(share.args[0]) for share in found if share.part) == ROWS


@pytest.mark.parametrize(
    "kind",
    [
        dict(decode=centred),
        dict(encode=centred),
        dict(decode=centred, shared=True, full=70),
        dict(encode=centred, shared=True, full=70),
        dict(encode=lambda x: x.softmax(0)),
    ],
    ids=["model", "guide", "model, latents shared", "guide, latents shared", "softmax over the batch"],
)
def test_rows_that_are_compared_with_others_are_not(kind):
    for rank in range(2):
        with pytest.raises(ValueError, match="another density in a rank's share .*train in one process"):
            shared_out(programs(**kind)[0], 2, rank)


def test_so_are_rows_that_depend_on_ones_far_back():
    with pytest.raises(ValueError, match="another density in a rank's share"):
        shared_out(programs(decode=beyond_the_rows_that_are_tried)[0], 2, rows=80)


def test_batch_normalisation_that_keeps_no_statistics_is_refused_and_by_kept_ones_it_passes():
    with pytest.raises(ValueError, match="another density in a rank's share"):
        shared_out(programs(decode=nn.BatchNorm1d(2, track_running_stats=False))[0], 2)
    norm = nn.BatchNorm1d(2)
    pair, _ = programs(decode=norm)
    assert shared_out(pair, 2).part == pytest.approx(3 / 7)
    assert norm.training and norm.num_batches_tracked == 0
