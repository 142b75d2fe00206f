"""Jobs of several gloo processes on one machine, for tests.

Every rank is a fork of one process that has imported torch and the project, so that a job of three costs no
more than its work.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from torch.distributed import run
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ctr.distributed.world import World, open_world
from features.errors import CtrError
from tests.forks import fork_server

Job = Callable[..., Any]  # of (world, *arguments); returns plain data


@dataclass(frozen=True)
class Ending:
    """How one rank ended: its result, or its error; neither if it was killed."""

    exit_code: int
    result: Any = None
    error: str | None = None


def start_ranks(size: int, job: Job, *arguments: Any, timeout: float = 60.0) -> Callable[[], list[Ending]]:
    """Start a job; the function that is returned waits for it."""
    context = fork_server()
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
        told: dict[int, Ending] = {}
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


def torchrun(options: Sequence[str], command: Callable[..., Any], *arguments: str) -> dict[int, Any]:
    """torchrun itself, its options, agent and restarts; its ranks call a function in a fork.

    Args:
        options: of torchrun.
        command: stands for the interpreter that torchrun starts; gets its command line.
        arguments: what torchrun is told to run.

    Returns:
        What each rank's function returned.
    """
    found: dict[int, Any] = {}

    def launch(config: LaunchConfig, entrypoint: Any) -> Callable[..., None]:
        forked = elastic_launch(replace(config, start_method="forkserver"), command)
        return lambda *command_line: found.update(forked(*command_line))

    fork_server()
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in handled]
    try:
        with patch.object(run, "elastic_launch", launch):
            run.main([*options, *arguments])
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
    return found


def identity(world: World) -> tuple[int, int]:
    """A job that says who it is."""
    return world.rank, world.size
