"""What a latent spec must be, found by a trace or written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.distributions import constraints

from guides.latents import Latent, Plate
from nets.numbers import count, whole


def check_spec(latents: Mapping[str, Latent]) -> None:
    """Refuses what is no {site: Latent}, and shapes, supports, plates and positions that no site has.

    Raises:
        TypeError: a part is of another type.
        ValueError: a number is out of range.
    """
    if not isinstance(latents, Mapping):
        raise TypeError(
            f"latents must be a dict {{site: Latent}}, got {type(latents).__name__}; write latents(model, x)"
        )
    for name, latent in latents.items():
        if not isinstance(name, str) or not isinstance(latent, Latent):
            raise TypeError(
                f"latents must be a dict {{site: Latent}}, got {name!r}: {type(latent).__name__}; write "
                '{"z": Latent(torch.Size([2]))}'
            )
        _check_latent(f"latents[{name!r}]", latent)


def _check_latent(which: str, latent: Latent) -> None:
    if not isinstance(latent.shape, Sequence) or isinstance(latent.shape, str):
        raise TypeError(f"{which}.shape must be a torch.Size, got {latent.shape!r}; write torch.Size([2])")
    count(**{f"{which}.shape[{i}]": size for i, size in enumerate(latent.shape)})
    if not isinstance(latent.support, constraints.Constraint) or constraints.is_dependent(latent.support):
        raise TypeError(
            f"{which}.support must be a constraint, got {latent.support!r}; write constraints.real_vector, or take it "
            "from a distribution that was made"
        )
    if not isinstance(latent.plates, tuple | list) or not all(isinstance(plate, Plate) for plate in latent.plates):
        raise TypeError(f"{which}.plates must be a tuple of Plate, got {latent.plates!r}; write (Plate(),)")
    if latent.position is not None:
        whole(**{f"{which}.position": latent.position})
        if latent.position < 0:
            raise ValueError(f"{which}.position must be at least 0, got {latent.position}; or None, for none")
    for i, plate in enumerate(latent.plates):
        _check_plate(f"{which}.plates[{i}]", plate)


def _check_plate(which: str, plate: Plate) -> None:
    if not isinstance(plate.name, str) or not plate.name:
        raise TypeError(f"{which}.name must be a string, got {plate.name!r}; write the name that the model uses")
    if plate.dim is not None:
        whole(**{f"{which}.dim": plate.dim})
    if plate.size is not None:
        count(**{f"{which}.size": plate.size})
