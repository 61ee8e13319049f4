"""Where cells are computed: this process, others of this machine, or a cluster that joblib has a backend for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from joblib import parallel_config
from joblib.parallel import ParallelBackendBase, get_active_backend

from dlvm.experiments.options.jobs import Backend, SweepOptions, check_jobs, package


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
    def of(cls, config: SweepOptions) -> Workers:
        """Those of a script's config, which has them under the same names."""
        return cls(config.jobs, config.backend, config.cluster)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, ``joblib.Parallel`` gives its work to these.

        Raises:
            ValueError: see ``check_jobs``; the cluster is not there, or it would run cells in threads of one process.
        """
        check_jobs(self.jobs, self.backend, self.cluster)
        with CLUSTERS[self.backend](self.cluster):
            active = get_active_backend()[0]
            if getattr(active, "supports_sharedmem", False) and self.jobs != 1:
                raise ValueError(
                    f"backend must give each cell a process of its own, got {type(active).__name__}: threads of one "
                    "process share torch's random stream, so that cells would draw each other's noise; use loky, dask "
                    "or ray"
                )
            yield


@contextmanager
def _here(_: str | None) -> Iterator[None]:
    yield


@contextmanager
def _dask(address: str | None) -> Iterator[None]:
    distributed = package("distributed", "dask")
    if address is None:  # a client that the caller made
        with parallel_config(backend="dask"):
            _mend(get_active_backend()[0])
            yield
        return
    try:
        client = distributed.Client(address, set_as_default=False)
    except OSError as error:
        raise ValueError(f"cluster must be the address of a Dask scheduler, got {address!r}: {error}") from error
    with client, parallel_config(backend="dask", client=client):
        _mend(get_active_backend()[0])
        yield


def _mend(dask: ParallelBackendBase) -> None:
    """joblib's Dask backend keeps to itself that a task's workers died, and computes here if there is one worker."""
    given, count = dask.submit, dask.effective_n_jobs

    def submit(task: Callable, callback: Callable) -> Future:
        future = given(task, callback)
        future.add_done_callback(lambda ended: callback(ended.exception()) if ended.exception() else None)
        return future

    dask.submit, dask.effective_n_jobs = submit, lambda jobs=1: max(2, count(jobs))


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    ray = package("ray", "ray")
    if not ray.is_initialized():
        try:
            ray.init(address=address)
        except OSError as error:
            raise ValueError(f"cluster must be the address of a Ray cluster, got {address!r}: {error}") from error
    backend = package("ray.util.joblib.ray_backend", "ray").RayBackend()
    backend.supports_return_generator = True  # it does; without a word of it joblib refuses
    with parallel_config(backend=backend):
        yield


Inside = Callable[[str | None], AbstractContextManager[None]]
CLUSTERS: dict[Backend, Inside] = {"loky": _here, "dask": _dask, "ray": _ray}
