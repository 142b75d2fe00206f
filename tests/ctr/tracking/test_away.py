"""Servers that are down, hang or never answer: no row waits for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from ctr.errors import RetryableError
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker, sync
from ctr.tracking import replica as replica_module
from tests.ctr.fake_mlflow import FakeServer
from tests.ctr.tracking.sending import A, replica

SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # seconds; attempts


@pytest.mark.fault(27)
def test_closed_port_warns_trains_on_and_sync_replays(
    tmp_path: Path, servers: dict[str, FakeServer], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}"
    with RunDir.open(tmp_path / "demo") as run:
        tracker = Tracker(run, uri=uri, system_seconds=0)
        tracker.resume_at(0)
        for step in range(1, 4):
            tracker.log("train", step, {"loss": 1 / step})
        assert not tracker.close()
    assert "cannot be used now" in caplog.text and "ctr sync" in caplog.text and "secret" not in caplog.text
    with pytest.raises(RetryableError, match=r"MLflow at http://127.* must take the rows"):
        sync(tmp_path / "demo")
    assert sync(tmp_path / "demo", A) == 3
    assert sync(tmp_path / "demo", A) == 0
    assert [value for *_, value in servers[A].run.values()] == [1.0, 0.5, 1 / 3]
    assert servers[A].run.info.status == "FINISHED"


@pytest.mark.fault(28)
def test_a_server_that_never_answers_holds_nothing_up(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_module, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = Tracker(run, uri=f"http://127.0.0.1:{silent.getsockname()[1]}", system_seconds=0)
        tracker.resume_at(0)
        for step in range(100):
            tracker.log("train", step, {"loss": 1.0})
        assert not tracker.close(timeout=5.0)
    assert "TimeoutError" in caplog.text
    assert sum(row["kind"] == "train" for row in read_rows(run.journal_file)) == 100


@pytest.mark.fault(27, 28)
@pytest.mark.parametrize("answered", [0, 2], ids=["from the start", "in the middle"])
def test_no_row_waits_for_a_server_that_hangs(
    run: RunDir, servers: dict[str, FakeServer], answered: int, counted: Callable[..., None]
) -> None:
    """Rows are written while a call hangs, by a thread that never calls the server itself."""
    callers, hanging, hold = list[str](), threading.Event(), threading.Event()

    def hang() -> None:
        callers.append(threading.current_thread().name)
        if len(callers) > answered:
            hanging.set()
            hold.wait()

    servers[A].before = hang
    tracker = Tracker(run, uri=A, flush_seconds=0, system_seconds=0)
    written = 0

    def train() -> None:
        nonlocal written
        tracker.resume_at(0)
        behind = 0
        while behind < 100:  # rows written while the server hangs
            behind += hanging.is_set()
            written += 1
            tracker.log("train", written, {"loss": 1.0})
            tracker.flush()

    training = threading.Thread(target=train, name="training", daemon=True)
    training.start()
    training.join(60)
    waiting = training.is_alive()
    hold.set()
    assert not waiting, "a row waited for the server"
    assert tracker.close()
    assert callers.count("training") == 0 and set(callers) == {"ctr-mlflow"}
    assert [step for key, step, _ in servers[A].run.values()] == list(range(1, written + 1))
    counted(rows_beside_a_hanging_server=100, waits=callers.count("training"))


@pytest.mark.fault(27)
def test_a_server_that_is_down_is_given_up_within_five_seconds(
    run: RunDir, servers: dict[str, FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time-outs that are set, one attempt each: nobody waits here."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    asked: list[tuple[str, float]] = []

    def refused(url: str, timeout: float) -> None:
        asked.append((url, timeout))
        raise URLError("refused")

    monkeypatch.setattr(replica_module, "urlopen", refused)
    tracked = replica(run, "http://127.0.0.1:9")
    with pytest.raises(URLError):
        tracked.pump()
    assert asked == [("http://127.0.0.1:9/health", 3.0)]
    replica(run, A).pump()
    assert {name: os.environ[name] for name in SETTINGS} == SETTINGS


@pytest.mark.fault(28)
def test_close_does_not_wait_longer_than_told(run: RunDir, servers: dict[str, FakeServer]) -> None:
    hold = threading.Event()

    def wait() -> None:
        hold.wait()

    servers[A].before = wait
    tracker = Tracker(run, uri=A, system_seconds=0)
    tracker.resume_at(0)
    assert not tracker.close(timeout=0.05)
    hold.set()
    for thread in threading.enumerate():
        if thread.name == "ctr-mlflow":
            thread.join()


def test_journal_alone_never_imports_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from ctr.runs.directory import RunDir; from ctr.tracking import Tracker\n"
        "with RunDir.open(sys.argv[1]) as run, Tracker(run, uri=None) as tracker: tracker.resume_at(0)\n"
        "print(sorted(sys.modules.keys() & {'mlflow', 'torch'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
