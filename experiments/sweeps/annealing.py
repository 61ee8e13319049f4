"""How units are kept awake while a bound is trained: latent terms warmed up, once or in cycles, or nats for free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dlvm.experiments.options.objectives import WARMED
from dlvm.inference import Objective, cyclical, free_bits, linear, tempered

WARM_UP = 5  # epochs


@dataclass(frozen=True)
class AnnealingOptions:
    """What is done to the latent terms of a bound while it is trained; what is reported is always the bound itself."""

    warm_up: int | None = None
    """Epochs in which the latent terms' weight beta rises from 0 to 1, so that no unit is put to sleep early. Unless
    told, 5 and at most a quarter; three quarters for cyclical; 0 with free bits, and where the guide follows no
    bound."""
    annealing: Literal["linear", "cyclical"] = "linear"
    """How beta rises in these: once, or again and again from 0, the second half of each cycle at 1."""
    cycles: int = 4
    """For cyclical: how often."""
    free_bits: float | None = None
    """Nats of each group of latent dimensions that cost nothing, averaged over a batch; elbo and analytic_kl alone."""
    free_groups: int = 1
    """For free_bits: into how many groups the dimensions of each latent site are cut, as 2, 4, 8 of 8."""


def warm_up_of(config: Any) -> int:
    """Epochs of warm-up: those asked for, or what suits the objective and the length of the training."""
    if config.warm_up is not None:
        return config.warm_up
    if config.objective not in WARMED or config.free_bits is not None:
        return 0
    return 3 * config.epochs // 4 if config.annealing == "cyclical" else min(WARM_UP, config.epochs // 4)


def annealed(objective: Objective, config: Any, steps: int) -> Objective:
    """The objective with the aid that was asked for.

    Args:
        objective: the bound.
        config: of a script, with ``AnnealingOptions``, ``objective`` and ``epochs``.
        steps: in an epoch.

    Raises:
        ValueError: two aids at once, cycles without epochs, or another bound than ``free_bits`` takes.
    """
    epochs = warm_up_of(config)
    if config.free_bits is not None:
        for name, given in (("warm_up", epochs > 0), ("annealing", config.annealing != "linear")):
            if given:
                raise ValueError(f"{name} must be left out with free_bits, which is another remedy; leave one out")
        return free_bits(objective, config.free_bits, config.free_groups)  # type: ignore[arg-type]  # as it checks
    if config.annealing == "cyclical":
        if not epochs:
            raise ValueError(
                f"annealing is cyclical over no epochs of warm-up for {config.objective}; pass --warm-up, or leave "
                "--annealing out"
            )
        return tempered(objective, cyclical(0.0, 1.0, steps=epochs * steps, cycles=config.cycles))
    return tempered(objective, linear(0.0, 1.0, steps=epochs * steps)) if epochs else objective
