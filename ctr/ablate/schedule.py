"""Trainings in parallel: as many worker processes as asked for, each with its share of the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ctr.ablate.subruns import SubRun
from ctr.ablate.task import Task
from ctr.errors import LockedError, RetryableError
from ctr.runs.directory import RunDir
from features.errors import CtrError
from features.memory.limit import memory_limit

TRIES = 5
AGAIN = {LockedError.exit_code, RetryableError.exit_code}  # a worker whose parent was killed holds its lock
SECONDS_BETWEEN_TRIES = 2.0
SECONDS_BETWEEN_LOOKS = 0.1
WORKER = "pipelines.ablate_worker"
OWN_MIB = 1024  # a worker without its tables


class Worker(Protocol):
    """A training that goes on."""

    def poll(self) -> int | None:
        """Its exit code, or None."""

    def stop(self) -> None:
        """Ask it to save and end."""


Launch = Callable[[Task], Worker]


class ProcessWorker:
    """A worker process; it reads its task from stdin, whose end tells it that this process is gone.

    Args:
        task: what to do.
        threads: of OpenMP.
    """

    def __init__(self, task: Task, *, threads: int) -> None:
        folder = Path(task.config.run)
        RunDir.claim(folder)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which then asks each worker once
            )
        assert self._process.stdin is not None
        self._process.stdin.write(task.to_json().encode() + b"\n")
        self._process.stdin.flush()

    def poll(self) -> int | None:
        """Its exit code; 128 + signal where one ended it."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def stop(self) -> None:
        """SIGTERM."""
        self._process.terminate()


@dataclass
class Failure:
    """A training that could not be finished."""

    subrun: SubRun
    code: int
    message: str  # the last line of its log

    def describe(self) -> str:
        """Code and message in a line."""
        return f"exit code {self.code}" + (f": {self.message}" if self.message else "")


class TrainingFailed(CtrError):
    """A training that its command cannot do without has failed; the exit code is the training's own.

    Args:
        must: what must hold, such as "every size must train".
        failure: of the training.
    """

    def __init__(self, must: str, failure: Failure) -> None:
        folder = failure.subrun.path
        super().__init__(
            f"{must}, but {folder.name} ended with {failure.describe()}; see {folder / 'log.txt'}, mend it "
            "and run the command again"
        )
        self.exit_code = failure.code


@dataclass
class Job:
    """A training to do: to its end, or to a pause."""

    subrun: SubRun
    until: int | None = None
    tries: int = 0
    not_before: float = 0.0  # of the monotonic clock


@dataclass
class Pool:
    """Runs trainings, at most `workers` at a time, in the given order.

    Args:
        launch: starts a worker.
        workers: how many at a time, at least 1.
        look: called often with the sub-runs at work, for a display.
        stopped: whether a signal has come.
        pause: seconds before a worker that may succeed later is started again.
    """

    launch: Launch
    workers: int
    look: Callable[[Sequence[SubRun]], None] = lambda at_work: None
    stopped: Callable[[], bool] = lambda: False
    pause: float = SECONDS_BETWEEN_TRIES
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workers < 1:  # it would wait for ever for the first one to begin
            raise ValueError(f"a pool must have at least 1 worker, got {self.workers}")

    def run(self, jobs: Sequence[Job]) -> bool:
        """Do all jobs; a failure is kept in `failures` and does not stop the others.

        Returns:
            False if a signal came; every worker has then saved and ended.
        """
        waiting, going = deque(jobs), list[tuple[Worker, Job]]()
        while (waiting or going) and not self.stopped():
            while len(going) < self.workers and waiting and waiting[0].not_before <= time.monotonic():
                job = waiting.popleft()
                going.append((self.launch(Task.of(job.subrun, job.until)), job))
            ended = [(job, code) for worker, job in going if (code := worker.poll()) is not None]
            going = [(worker, job) for worker, job in going if all(job is not other for other, _ in ended)]
            waiting.extend(again for job, code in ended if (again := self._again(job, code)))
            self.look([job.subrun for _, job in going])
            if not ended:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        for worker, _ in going:
            worker.stop()
        while any(worker.poll() is None for worker, _ in going):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return not self.stopped()

    @property
    def exit_code(self) -> int:
        """0, or that of the first training that failed."""
        return self.failures[0].code if self.failures else 0

    def _again(self, job: Job, code: int) -> Job | None:
        """The job once more, where that may help; a failure is noted."""
        if code in AGAIN and job.tries + 1 < TRIES:
            return Job(job.subrun, job.until, job.tries + 1, time.monotonic() + self.pause)
        if code and not self.stopped():
            self.failures.append(Failure(job.subrun, code, last_line(job.subrun.path / "log.txt")))
        return None


def last_line(path: Path) -> str:
    """The last line that a worker wrote, for messages."""
    if not path.is_file():
        return ""
    lines = path.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]


def how_many(subruns: Sequence[SubRun], *, on_gpu: bool) -> int:
    """As many workers as fit: a core each, and memory for the largest tables with their optimizer."""
    if on_gpu:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = max(sum(t.rows for t in s.manifest.tables.values()) * s.config.embedding.dim for s in subruns)
    each = OWN_MIB + rows * 4 * 3 / 2**20  # weights, two moments
    fitting = int(memory_limit().left / 2**20 / each)
    return max(1, min(cores, fitting, len(subruns)))
