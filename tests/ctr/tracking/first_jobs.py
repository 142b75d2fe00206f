"""Twenty times four jobs that use a new MLflow store at one moment: is it whole, does it hold all they said?

    python -m tests.ctr.tracking.first_jobs [STARTS [JOBS]]

The jobs are forks of one process that has loaded MLflow: they come to the store within a millisecond of each
other, closer than jobs that are started by hand. Ends with 1 if a store was broken or a row was lost.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from ctr.runs.directory import RunDir
from ctr.tracking import Tracker
from ctr.tracking.store import StoreError, check_whole

ROWS = 3  # that each job logs


def job(run: Path, start: float) -> bool:
    """Wait for the moment, report to the store beside the run; whether everything arrived there."""
    time.sleep(max(0.0, start - time.monotonic()))
    with RunDir.open(run) as opened, Tracker(opened, system_seconds=0) as tracker:
        tracker.begin(0)
        for step in range(1, ROWS + 1):
            tracker.log("train", step, {"loss": 1 / step})
        return tracker.close(timeout=300)


def start_together(folder: Path, jobs: int) -> list[int]:
    """Run the jobs at one moment; returns their exit codes."""
    moment, children = time.monotonic() + 0.2, []
    for number in range(jobs):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                code = 0 if job(folder / f"job{number}", moment) else 2
            finally:
                os._exit(code)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def problem_of(store: Path, codes: list[int]) -> str | None:
    """What is wrong after a start."""
    if any(codes):
        return f"jobs ended with {codes}"
    try:
        check_whole(store)
    except StoreError as error:
        return str(error)
    with closing(sqlite3.connect(store)) as database:
        (rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
        (runs,) = database.execute("SELECT count(*) FROM runs").fetchone()
        (intact,) = database.execute("PRAGMA integrity_check").fetchone()
    wanted = (len(codes) * ROWS, len(codes), "ok")
    return None if (rows, runs, intact) == wanted else f"got {(rows, runs, intact)}, wanted {wanted}"


def main(starts: int = 20, jobs: int = 4) -> int:
    """Start again and again, each time in a new folder; returns the exit code."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (once for all forks)

    began, broken = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="ctr-first-jobs-") as top:
        for number in range(starts):
            folder = Path(top) / f"start{number}"
            folder.mkdir()
            problem = problem_of(folder / "mlflow.db", start_together(folder, jobs))
            broken += problem is not None
            print(f"start {number + 1} of {jobs} jobs: {problem or 'whole'}", flush=True)
    print(f"{starts} starts of {jobs} jobs: {broken} broken, {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
