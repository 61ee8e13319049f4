"""Where cells are computed: this process, others of this machine, or a cluster that joblib has a backend for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

from joblib import parallel_config
from joblib.parallel import get_active_backend

Backend = Literal["loky", "dask", "ray"]


@dataclass(frozen=True)
class Workers:
    """How many cells at a time, and where.

    Args:
        jobs: with 1, in this process; -1 for all cores, or all that a cluster has. Dask always takes all it has.
        backend: "loky", processes of this machine, unless ``joblib.parallel_config`` has set another; "dask"; "ray".
        cluster: address of the cluster; a client that this process has already needs none.
    """

    jobs: int = 1
    backend: Backend = "loky"
    cluster: str | None = None

    @classmethod
    def of(cls, config: object) -> Workers:
        """Those of a script's config, which has them under the same names."""
        return cls(config.jobs, config.backend, config.cluster)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, ``joblib.Parallel`` gives its work to these.

        Raises:
            ValueError: the backend's package or cluster is not there, or it would run cells in threads of one process.
        """
        if self.jobs == 0:
            raise ValueError("jobs must be a number of cells at a time, or -1 for all cores, got 0")
        if self.backend == "loky" and self.cluster is not None:
            raise ValueError(f"cluster is for --backend dask or ray, got {self.cluster!r} with loky; name the backend")
        with CLUSTERS[self.backend](self.cluster):
            active = get_active_backend()[0]
            if getattr(active, "supports_sharedmem", False) and self.jobs != 1:
                raise ValueError(
                    f"backend must give each cell a process of its own, got {type(active).__name__}: threads of one "
                    "process share torch's random stream, so that cells would draw each other's noise; use loky, dask "
                    "or ray"
                )
            yield


def _package(name: str, backend: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"backend {backend} needs the package {name}, which is not installed: install it") from error


@contextmanager
def _here(_: None) -> Iterator[None]:
    yield


@contextmanager
def _dask(address: str | None) -> Iterator[None]:
    distributed = _package("distributed", "dask")
    if address is None:  # a client that the caller made
        with parallel_config(backend="dask"):
            yield
        return
    try:
        client = distributed.Client(address, set_as_default=False)
    except OSError as error:
        raise ValueError(f"cluster must be the address of a Dask scheduler, got {address!r}: {error}") from error
    with client, parallel_config(backend="dask", client=client):
        yield


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    ray = _package("ray", "ray")
    if not ray.is_initialized():
        ray.init(address=address)
    _package("ray.util.joblib", "ray").register_ray()
    with parallel_config(backend="ray"):
        yield


CLUSTERS = {"loky": _here, "dask": _dask, "ray": _ray}
