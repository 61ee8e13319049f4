"""The trained model and guide of a finished run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from experiments import train
from experiments.data import Loader
from guides import Amortized
from models import VAE


def restore(folder: str | Path) -> tuple[VAE, Amortized]:
    """Loads what ``experiments.train`` left in a folder, without its data and without running anything from there.

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
    try:
        weights = {word: load_file(folder / f"{word}.safetensors") for word in ("model", "guide")}
        config = _config(json.loads((folder / "config.json").read_text("utf-8"))["config"])
        x_dim = weights["guide"]["encoder.layers.0.weight"].shape[1]
        with torch.random.fork_rng():
            model, guide = train.pair(config, Loader(torch.zeros(1, x_dim)))
        model.load_state_dict(weights["model"])
        guide.load_state_dict(weights["guide"])
    except (OSError, SafetensorError, KeyError, TypeError, IndexError, RuntimeError, ValueError) as error:
        said = str(error).strip().replace("\n", " ")[:200]
        raise ValueError(
            f"folder must be that of a run of experiments.train, with config.json, model.safetensors and "
            f"guide.safetensors that go together, got {folder}: {type(error).__name__}: {said}; train one there, or "
            "name another"
        ) from error
    return model, guide


def _config(kept: dict) -> train.Config:
    known = {field.name for field in dataclasses.fields(train.Config)}
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in kept.items() if name in known}
    return train.Config(**settings | {"device": "cpu", "mean_bias": False})
