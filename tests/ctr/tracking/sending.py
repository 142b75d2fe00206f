"""What tests of sending to MLflow share: two servers' addresses, some rows, calls that fail."""

from __future__ import annotations

import time
from typing import Any

from ctr.runs.directory import RunDir
from ctr.tracking.replica import Replica
from ctr.tracking.tracked_run import keep_run

A, B = "fake:a", "fake:b"


def replica(run: RunDir, uri: str) -> Replica:
    return Replica(run, uri, keep_run(run, experiment="ctr", uri=uri))


def steps(run: RunDir, first: int, last: int) -> None:
    for step in range(first, last + 1):
        run.journal.write("train", step, loss=1 / step, wall={"rows_per_s": time.monotonic()})


def down() -> None:
    raise ConnectionError("no server")


def failing(calls: int) -> Any:
    """A hook that fails from its `calls`-th call on."""
    left = iter(range(calls))

    def hook() -> None:
        if next(left, None) is None:
            down()

    return hook
