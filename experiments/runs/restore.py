"""The trained model and guide of a finished run: how they are kept, and how they come back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.runs.recipe import Recipe
from dlvm.inference import load, save
from dlvm.inference.console import tell
from dlvm.inference.saved.files import PAIR

X_DIM = "x_dim"


def keep(folder: Path, model: nn.Module, guide: nn.Module, x_dim: int) -> None:
    """Saves a pair; one that cannot be written down, of a user's own making, by its weights alone, which it says.

    Args:
        folder: of the run.
        model, guide: the pair.
        x_dim: columns of its data, by which the same options make it anew.
    """
    try:
        save(folder, model, guide)
    except TypeError as error:
        (folder / PAIR).unlink(missing_ok=True)
        for name, module in (("model", model), ("guide", guide)):
            save_file(module.state_dict(), folder / f"{name}.safetensors", {X_DIM: str(x_dim)})
        tell(f"{folder}: weights alone are kept, to be put into a pair of the same options. {error}")


def restore(folder: str | Path) -> tuple[nn.Module, nn.Module]:
    """Loads what ``dlvm.experiments.train`` left in a folder, without its data and without running anything from there.

    Returns:
        model and guide, on the CPU, ready to draw, to be evaluated or to be trained on.

    Args:
        folder: with what ``save`` wrote; of an earlier run, with config.json, model.safetensors and guide.safetensors,
            and then the pair is made anew by its options.

    Raises:
        ValueError: one of these files is missing or damaged, or does not go with the others.

    Example:
        model, guide = restore("runs/train")
        model(n=64)
    """
    folder = Path(folder)
    if (folder / PAIR).exists():
        return load(folder)
    with _told(folder):
        weights = {word: load_file(folder / f"{word}.safetensors") for word in ("model", "guide")}
        recipe = _recipe(folder)
        with torch.random.fork_rng():
            model, guide = recipe.pair(Loader(torch.zeros(1, _width(folder, weights["guide"]))))
        weights = _in_units(weights)
        model.load_state_dict(weights["model"])
        guide.load_state_dict(weights["guide"])
    return model, guide


def recipe_of(folder: str | Path, data_dir: Path | None = None) -> Recipe:
    """What the pair of the run in a folder was made of.

    Args:
        folder: with config.json.
        data_dir: where the data lie by now, if elsewhere than then.

    Raises:
        ValueError: config.json is missing, damaged, or of another script.
    """
    with _told(Path(folder)):
        return _recipe(Path(folder), data_dir)


def _recipe(folder: Path, data_dir: Path | None = None) -> Recipe:
    kept = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    settings: dict[str, Any] = kept | {name: tuple(value) for name, value in kept.items() if isinstance(value, list)}
    if not {"guide", "binarize"} <= set(settings):
        raise KeyError("guide or binarize")
    there = data_dir or settings.get("data_dir")
    return Recipe.of(settings | {"data_dir": there and Path(there)})


def _in_units(weights: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Weights of a normal likelihood from before it was in units of the data: these were loc 0 and scale 1."""
    model, guide = weights["model"], weights["guide"]
    if "likelihood.head.bias" not in model or "likelihood.units.loc" in model:
        return weights
    zero = torch.zeros_like(model["likelihood.head.bias"].chunk(2)[0])
    units = {"loc": zero, "scale": torch.ones_like(zero)}
    seen = {name.replace("encoder.layers.", "encoder.net.layers."): value for name, value in guide.items()}
    return {
        "model": model | {f"likelihood.units.{name}": value for name, value in units.items()},
        "guide": seen | {f"encoder.{name}": value for name, value in units.items()},
    }


def _width(folder: Path, guide: Mapping[str, Tensor]) -> int:
    """Columns of the data; in a run that did not note them, by the encoder's first layer."""
    with safe_open(folder / "guide.safetensors", "pt") as file:
        noted = (file.metadata() or {}).get(X_DIM)
    return guide["encoder.layers.0.weight"].shape[1] if noted is None else int(noted)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Inside, whatever fails is said of the folder."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, IndexError, RuntimeError, ValueError) as error:
        said = str(error).strip().replace("\n", " ")[:200]
        raise ValueError(
            f"folder must be that of a run of dlvm.experiments.train, with config.json, model.safetensors and "
            f"guide.safetensors that go together, got {folder}: {type(error).__name__}: {said}; train one there, or "
            "name another"
        ) from error
