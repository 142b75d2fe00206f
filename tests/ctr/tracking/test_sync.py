"""`ctr sync`: whose run it is, what is sent once, and servers that refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctr.errors import LockedError, RetryableError
from ctr.runs.directory import RunDir
from ctr.tracking import Tracker, sync
from ctr.tracking import replica as replica_module
from ctr.tracking.tracked_run import keep_run, known_run
from tests.ctr.fake_mlflow import FakeServer
from tests.ctr.tracking.sending import A, down, replica, steps


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
