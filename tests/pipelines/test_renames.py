"""A kill before and after every rename: what was there is whole, and the same command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.features.durable.test_durable import points
from tests.pipelines.renames import CASES, HELD

# Points that are killed elsewhere, or that a command of the table passes through by the same helper.
ELSEWHERE = {
    "mlflow": "tests/ctr/tracking/test_store.py kills a job that makes the store",
    "cache": "new_directory, as simulated; tests/features/remote has a store",
    "export": "new_directory, as simulated",
    "remote.fetch": "tests/features/remote/test_working_copy.py: an interrupted fetch goes on",
    "download": "new_directory, as simulated; a download needs the network",
    "partial.back": "tests/features/durable/test_durable.py, where directories cannot change places",
}


# Killed when all was done: the same command finds its result, and leaves it alone.
THERE = {"simulated.after": 2, "dataset.after": 3}


def test_every_rename_of_the_sources_is_killed_somewhere() -> None:
    """Whatever `replacing` renames is killed as predictions and reports are."""
    found = set(points(but_of=("replacing", "replace_file", "write_rows")))
    assert found <= CASES.keys() | ELSEWHERE.keys()


@pytest.mark.slow
@pytest.mark.fault(44)
def test_a_kill_at_every_rename_leaves_one_whole_copy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipelines.renames", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2 * len(CASES)
    for line in found:
        assert line["killed"] and line["again"] == THERE.get(line["point"], 0) and not line["leftovers"], line
        assert line["held"] is not None, line
    assert {line["point"].rpartition(".")[0] for line in found if line["held"] != "nothing was there"} == HELD
