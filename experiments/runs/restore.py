"""The trained model and guide of a finished run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dlvm.experiments import train
from dlvm.experiments.data import Loader
from dlvm.guides import Amortized
from dlvm.models import VAE


def restore(folder: str | Path) -> tuple[VAE, Amortized]:
    """Loads what ``dlvm.experiments.train`` left in a folder, without its data and without running anything from there.

    Returns:
        model and guide, on the CPU, ready to draw, to be evaluated or to be trained on.

    Args:
        folder: with config.json, model.safetensors and guide.safetensors.

    Raises:
        ValueError: one of these files is missing or damaged, or does not go with the others.

    Example:
        model, guide = restore("runs/train")
        model(n=64)
    """
    folder = Path(folder)
    with _told(folder):
        weights = {word: load_file(folder / f"{word}.safetensors") for word in ("model", "guide")}
        config = dataclasses.replace(_settings(folder), device="cpu", mean_bias=False)
        x_dim = weights["guide"]["encoder.layers.0.weight"].shape[1]
        with torch.random.fork_rng():
            model, guide = train.pair(config, Loader(torch.zeros(1, x_dim)))
        model.load_state_dict(weights["model"])
        guide.load_state_dict(weights["guide"])
    return model, guide


def settings_of(folder: str | Path) -> train.Config:
    """With what ``dlvm.experiments.train`` was called for the run in a folder.

    Raises:
        ValueError: config.json is missing, damaged, or of another script.
    """
    with _told(Path(folder)):
        return _settings(Path(folder))


def _settings(folder: Path) -> train.Config:
    kept = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    known = {field.name for field in dataclasses.fields(train.Config)}
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in kept.items() if name in known}
    if "guide" not in settings or "likelihood" not in settings:
        raise KeyError("guide or likelihood")
    return train.Config(**settings | {"data_dir": settings.get("data_dir") and Path(settings["data_dir"])})


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
