"""Options of scripts that make many runs: how many at a time, and where."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro

Backend = Literal["loky", "dask", "ray"]
PACKAGES = {"dask": "distributed", "ray": "ray"}


@dataclass(frozen=True)
class SweepOptions:
    """The folder of a sweep, and who computes its cells."""

    jobs: int = 1
    """Runs at a time, one CPU thread each; -1 for all cores. Times are best compared with 1."""
    backend: Backend = "loky"
    """Where runs go: processes of this machine, or a Dask or Ray cluster."""
    cluster: str | None = None
    """Address of the cluster, such as tcp://host:8786."""
    out: Path = Path("runs")
    """Folder for config.json, metrics.jsonl, result.json, figures and report.html."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder; without it, the same command goes on with one that has not finished."""


def check_jobs(jobs: int, backend: str, cluster: str | None) -> None:
    """Refuses workers that cannot be had, before any work is given out.

    Raises:
        ValueError: there are to be none, the backend's package is not there, or a cluster has no backend.
    """
    if jobs == 0:
        raise ValueError("jobs must be a number of cells at a time, or -1 for all cores, got 0")
    if backend == "loky" and cluster is not None:
        raise ValueError(f"cluster is for --backend dask or ray, got {cluster!r} with loky; name the backend")
    if backend in PACKAGES:
        package(PACKAGES[backend], backend)


def package(name: str, backend: str) -> ModuleType:
    """A package that only this backend needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"backend {backend} needs the package {name}, which is not installed: install it") from error
