"""New data for a finished run, read as those were that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dlvm.experiments.data import Loader
from dlvm.experiments.data.description import check_description, describe, read_alike
from dlvm.experiments.runs.restore import recipe_of

FILE = "data.json"


def keep_description(folder: Path, data: Loader) -> None:
    """Writes down what must be known of the training data to read others alike."""
    (folder / FILE).write_text(json.dumps(describe(data), indent=2), "utf-8")


def description_of(folder: Path) -> dict[str, Any]:
    """What is known of the data that a run was trained on; of a run that wrote it not down, by reading them again.

    Raises:
        ValueError: the file is damaged, or there is none and the data are no more to be found.
    """
    path = folder / FILE
    if not path.is_file():
        return describe(recipe_of(folder).splits().train)
    try:
        return check_description(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); train the run anew") from error


def read_for(folder: Path, path: Path | None) -> Loader:
    """The rows of a file, in its order; the run's own test data where there is none.

    Raises:
        ValueError: there is no such file, or its rows do not go with the run's.
    """
    if path is not None:
        return read_alike(path, description_of(folder), batch_size=1)
    test = recipe_of(folder).splits().test
    return read_alike(test.x, {**describe(test), "columns": None}, batch_size=1) if test.dynamic else test
