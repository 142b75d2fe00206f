"""Jobs of several gloo processes on one machine, for tests.

One fork server imports torch and the project once; every rank is a fork of it, so that a job of three costs
no more than its work.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from typing import Any

from ctr.distributed import World, open_world
from features.errors import CtrError

Job = Callable[..., Any]  # of (world, *arguments); returns plain data


@dataclass(frozen=True)
class Ending:
    """How one rank ended: its result, or its error; neither if it was killed."""

    exit_code: int
    result: Any = None
    error: str | None = None


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # What cannot be imported is left out.
    context.set_forkserver_preload(
        [
            "pipelines.train",
            "tests.ctr.ranks",
            "torchrec.distributed.embedding",
            "torchrec.distributed.planner",
        ]
    )
    return context


def start_ranks(size: int, job: Job, *arguments: Any, timeout: float = 60.0) -> Callable[[], list[Ending]]:
    """Start a job; the function that is returned waits for it."""
    context = _context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue: Any = context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, size, port, timeout, queue, job, arguments), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()

    def finish() -> list[Ending]:
        for process in processes:
            process.join(timeout + 60)
            if process.is_alive():
                process.kill()
                process.join()
        told = {}
        while len(told) < sum(process.exitcode in (0, 1) for process in processes):
            rank, result, error, code = queue.get(timeout=10)
            told[rank] = Ending(code, result, error)
        return [told.get(r, Ending(process.exitcode or 0)) for r, process in enumerate(processes)]

    return finish


def run_ranks(size: int, job: Job, *arguments: Any, timeout: float = 60.0) -> list[Ending]:
    """Run job(world, *arguments) in `size` processes."""
    return start_ranks(size, job, *arguments, timeout=timeout)()


def _rank(
    rank: int, size: int, port: int, timeout: float, queue: Any, job: Job, arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    result, error, code = None, None, 0
    try:
        with open_world("cpu", timeout=timeout) as world:
            result = job(world, *arguments)
    except CtrError as found:
        error, code = f"{type(found).__name__}: {found}", found.exit_code
    except BaseException:
        error, code = traceback.format_exc(), 1
    queue.put((rank, result, error, code))


def identity(world: World) -> tuple[int, int]:
    """A job that says who it is."""
    return world.rank, world.size
