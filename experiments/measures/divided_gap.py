"""The inference gap of one trained pair, divided: that of test data, of training data, and exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from dlvm.evidence import Estimate, Gaps, exact_gaps, gaps
from dlvm.inference import ELBO

PARTS = ("elbo", "best", "log_px", "approximation", "amortisation", "total")


@dataclass(frozen=True)
class DividedGap:
    """One trained pair and where its bound loses; ``exact`` where quadrature is possible.

    Attributes:
        part: "guides" or "encoders", which comparison it belongs to.
        test, train: the gaps of test and of training data.
    """

    part: str
    guide: str
    encoder: tuple[int, ...]
    test: Gaps
    train: Gaps | None
    exact: Gaps | None
    epochs: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether it came to its end; False after Ctrl-C."""
        return self.test.elbo.complete and self.train is not None and self.train.elbo.complete

    @property
    def label(self) -> str:
        return self.guide if self.part == "guides" else "-".join(map(str, self.encoder))

    def __str__(self) -> str:
        head = self.guide if self.part == "guides" else f"{self.guide}, encoder {self.label}"
        parts = f"approximation {self.test.approximation} + amortisation {self.test.amortisation}"
        return f"{head}: inference gap {self.test.total} = {parts}   {self.seconds:.0f} s"

    @property
    def row(self) -> dict:
        """Every number, nats per datum, with its standard error."""
        row: dict = {"part": self.part, "label": self.label, "guide": self.guide, "encoder": self.encoder}
        row |= {"num_data": self.test.elbo.num_data, "log_px_method": self.test.log_px.method} | flat(self.test)
        row |= {"next": self.test.next_step, "converged": self.test.converged}
        row |= {f"train_{name}": value for name, value in flat(self.train).items()} if self.train else {}
        row |= {f"exact_{name}": value for name, value in flat(self.exact).items()} if self.exact else {}
        return row | {"epochs": self.epochs, "seconds": self.seconds}


def flat(found: Gaps) -> dict[str, float]:
    """Means of a record with their standard errors."""
    names = (*PARTS, *(name for name in ("richer", "gain") if getattr(found, name) is not None))
    return {
        key: value
        for name in names
        for key, value in ((name, getattr(found, name).mean), (f"{name}_se", getattr(found, name).mean_se))
    }


def divide(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | list,
    others: Tensor | list,
    steps: int,
    num_particles: int,
    seed: int,
    log_px: Estimate | None = None,
    richer: Callable | None = None,
    diagonal: bool | None = None,
    objective: ELBO | None = None,
) -> tuple[Gaps, Gaps | None, Gaps | None]:
    """The gap of test data, that of training data, and that of test data by quadrature; None for what is not reached.

    Args:
        model, guide: the trained pair.
        x, others: test data, training data.
        steps, num_particles, seed: as in ``gaps``.
        log_px, richer: of the test data, as in ``gaps``.
        objective: what local guides maximise, ``ELBO(8)`` unless told.
        diagonal: whether the family's Gaussians are diagonal; None leaves quadrature out.
    """

    def split(x: Tensor | list, log_px: Estimate | None = None, richer: Callable | None = None) -> Gaps:
        return gaps(
            model, guide, x, richer=richer, log_px=log_px, steps=steps, num_particles=num_particles,
            objective=objective or ELBO(8), seed=seed, progress=True,
        )  # fmt: skip

    test = split(x, log_px, richer)
    if not test.elbo.complete or (log_px is not None and not log_px.complete):
        return test, None, None
    train = split(others)
    if diagonal is None:
        return test, train, None
    return test, train, exact_gaps(model, guide, x, diagonal=diagonal, seed=seed, progress=True)
