"""New data for a finished run, read as those were that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlvm.experiments.data import Loader
from dlvm.experiments.data.arguments import check_path
from dlvm.experiments.data.description import check_description, describe, read_alike
from dlvm.experiments.data.prepare import prepare
from dlvm.experiments.data.readers.any_file import read_found
from dlvm.experiments.data.readers.found import Roles
from dlvm.experiments.options.fitting import REAL
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.restore import recipe_of
from dlvm.experiments.setups.setup import LOG_PX
from dlvm.inference.saved.files import PAIR

FILE = "data.json"


def keep_description(folder: Path, data: Loader) -> None:
    """Writes down what must be known of the training data to read others alike."""
    (folder / FILE).write_text(json.dumps(describe(data), indent=2), "utf-8")


def inputs_of(folder: Path) -> tuple[str, ...]:
    """Names of the tensors that the programs of a run are called with; x alone of a pair that no script has made."""
    return ("x",) if (recipe := _recipe(folder)) is None else recipe.setup.inputs


def reported_of(folder: Path) -> str:
    """What the model's "log p(x)" is, as log p(y | x)."""
    return LOG_PX if (recipe := _recipe(folder)) is None else recipe.setup.reported


def description_of(folder: Path, path: Path | None = None) -> dict[str, Any]:
    """What is known of the data that a pair was trained on.

    Of a run that wrote it not down, by reading them again; of a pair that no script has made, as the new file is.

    Args:
        folder: of the pair.
        path: of the new file, if any.

    Raises:
        ValueError: the description is damaged, or the data are no more to be found.
    """
    kept = folder / FILE
    if kept.is_file():
        try:
            return check_description(json.loads(kept.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise ValueError(f"{kept} cannot be read ({error}); train the run anew") from error
    if (recipe := _recipe(folder)) is not None:
        return describe(recipe.splits().train)
    if path is None:
        return {"image_shape": None, "columns": None, "reading": {"scale": None, "binarize": None}}
    found = read_found(check_path("data", path), Roles())
    return describe(Loader.of(prepare(found, Roles(), None, path.stem)))


def read_for(folder: Path, path: Path | None) -> Loader:
    """The rows of a file, in its order; the run's own test data where there is none.

    Raises:
        ValueError: there is no such file, or its rows do not go with the run's.
    """
    if path is not None:
        known = description_of(folder, path)
        return read_alike(path, {**known, "kind": "real"} if _of_any_number(folder, known) else known, batch_size=1)
    if (recipe := _recipe(folder)) is None:
        raise ValueError(f"data must be named for {folder}, whose own test data are not known; add the path of a file")
    test = recipe.splits().test
    return read_alike(test.x, {**describe(test), "columns": None}, batch_size=1) if test.dynamic else test


def given_of(words: Sequence[str], n: int) -> dict[str, Tensor]:
    """{name: one value for all n data} of NAME=NUMBER: a whole number as such, any other as it is.

    Raises:
        ValueError: one is no number.
    """
    found = {}
    for name, _, word in (each.partition("=") for each in words):
        try:
            found[name] = torch.full((n,), int(word) if word.lstrip("-").isdecimal() else float(word))
        except ValueError as error:
            raise ValueError(
                f"given (--given) must be NAME=NUMBER, got the number {word!r}; write --given y=3"
            ) from error
    return found


def lacking(folder: Path, call: str, absent: Sequence[str], given: Sequence[str], said: str) -> str:
    """What a call's error says to a user of the command line, where something that the model needs is not there.

    Args:
        folder: of the run.
        call: word of the command line.
        absent: names of inputs that the new file has not.
        given: NAME=NUMBER, as in the command.
        said: the error.

    Returns:
        the words; none where the error is about something else.
    """
    if absent:
        column = description_of(folder)["reading"].get("label_column") or absent[0]
        return (
            f"{call} of this run needs {absent[0]} beside x, and the file has none; add the column {column!r}, or "
            "leave the file out to take the run's own test data"
        )
    if "y must be" not in said or any(word.startswith("y=") for word in given):
        return ""
    needs = f"{call} of this run needs what x is drawn given"
    if call == "generate" and "y" in inputs_of(folder):
        return f"{needs}; add --given y=NUMBER, as y=3"
    return f"{needs}, which the command line cannot hold; call {call} of dlvm.inference from Python"


def _of_any_number(folder: Path, known: Mapping[str, Any]) -> bool:
    """Whether data that happen to be whole numbers were trained on under a density of all real ones."""
    if known.get("kind") not in ("count", "binary") or known["reading"].get("binarize") is not None:
        return False
    recipe = _recipe(folder)
    return recipe is not None and getattr(recipe.setup, "likelihood", None) in REAL


def _recipe(folder: Path) -> Recipe | None:
    """That of a run of train; None where there is a pair and nothing else."""
    if (folder / PAIR).is_file() and not (folder / "config.json").is_file():
        return None
    return recipe_of(folder)
