"""The SQLite store of MLflow: four first jobs at once, a kill while it is made, stores that are broken."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctr.runs.directory import RunDir
from ctr.tracking import Tracker, sync
from ctr.tracking.store import StoreError, check_whole, find_experiment
from tests.ctr.fake_mlflow import install
from tests.forks import Done, Fork, run_command, start


def jobs_of(paths: list[Path]) -> None:
    """Jobs in run directories, one after the other."""
    for path in paths:
        with RunDir.open(path) as run, Tracker(run, system_seconds=0) as tracker:
            tracker.begin(0)
            tracker.log("train", 1, {"loss": 0.5})
            assert tracker.close(timeout=120)


def first_jobs(*groups: list[Path]) -> list[Fork]:
    """A process per group, which runs a job in each of the group's directories."""
    return [start(jobs_of, group) for group in groups]


def break_store(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE _alembic_tmp_runs (run_id TEXT)")
        database.commit()


def values(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM metrics").fetchone()[0])


@pytest.mark.fault(37)
@pytest.mark.slow
def test_four_first_jobs_share_one_store(tmp_path: Path) -> None:
    """Each of three stores is used first by the same four processes at about the same moment."""
    stores = [tmp_path / "one", tmp_path / "two", tmp_path / "a ?%3F#100%" / "three"]
    runs = [[store / f"job{j}" for store in stores] for j in range(4)]
    for job in first_jobs(*runs):
        assert job.end() == Done(0, "", "")
    for store in stores:
        file = store / "mlflow.db"
        check_whole(file)
        assert values(file) == 4
        assert not file.with_name("mlflow.db.new").exists()


@pytest.mark.fault(37)
@pytest.mark.slow
def test_a_job_killed_while_it_makes_the_store_leaves_none(tmp_path: Path) -> None:
    new = tmp_path / "mlflow.db.new"
    [job] = first_jobs([tmp_path / "killed"])
    deadline = time.monotonic() + 120
    while (
        not (new.exists() and new.stat().st_size) and time.monotonic() < deadline and job.process.is_alive()
    ):
        time.sleep(0.001)
    job.process.kill()
    assert job.end().code == -signal.SIGKILL
    assert new.exists() and not (tmp_path / "mlflow.db").exists()
    [job] = first_jobs([tmp_path / "next"])
    assert job.end() == Done(0, "", "")
    check_whole(tmp_path / "mlflow.db")
    assert values(tmp_path / "mlflow.db") == 1 and not new.exists()


@pytest.mark.fault(37)
@pytest.mark.slow
def test_a_broken_store_is_named_and_its_remedy_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "mlflow.db"
    [job] = first_jobs([first])
    assert job.end() == Done(0, "", "")
    break_store(file)
    with RunDir.open(second) as run, Tracker(run, system_seconds=0) as tracker:  # training goes on
        tracker.begin(0)
        tracker.log("train", 1, {"loss": 0.5})
        assert not tracker.close()
    assert "_alembic_tmp_runs" in caplog.text
    with pytest.raises(StoreError, match=r"Move it away, and run `ctr sync RUN`.*: mv '.*' '.*\.broken'$"):
        sync(second)
    shutil.move(file, f"{file}.broken")  # as the message says
    for path in (first, second):
        assert run_command("sync", str(path)).code == 0
    assert values(file) == 2


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"a web page, not a database" * 9)
    with pytest.raises(StoreError, match=r"must be MLflow's SQLite store, got .*not a database"):
        check_whole(file)


def test_a_deleted_experiment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {})
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: SimpleNamespace(experiment_id="7", lifecycle_stage="deleted")
    )
    with pytest.raises(StoreError, match=r"'ctr' must not be deleted, but is \(ID 7\).*restore -x 7"):
        find_experiment(client, "ctr", place=None)  # type: ignore[arg-type]


@pytest.mark.fault(37)
def test_an_experiment_that_another_job_just_made_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {})
    made: list[Any] = [None, SimpleNamespace(experiment_id="3", lifecycle_stage="active")]

    def create(name: str, artifact_location: str | None) -> str:
        error = RuntimeError("exists")  # as the fake MLflow's exception
        error.error_code = "RESOURCE_ALREADY_EXISTS"  # type: ignore[attr-defined]
        raise error

    client = SimpleNamespace(get_experiment_by_name=lambda name: made.pop(0), create_experiment=create)
    assert find_experiment(client, "ctr", place=None) == "3"  # type: ignore[arg-type]
