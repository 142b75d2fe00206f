"""Processes that are forks of one which has imported the project: each begins at once, and may be killed.

The fork server of a pytest worker imports, and computes nothing: its forks find no thread pool of others.
What the start of an interpreter itself does is seen by the tests that call `python -m pipelines.cli`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from features.durable.faults import VARIABLE, injected

# What cannot be imported is left out. The last ones are otherwise imported by the first optimizer, the first
# table and the first use of MLflow in every process.
PRELOADED = [
    "pipelines.train",
    "pipelines.predict",
    "pipelines.prepare",
    "pipelines.roll",
    "tests.ctr.rank_jobs",
    "tests.ctr.shard_jobs",
    "torchrec.distributed.embedding",
    "torchrec.distributed.planner",
    "torch.distributed.optim",
    "torch._dynamo",
    "pandas",
    "mlflow.store.tracking.sqlalchemy_store",
]


def fork_server() -> ForkServerContext:
    """Where processes are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@dataclass(frozen=True)
class Done:
    """How a process ended: its exit code, or minus the signal; what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Fork:
    """A process at work."""

    process: ForkServerProcess
    folder: tempfile.TemporaryDirectory[str]  # of what it prints

    def end(self, seconds: float = 300.0) -> Done:
        """Wait for its end; it is killed when the seconds are over."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        with self.folder as folder:
            return Done(
                self.process.exitcode, *((Path(folder) / name).read_text() for name in ("out", "err"))
            )


def start(action: Callable[..., int | None], *arguments: Any, fault: str = "") -> Fork:
    """Begin action(*arguments), a function of a module, which returns an exit code.

    The process has the environment and the directory of this one.
    """
    folder = tempfile.TemporaryDirectory()
    environment = {**os.environ, VARIABLE: fault}
    given = (action, arguments, environment, os.getcwd(), folder.name)
    process = fork_server().Process(target=_run, args=given)
    process.start()
    return Fork(process, folder)


def run_command(*arguments: str, fault: str = "") -> Done:
    """`ctr ARGUMENTS`; CTR_FAULT holds the fault."""
    return start(_command, *arguments, fault=fault).end()


def _command(*arguments: str) -> int:
    from pipelines.cli import main

    sys.argv = ["ctr", *arguments]
    return main(list(arguments))


def _run(
    action: Callable[..., int | None],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    directory: str,
    said: str,
) -> None:
    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(Path(said) / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    with injected(environment[VARIABLE]):
        sys.exit(action(*arguments))
