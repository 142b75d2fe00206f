from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from ctr.errors import LockedError, RetryableError
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker, sync
from ctr.tracking import replica as replica_module
from ctr.tracking.replica import Replica
from ctr.tracking.rows import metric_key, params, points
from ctr.tracking.tracked_run import keep_run, known_run
from tests.ctr.fake_mlflow import FakeServer, install

A, B = "fake:a", "fake:b"
SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # seconds; attempts


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.open(tmp_path / "runs" / "demo") as opened:
        yield opened


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeServer]:
    both = {A: FakeServer(), B: FakeServer()}
    install(monkeypatch, both)
    return both


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


# What a row becomes.


def test_only_finite_numbers_become_metrics(run: RunDir) -> None:
    row = run.journal.write(
        "valid",
        4,
        auc=0.7,
        ok=True,
        none=None,
        nan=float("nan"),
        text="x",
        roc=[1, 2],
        slices={"new": {"auc": 1}},
    )
    assert {p.key: p.value for p in points(row)} == {
        "valid/auc": 0.7,
        "valid/ok": 1.0,
        "valid/slices/new/auc": 1.0,
    }
    assert list(points(run.journal.write("artifact", 4, path="x", size=3))) == []


def test_metric_keys_are_safe_and_stay_apart() -> None:
    assert metric_key("a/../b//c") == "a/_/b/_/c"
    assert metric_key("x=1") != metric_key("x+1")
    assert len(metric_key("x" * 999)) == 250


def test_params_are_cut_and_hide_passwords() -> None:
    flat = params({"a": {"b": "x" * 7000, "c": {}}, "uri": "https://user:secret@host:5000/p"})
    assert len(flat["a.b"]) == 6000 and flat["a.b"].endswith("…")
    assert flat["uri"] == "https://host:5000/p" and flat["a.c"] == "{}"


# What reaches MLflow, whatever happens in between.


def test_replay_equals_a_server_that_was_never_away(run: RunDir, servers: dict[str, FakeServer]) -> None:
    always = replica(run, A)
    for step in range(1, 8):
        steps(run, step, step)
        run.journal.write("system", step // 3, wall={"rss_mib": step})
        always.pump()
    replica(run, B).pump()
    assert servers[A].run.values() == servers[B].run.values()
    assert len(servers[A].run.metrics) == 7 * 3


def test_a_resumed_run_sends_each_step_once_to_the_same_run(
    run: RunDir, servers: dict[str, FakeServer]
) -> None:
    steps(run, 1, 5)
    replica(run, A).pump()
    run.journal.truncate_after(2)
    steps(run, 3, 8)
    replica(run, A).pump()
    keys = [(key, step) for key, step, _ in servers[A].run.values()]
    assert sorted(keys) == sorted((key, s) for key in ("train/loss", "train/rows_per_s") for s in range(1, 9))


@pytest.mark.fault(28)
@pytest.mark.parametrize("hook", ["before", "after"])
def test_a_server_that_dies_in_a_batch_loses_and_repeats_nothing(
    run: RunDir, servers: dict[str, FakeServer], hook: str
) -> None:
    steps(run, 1, 2500)
    replica(run, B).pump()
    flaky = replica(run, A)
    setattr(servers[A], hook, failing(2))
    with pytest.raises(ConnectionError):
        flaky.pump()
    setattr(servers[A], hook, lambda: None)
    flaky.pump()
    assert flaky.is_complete()
    assert servers[A].run.values() == servers[B].run.values() and len(servers[A].run.metrics) == 5000


def test_a_second_evaluation_of_a_step_is_sent_too(run: RunDir, servers: dict[str, FakeServer]) -> None:
    for value in (0.7, 0.8):
        run.journal.write("test", 5, auc=value)
        replica(run, A).pump()
    assert servers[A].run.values() == [("test/auc", 5, 0.7), ("test/auc", 5, 0.8)]


def test_a_run_carries_config_dataset_tags_and_artifacts(run: RunDir, servers: dict[str, FakeServer]) -> None:
    config = {"model": {f"p{i}": i for i in range(250)}}
    data = {"name": "ml", "sha256": "ab" * 32, "source": "somewhere", "rows": 3}
    with Tracker(run, uri=A, config=config, dataset=data, tags={"team": "x"}, system_seconds=0) as tracker:
        tracker.resume_at(0)
        (run.report / "index.html").write_text("x")
        run.config.write_text("a: 1")
        tracker.artifact(run.report)
        tracker.artifact(run.config)
    found = servers[A].run
    assert (tracker.run_id, found.name, found.info.status) == (found.info.run_id, "demo", "FINISHED")
    assert len(found.params) == 250 and found.params["model.p7"] == "7"
    assert found.tags["team"] == "x" and found.tags["host"] == socket.gethostname()
    assert [entry.tags["sha256"] for entry in found.inputs] == ["ab" * 32]
    assert found.artifacts == [(str(run.report), "report"), (str(run.config), None)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(4), "FAILED"),
    ],
)
def test_status_tells_how_the_run_ended(
    run: RunDir, servers: dict[str, FakeServer], error: BaseException | None, status: str
) -> None:
    try:
        with Tracker(run, uri=A, system_seconds=0) as tracker:
            tracker.resume_at(0)
            if error:
                raise error
    except BaseException as caught:
        assert caught is error
    assert servers[A].run.info.status == status
    assert read_rows(run.journal_file)[-1]["wall"]["status"] == status


@pytest.mark.fault(28)
def test_tracker_catches_up_when_the_server_comes_back(
    run: RunDir, servers: dict[str, FakeServer], caplog: pytest.LogCaptureFixture
) -> None:
    servers[A].before = down
    tracker = Tracker(run, uri=A, flush_seconds=0.01, system_seconds=0)
    tracker.resume_at(0)
    for step in range(1, 50):
        tracker.log("train", step, {"loss": step})
    while "cannot be used now" not in caplog.text:
        time.sleep(0.01)
    servers[A].before = lambda: None
    assert tracker.close()
    assert len(servers[A].run.metrics) == 49 and caplog.text.count("cannot be used now") == 1


def test_journal_of_a_resumed_session_keeps_what_the_run_is_once(run: RunDir) -> None:
    for step in (0, 3):
        run.journal.write("train", 3)
        tracker = Tracker(run, uri=None, config={"a": 1}, system_seconds=0)
        tracker.resume_at(step)
        tracker.log("train", step + 3, {})
        tracker.close()
    kinds = [(row["kind"], row["step"]) for row in read_rows(run.journal_file)]
    assert (
        kinds.count(("run", 0)) == 1
        and kinds[0] == ("run", 0)
        and kinds[-2:] == [("train", 6), ("session", 6)]
    )


def test_system_metrics_are_sampled(run: RunDir) -> None:
    with Tracker(run, uri=None, system_seconds=0.01) as tracker:
        tracker.resume_at(0)
        tracker.log("train", 1, {})
        while not (rows := [row for row in read_rows(run.journal_file) if row["kind"] == "system"]):
            time.sleep(0.01)
    assert rows[0]["wall"]["rss_mib"] > 1 and {"cpu_percent", "threads"} <= rows[0]["wall"].keys()


# Servers that are not there.


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
    servers[A].before = lambda: hold.wait() and None
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


# ctr sync.


def test_sync_marks_a_crashed_run_failed_and_respects_the_lock(
    tmp_path: Path, servers: dict[str, FakeServer]
) -> None:
    with RunDir.open(tmp_path / "demo") as run:
        run.journal.write("session", 0, wall={"event": "start", "pid": 1, "host": "h", "commit": None})
        steps(run, 1, 2)
        with pytest.raises(LockedError):
            sync(run.path, A)
    sync(tmp_path / "demo", A)
    assert servers[A].run.info.status == "FAILED"


def test_a_copied_run_directory_is_another_run(run: RunDir) -> None:
    tracked = keep_run(run, experiment="ctr", uri=A)
    assert known_run(run) == tracked == keep_run(run, experiment="ctr", uri=A)
    with RunDir.open(run.path.with_name("copy")) as copy:
        copy.tracking_file.write_bytes(run.tracking_file.read_bytes())
        assert known_run(copy) is None
        assert keep_run(copy, experiment="ctr", uri=A).uid != tracked.uid


def test_a_later_session_asks_only_for_keys_that_are_there(
    run: RunDir, servers: dict[str, FakeServer]
) -> None:
    """Hundreds of new figures of a report must not cost a question each."""
    steps(run, 1, 3)
    replica(run, A).pump()
    parts = [{"name": ["kind", str(i)], "figures": {"auc": 0.5, "auc_low": 0.4}} for i in range(200)]
    run.journal.write("slices", 3, split="test", parts=parts)
    again = replica(run, A)
    again.pump()
    assert again.sent == 400
    assert set(servers[A].run.asked) == {"train/loss", "train/rows_per_s"}
    third = replica(run, A)
    third.pump()
    assert third.sent == 0


def test_a_model_is_sent_once(
    run: RunDir, servers: dict[str, FakeServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[Path, str, str]] = []

    @contextmanager
    def saved(config: Path, checkpoint: Path, *, dataset: str, opener: str) -> Iterator[Path]:
        made.append((checkpoint, dataset, opener))
        yield tmp_path

    monkeypatch.setattr(replica_module, "saved_model", saved)
    checkpoint = run.checkpoints / "step-3"
    checkpoint.mkdir()
    with Tracker(run, uri=A, system_seconds=0) as tracker:
        tracker.begin(3)
        tracker.model(checkpoint, dataset=tmp_path, opener="some.module:opener")
        tracker.model(run.checkpoints / "step-9", dataset=tmp_path, opener="some.module:opener")  # pruned
    assert made == [(run.path / "checkpoints/step-3", str(tmp_path), "some.module:opener")]
    assert servers[A].run.artifacts == [(str(tmp_path), "model")]
    replica(run, A).pump()
    assert len(made) == 1


def test_sync_tells_a_server_that_is_away_from_one_that_refuses(
    run: RunDir, servers: dict[str, FakeServer]
) -> None:
    def refuse() -> None:
        raise RuntimeError("RESOURCE_DOES_NOT_EXIST: no such thing")

    steps(run, 1, 2)
    run.close()
    for hook, says, not_ in ((refuse, "correct what it refuses", "start it"), (down, "start it", "refuses")):
        servers[A].before = hook
        with pytest.raises(RetryableError, match=says) as caught:
            sync(run.path, A)
        assert not_ not in str(caught.value)
