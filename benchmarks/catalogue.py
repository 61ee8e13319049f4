"""What is measured: one value describes a case, and programs and twins each build it in their own way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Widths of all networks: of the images' models, and of the sequences' ones."""

    x_dim: int = 784
    hidden: int = 200
    z_dim: int = 50
    site_dim: int = 32
    site_hidden: int = 64
    context: int = 64
    made_hidden: int = 320
    frame_dim: int = 88
    state_dim: int = 32
    state_hidden: int = 64


SMALL = Sizes(20, 16, 4, 4, 8, 8, 12, 6, 4, 8)


@dataclass(frozen=True)
class Case:
    """A model, a guide, an objective and a batch of data.

    Args:
        name: as it stands in the table.
        batch: data per step.
        sites: latent sites; more than one makes a hierarchy.
        depth: steps of an inverse autoregressive flow in the guide; 0 for a diagonal Gaussian.
        num_particles: K of the importance-weighted bound; 1 for the ELBO.
        steps: length of a sequence; 0 for images.
        chain: whether all states of a sequence are one site, drawn by the library; a site each otherwise.
        analytic: KL in closed form instead of by the drawn latents.
        sizes: widths.
    """

    name: str
    batch: int = 100
    sites: int = 1
    depth: int = 0
    num_particles: int = 1
    steps: int = 0
    chain: bool = False
    analytic: bool = False
    sizes: Sizes = Sizes()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a batch of x."""
        if self.steps:
            return self.batch, self.steps, self.sizes.frame_dim
        return self.batch, self.sizes.x_dim


ONE_SITE, FIVE_SITES, SEQUENCE = "1 site, batch 100", "5 sites, batch 100", "sequence, T = 10"
CHAIN = "deep Markov model, T = 129"
IWAE_50 = "IWAE, K = 50, batch 20"

CASES = (
    Case("1 site, batch 20", batch=20),
    Case(ONE_SITE),
    Case("1 site, batch 500", batch=500),
    Case("1 site, batch 100, analytic KL", analytic=True),
    Case("2 sites, batch 100", sites=2),
    Case(FIVE_SITES, sites=5),
    Case("10 sites, batch 100", sites=10),
    Case("IAF, depth 2", depth=2),
    Case("IAF, depth 4", depth=4),
    Case("IAF, depth 8", depth=8),
    Case("IWAE, K = 5, batch 20", batch=20, num_particles=5),
    Case(IWAE_50, batch=20, num_particles=50),
    Case("sequence, T = 5", batch=20, steps=5),
    Case(SEQUENCE, batch=20, steps=10),
    Case("deep Markov model, T = 10", batch=20, steps=10, chain=True),
    Case("deep Markov model, T = 40", batch=20, steps=40, chain=True),
    Case(CHAIN, batch=20, steps=129, chain=True),
)


def catalogue(sizes: Sizes = Sizes(), only: Iterable[str] = ()) -> dict[str, Case]:  # noqa: B008
    """The cases by name, in the order of the table.

    Args:
        sizes: widths; ``SMALL`` to see that everything runs.
        only: parts of names; a case is kept if its name holds one of them, and all are kept if there are none.

    Raises:
        ValueError: ``only`` matches no case.

    Example:
        >>> list(catalogue(only=["T = 10", "K = 50"]))
        ['IWAE, K = 50, batch 20', 'sequence, T = 10']
    """
    parts = list(only)
    chosen = {c.name: replace(c, sizes=sizes) for c in CASES if not parts or any(part in c.name for part in parts)}
    if not chosen:
        raise ValueError(f"cases: none holds {parts}; choose from {[case.name for case in CASES]}")
    return chosen
