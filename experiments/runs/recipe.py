"""What a run of dlvm.experiments.train makes its pair of, and of which data: everything but how it is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.common import DataOptions, taken
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.runs.folder import HOW
from dlvm.experiments.setups.named import named
from dlvm.experiments.setups.setup import Setup, fresh_pair, num_parameters
from dlvm.guides import latents
from dlvm.inference import Objective

ELSEWHERE = HOW | {"device", "threads", "engine", "checkpoint", "seed", "eval_particles", "eval_data"}


@dataclass(frozen=True)
class Recipe:
    """A pair and its data, by the options that name them.

    Args:
        data: which data.
        binarize: how grey levels become binary, a word of train's --binarize.
        setup: of the model.
        guide: the family of the guide.

    Example:
        >>> recipe = Recipe.of({"guide": "full_rank", "z_dim": 3})
        >>> model, guide = recipe.pair(recipe.splits().train)
        >>> type(guide).__name__, model(n=5).shape
        ('FullRank', torch.Size([5, 64]))
    """

    data: DataOptions
    binarize: str
    setup: Setup
    guide: GuideOptions

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Recipe:
        """From a script's options; what is not among them has its default.

        Args:
            settings: {option: value}; "model" is the word for one, the VAE where there is none.

        Raises:
            ValueError: there is no model of that name.
        """
        setup = taken(named(settings.get("model", "vae")), settings)
        binarize = settings.get("binarize", "default")
        return cls(taken(DataOptions, settings), binarize, setup, taken(GuideOptions, settings))

    @classmethod
    def by(cls, config: Any) -> Recipe:
        """That of a script's config."""
        data, guide = taken(DataOptions, vars(config)), taken(GuideOptions, vars(config))
        return cls(data, getattr(config, "binarize", "default"), config.setup, guide)

    def splits(self, device: str | torch.device = "cpu") -> Splits:
        """The data; grey levels stay where that is asked for, and by default where the model is not of binary data."""
        greys = self.binarize == "none" or (self.binarize == "default" and not self.setup.binary)
        return self.setup.shown(self.data.splits(binarize=None if greys else self.binarize, device=device))

    def pair(self, data: Loader) -> tuple[nn.Module, nn.Module]:
        """A fresh model and a fresh guide of it, where the data lie; one that draws nothing if nothing is latent."""
        return fresh_pair(self.setup, data, self.guide.family(self.setup.nonlinearity), observed=True)


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings of the run in a folder that say what it trained, and how; not where it was written."""
    kept = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    return {"model": "vae"} | {name: value for name, value in kept.items() if name not in ELSEWHERE}


def check_unasked(config: Any, run: Path, names: Iterable[str]) -> None:
    """Refuses options that a run decides which is taken as it is.

    Raises:
        ValueError: one of these is not the script's default.
    """
    usual = type(config)()
    for name in names:
        if getattr(config, name) != getattr(usual, name):
            word = "model" if name == "setup" else name
            raise ValueError(
                f"{word} is that of the pair in {run} with --run, which is taken as it is; leave out "
                + (f"--{word} and its options" if name == "setup" else f"--{word.replace('_', '-')}")
            )


def data_of(config: Any) -> Splits:
    """The data that a script's config names, as its model takes them, of the test data no more than ``eval_data``."""
    return Recipe.by(config).splits().tested_on(config.eval_data)


def plan(
    model: nn.Module,
    guide: nn.Module,
    objective: Objective,
    parts: dict[str, Loader],
    epochs: int,
    batch_size: int,
    word: str,
) -> dict[str, str]:
    """What a run would train, before anything is trained: {what: how much}, in the order in which it is printed.

    Args:
        model, guide: the pair.
        objective: what is maximised.
        parts: {name: data} of training, validation and test.
        epochs: at most.
        batch_size: rows of a step.
        word: for the model.
    """
    train = parts["training"]
    sizes = ", ".join(f"{len(data.x):,} for {name}" for name, data in parts.items())
    shape = " x ".join(map(str, train.x.shape[1:])) or "1"
    sites = latents(model, *train.examples)
    found = [f"{name} {tuple(site.shape)}" for name, site in sites.items()]
    return {
        "data": f"{train.name}: {sizes}; {shape} numbers each, {str(train.x.dtype).removeprefix('torch.')}",
        "model": f"{word}, {type(model).__name__}, {num_parameters(model):,} parameters",
        "latents": "; ".join(found) or "none",
        "guide": f"{type(guide).__name__}, {num_parameters(guide):,} parameters",
        "objective": repr(objective),
        "steps": f"{len(train):,} an epoch, of {batch_size:,} data each; at most {epochs * len(train):,} in all",
    }


def planned(found: dict[str, str]) -> str:
    """The plan in lines."""
    width = max(map(len, found))
    return "\n".join([*(f"{name:<{width}}  {text}" for name, text in found.items()), "all checks passed"])
