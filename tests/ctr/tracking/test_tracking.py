"""What reaches MLflow, whatever happens in between."""

from __future__ import annotations

import socket
import time

import pytest

from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker
from tests.ctr.fake_mlflow import FakeServer
from tests.ctr.tracking.sending import A, B, down, failing, replica, steps


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
