"""What unlearning left of an attribute, and what it cost the rest: scores, a table, a verdict and the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.runs.report import Table
from dlvm.experiments.study import Picture
from dlvm.inference import decode, generate, log_px
from dlvm.models import VAE

Carries = Callable[[Tensor], Tensor]  # rows of x -> bools
DRAWS, SHOWN = 5000, 36  # of the prior that are classified, images in a panel


class Scored(NamedTuple):
    """What a pair is worth: the share of draws with the attribute, log p of test data without it and with it."""

    share: tuple[float, float]
    others: Tensor
    erased: Tensor


def scored(
    pair: tuple[nn.Module, nn.Module], x: Tensor, has: Tensor, carries: Carries, particles: int, seed: int
) -> Scored:
    """Draws of the prior by the classifier, and log p of each test datum by importance sampling."""
    drawn = carries(generate(pair[0], DRAWS, seed=seed + 1)["x"]).double()
    values = log_px(*pair, x, particles, seed).log_px
    return Scored((drawn.mean().item(), error_of(drawn)), values[~has], values[has])


def error_of(values: Tensor) -> float:
    return values.std().item() / len(values) ** 0.5


def table(found: dict[str, Scored], accuracy: float, recall: float) -> Table:
    """A row for each pair; differences to the first are paired by datum."""
    first, lines = next(iter(found.values())), []
    for label, one in found.items():
        gain = one.others - first.others
        ahead = None if one is first else (gain.mean().item(), error_of(gain))
        lines.append(
            [label, one.share, (one.others.mean().item(), error_of(one.others)), ahead, one.erased.mean().item()]
        )
    return Table(
        ["model", "draws with it", "log p(x), others", "to the first", "log p(x), with it"],
        lines,
        f"{DRAWS} draws by a classifier of accuracy {accuracy:.3f} and recall {recall:.3f} on test data; nats per test "
        f"datum of {len(first.others)} without the attribute and {len(first.erased)} with it, the guide as it was.",
        {"draws with it": ".4f", "log p(x), others": ".2f", "to the first": ".2f", "log p(x), with it": ".2f"},
    )


def verdict(found: dict[str, Scored], carried: float, redrawn: float) -> str:
    """How much is left of the attribute, and what that cost the rest."""
    before, after, fresh = found.values()
    cost = before.others - after.others
    fall = before.others - fresh.others
    return (
        f"Draws with the attribute: {before.share[0]:.1%} before, {after.share[0]:.1%} after unlearning, "
        f"{fresh.share[0]:.1%} trained from scratch without it. The others lose {cost.mean():.2f} ± "
        f"{error_of(cost):.2f} nats, and {fall.mean():.2f} ± {error_of(fall):.2f} from scratch. Of the {carried:.1%} "
        f"draws with it, moving z did not free {redrawn:.1%}."
    )


def pictures(models: dict[str, VAE], carries: Carries, test: Loader, seed: int) -> Iterator[Picture]:
    """What becomes of the z whose images carried the attribute."""
    from dlvm.experiments.figures import samples

    old, *_ = models.values()
    drawn = generate(old, 2000, seed=seed + 2)
    z = drawn["z"][carries(drawn["x"])][:SHOWN]
    images = {label: decode(model, z) for label, model in models.items() if label != "from scratch"}
    images["from scratch"] = decode(models["from scratch"], drawn["z"][:SHOWN])
    note = "Means of p(x | z): the same z, whose draws carried it, before and after; of the third, any z."
    yield "erased", samples(images, test.image_shape, title="What becomes of the attribute", note=note), note
