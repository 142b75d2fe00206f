"""Who runs the tasks: this process, processes of this machine, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from features.errors import ConfigError

_THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Resources:
    """What a prepare may use; the data set does not depend on it.

    Attributes:
        memory: bytes that all processes may take together; None: what there is.
        workers: processes of this machine.
        dask: address of a Dask scheduler, such as `tcp://host:8786`; its workers see the same files.
        partitions: instead of the number that follows from the memory.
    """

    memory: int | None = None
    workers: int = 1
    dask: str | None = None
    partitions: int | None = None


@contextmanager
def open_workers(resources: Resources) -> Iterator[Executor | None]:
    """The executor of a job's tasks; None: this process runs them itself.

    Raises:
        ConfigError: `distributed` is not installed, or nobody answers at the address.
    """
    if resources.dask is not None:
        with _dask_executor(resources.dask) as executor:
            yield executor
    elif resources.workers > 1:
        with _shared_threads(resources.workers):
            # A fresh interpreter each: threads of Polars do not survive a fork.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(resources.workers, mp_context=context) as executor:
                yield executor
    else:
        yield None


@contextmanager
def _shared_threads(workers: int) -> Iterator[None]:
    """Worker processes share the cores: each has as many threads as fall to it."""
    before = {name: os.environ.get(name) for name in _THREADS}
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    os.environ.update({name: os.environ.get(name, threads) for name in _THREADS})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _dask_executor(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            "--dask needs the package distributed; install it with: pip install -r requirements/dask.txt"
        ) from None
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--dask: no scheduler answers at {address!r}: {error}; correct it") from None
    with client:
        # A worker that is lost costs its tasks; they run again elsewhere.
        yield client.get_executor(retries=3, pure=False)
