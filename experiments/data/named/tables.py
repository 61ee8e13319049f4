"""Tables: objects of the sky, and the air of an Italian town, of which many measurements are missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from dlvm.experiments.data.named.kept import AIR_QUALITY, SKY, paths_of
from dlvm.experiments.data.prepare import cut, in_order, prepare
from dlvm.experiments.data.readers.any_file import read_table
from dlvm.experiments.data.readers.found import Roles
from dlvm.experiments.data.readers.long_tables import assign
from dlvm.experiments.data.readers.tables import Table
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits

Device = str | torch.device
LIGHT = ("u", "g", "r", "i", "z", "redshift")
OTHERS = ("Date", "Time", "CO_level")  # CO_level was added to the measurements by others


def sky(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """10,000 objects of the sky: magnitudes in five bands and redshift; `labels` are star, galaxy or quasar.

    Returns: a tenth each for validation and test, by one fixed permutation; x_dim is 6.
    Args: `binarize` is None; the others as in `mnist`.
    Raises: FileNotFoundError if the file is missing; ValueError if it is damaged.
    References: Sloan Digital Sky Survey, data release 14, 2017.
    """
    check_options(binarize, batch_size, device, seed)
    roles = Roles(label_column="class", columns=LIGHT)
    found = assign(_table(paths_of((SKY,), data_dir)[0]), roles)
    rows = prepare(found, roles, None, "sky")
    return make_splits(cut(rows, None, 0.1, 0.1), binarize, batch_size, device, seed)


def air_quality(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: Device = "cpu",
    seed: int = 0,
) -> Splits:
    """9,357 hours of 13 sensors in a street; what is missing (-200 in the file) is NaN, in nine of ten rows.

    Returns: by time, the first 80 % for training, the next 10 % for validation, the last for test; `index` has the
        hours.
    Args: as in `sky`.
    Raises: FileNotFoundError if the file is missing; ValueError if it is damaged.
    References: On field calibration of an electronic nose for benzene estimation in an urban pollution monitoring
        scenario, S. De Vito et al., Sensors and Actuators B 129, 2008.
    """
    check_options(binarize, batch_size, device, seed)
    table = _table(paths_of((AIR_QUALITY,), data_dir)[0])
    roles = Roles(columns=tuple(name for name in table.names if name not in OTHERS), missing=("-200",))
    written = zip(table.words(table.names.index("Date")), table.words(table.names.index("Time")), strict=True)
    hours = [datetime.strptime(f"{date} {time}", "%m/%d/%Y %H:%M:%S") for date, time in written]
    found, order = assign(table, roles), sorted(range(len(hours)), key=hours.__getitem__)
    rows = prepare(
        replace(found, x=found.x[order], index=[str(hours[row]) for row in order]), roles, None, "air_quality"
    )
    return make_splits(cut(rows, in_order(len(order)), 0.1, 0.1), binarize, batch_size, device, seed)


def _table(path: Path) -> Table:
    table = read_table(path, Roles())
    if table is None:
        raise ValueError(f"{path} must hold a table: remove the file")
    return table
