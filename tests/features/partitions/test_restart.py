"""A prepare that is killed goes on where it was: no finished task runs again, and the bits are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.durable.faults import InjectedFault, injected
from features.errors import DataError
from features.partitions import tasks
from features.partitions.tasks import work_directory
from features.safe_yaml import dump_yaml
from tests.features.partitions.kinds import purchases
from tests.features.partitions.test_equal import RATINGS, prepared, written
from tests.features.small_log import rating_tables, write_tables

PARTS = 2
STAGES = (
    "survey", "ingest", "entity", "rank", "users", "rows", "before-0", "count-0", "before-1", "count-1",
    "fit-rows", "fit-events", "merge-tables", "merge-dense", "encode-rows", "encode-events", "store",
)  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The raw tables, and what one partition makes of them."""
    root = tmp_path_factory.mktemp("log")
    write_tables(root / "raw", rating_tables(100))
    return root, prepared(root, RATINGS, 1)


def test_a_failure_in_any_stage_and_another_call(
    log: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, whole = log
    run: list[str] = []
    perform = tasks._perform

    def counted(*call: object) -> object:
        run.append(str(call[2]))  # the task's directory
        return perform(*call)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks, "_perform", counted)
    for point in (*(f"task.{stage}.before_rename:0" for stage in STAGES), "dataset.before_rename"):
        with injected(f"{point}:raise"), pytest.raises(InjectedFault):
            prepared(root, RATINGS, PARTS)
        assert not (root / f"parts-{PARTS}-1").exists()
    # Rows lie on the disk a few times, not once for each stage.
    left = {f"{p.parts[-3]}/{p.name}" for p in root.glob(f".parts-{PARTS}-1.parts/*/*/*")}
    assert {name for name in left if name.split("/")[0] in ("ingest", "rank", "before-0", "count-0")} == {
        f"{stage}/done.json" for stage in ("ingest", "rank", "before-0", "count-0")
    }
    assert not {name for name in left if name.startswith(("users/rows", "users/events", "rows/rows"))}
    assert prepared(root, RATINGS, PARTS) == whole
    # Each first task of a stage was stopped once; no other ran twice.
    twice = {path for path in run if run.count(path) > 1}
    assert {path.split("/")[-2] for path in run} == set(STAGES)
    assert twice == {path for path in run if path.endswith("/00000") and path.split("/")[-2] in STAGES}


def test_a_failure_in_the_stages_that_only_some_logs_have(tmp_path: Path) -> None:
    spec, tables = purchases()
    write_tables(tmp_path / "raw", tables)
    whole = prepared(tmp_path, spec, 1)
    for stage in ("requests", "late", "fit-late", "merge-targets"):
        with injected(f"task.{stage}.before_rename:0:raise"), pytest.raises(InjectedFault):
            prepared(tmp_path, spec, PARTS)
    assert prepared(tmp_path, spec, PARTS) == whole


def test_one_job_at_a_time(tmp_path: Path) -> None:
    with (
        work_directory(tmp_path / "work", "a"),
        pytest.raises(DataError, match="in use by another ctr prepare"),
        work_directory(tmp_path / "work", "a"),
    ):
        pass


def test_what_lies_there_of_another_job_goes(tmp_path: Path) -> None:
    with work_directory(tmp_path / "work", "a"):
        (tmp_path / "work" / "users").mkdir()
    with work_directory(tmp_path / "work", "a"):
        assert (tmp_path / "work" / "users").exists()
    with work_directory(tmp_path / "work", "b"):
        assert not (tmp_path / "work" / "users").exists()


@pytest.mark.slow
def test_killed_in_every_stage_with_worker_processes(log: tuple[Path, dict[str, str]]) -> None:
    root, whole = log
    (root / "spec.yaml").write_text(dump_yaml({**RATINGS, "source": {**RATINGS["source"], "path": "raw"}}))
    out = root / "killed"
    command = [
        sys.executable, "-m", "pipelines.cli", "prepare", "--spec", str(root / "spec.yaml"),
        "--out", str(out),
        "--source", str(root / "raw"),
        "--partitions", "2", "--workers", "2",
    ]  # fmt: skip
    stages = ("ingest", "users", "rows", "count-0", "encode-rows", "store")
    for point in (*(f"task.{stage}.after_rename:1" for stage in stages), "dataset.before_rename"):
        fault = {"CTR_FAULT": f"{point}:kill"}
        killed = subprocess.run(
            command, env={**os.environ, **fault}, capture_output=True, text=True, timeout=300
        )
        assert killed.returncode != 0, killed.stderr
        assert not out.exists()
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = written(out)
    told = ("manifest.json", "spec.yaml", "origin.arrow")  # they name the source
    assert {n: h for n, h in found.items() if n not in told} == {
        n: h for n, h in whole.items() if n not in told
    }
