from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import torch

from ctr.errors import LockedError, RetryableError
from ctr.runs.directory import RunDir
from ctr.runs.journal import Journal, comparable, read_from, read_rows
from features.durable.own import MARKER
from features.errors import ConfigError, DataError

OpenJournal = Callable[[str], Journal]

HOLD = """
import sys, time
from ctr.runs.directory import RunDir
run = RunDir.open(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[OpenJournal]:
    """Opens journals by file name and closes them after the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(Journal(tmp_path / name)))


def test_open_makes_the_directory_and_leaves_no_probe(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "runs" / "a") as run:
        assert run.checkpoints.is_dir() and run.predictions.is_dir() and run.report.is_dir()
    names = {path.name for path in run.path.iterdir()}
    assert names == {MARKER, "checkpoints", "predictions", "report", "lock", "results.lock", "journal.jsonl"}


def test_open_sweeps_unfinished_files_and_keeps_the_rest(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "a")
    run.close()
    (run.checkpoints / ".tmp-step-3-ab").mkdir()
    (run.checkpoints / ".tmp-step-3-ab" / "tensors.safetensors").write_bytes(b"half")
    (run.predictions / ".tmp-test.parquet").write_bytes(b"half")
    (run.predictions / "test.parquet").write_bytes(b"whole")
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.path / ".tmp-link").symlink_to(outside)
    RunDir.open(run.path).close()
    assert not list(run.path.rglob(".tmp-*"))
    assert (run.predictions / "test.parquet").exists() and outside.is_dir()


@pytest.mark.fault(26)
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"must be writable, got .*Not a directory"):
        RunDir.open(tmp_path / "file" / "a")
    with pytest.raises(ConfigError, match="must be the directory of a run"):
        RunDir.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


@pytest.mark.fault(29)
def test_second_job_is_told_who_holds_the_run_and_kill_frees_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(
        LockedError, match=rf"process {holder.pid} on host {socket.gethostname()}, started 20"
    ) as caught:
        RunDir.open(tmp_path / "a")
    assert caught.value.exit_code == 6
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    RunDir.open(tmp_path / "a").close()


def test_lock_also_holds_within_one_process_and_is_freed_by_close(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "a"), pytest.raises(LockedError):
        RunDir.open(tmp_path / "a")
    RunDir.open(tmp_path / "a").close()


def test_rows_come_back_as_written(open_journal: OpenJournal) -> None:
    journal = open_journal("j")
    journal.write(
        "train", 1, loss=torch.tensor(0.5), slices={"new": {"auc": 0.1 + 0.2}}, wall={"rows_per_s": 10}
    )
    row = read_rows(journal.path)[0]
    assert row.pop("wall").keys() == {"time", "rows_per_s"}
    assert row == {"kind": "train", "step": 1, "loss": 0.5, "slices": {"new": {"auc": 0.1 + 0.2}}}


def test_not_finite_values_become_null_with_a_reason(open_journal: OpenJournal) -> None:
    journal = open_journal("j")
    journal.write("train", 1, loss=math.nan, by={"a": [1.0, math.inf]}, wall={"speed": -math.inf})
    text = journal.path.read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (row["loss"], row["by"], row["wall"]["speed"]) == (None, {"a": [1.0, None]}, None)
    assert row["not_finite"] == {"loss": "nan", "by/a/1": "inf", "wall/speed": "-inf"}


def test_reserved_names_are_refused(open_journal: OpenJournal) -> None:
    with pytest.raises(ValueError, match="not_finite"):
        open_journal("j").write("train", 1, not_finite=3)


@pytest.mark.parametrize("torn", [b'{"kind": "train", "st', b'{"kind": "train"}\n', b"\x00\x00\n", b"null\n"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, open_journal: OpenJournal, torn: bytes) -> None:
    open_journal("j").write("train", 1, loss=0.5)
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + torn)
    assert [row["step"] for row in read_rows(tmp_path / "j")] == [1]
    journal = open_journal("j")
    assert (tmp_path / "j").read_bytes() == whole
    journal.write("train", 2)
    assert [row["step"] for row in read_rows(tmp_path / "j")] == [1, 2]


def test_damage_before_the_last_line_is_an_error(open_journal: OpenJournal) -> None:
    journal = open_journal("j")
    journal.write("train", 1)
    journal.path.write_bytes(b"oops\n" + journal.path.read_bytes())
    with pytest.raises(DataError, match=r"line 1 .*got b'oops\\n'"):
        read_rows(journal.path)


def test_resumed_journal_equals_the_uninterrupted_one(tmp_path: Path, open_journal: OpenJournal) -> None:
    def steps(journal: Journal, first: int, last: int) -> None:
        journal.write("session", first - 1, wall={"event": "start"})
        journal.write("artifact", first - 1, path="config.yaml")
        for step in range(first, last + 1):
            journal.write("train", step, loss=1 / step)
            if step % 2 == 0:
                journal.write("valid", step, auc=step / 10)

    straight, killed = open_journal("a"), open_journal("b")
    steps(straight, 1, 6)
    steps(killed, 1, 5)
    resumed = open_journal("b")
    assert resumed.truncate_after(2) == 4
    steps(resumed, 3, 6)
    assert comparable(read_rows(tmp_path / "a")) == comparable(read_rows(tmp_path / "b"))
    assert resumed.truncate_after(6) == 0
    resumed.sync()


def test_reading_goes_on_from_an_offset(open_journal: OpenJournal) -> None:
    journal = open_journal("j")
    for step in range(5):
        journal.write("train", step)
    first, offset = read_from(journal.path, 0, limit=2)
    rest, end = read_from(journal.path, offset, limit=10)
    assert [row["step"] for row in first + rest] == [0, 1, 2, 3, 4]
    assert end == journal.path.stat().st_size and read_from(journal.path, end, limit=1) == ([], end)


@pytest.mark.fault(26)
def test_a_deleted_journal_is_noticed_at_the_next_sync(open_journal: OpenJournal) -> None:
    journal = open_journal("j")
    journal.write("train", 1)
    journal.path.unlink()
    with pytest.raises(RetryableError, match="must be writable"):
        journal.sync()


@pytest.mark.fault(25)
def test_a_full_disk_leaves_whole_rows_only(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from ctr.runs.journal import Journal\n"
        "j = Journal(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for step in range(100): j.write('train', step, text='x' * 50)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], capture_output=True, text=True)
    assert "RetryableError" in done.stderr
    data = (tmp_path / "j").read_bytes()
    assert data.endswith(b"}\n") and len(read_rows(tmp_path / "j")) == data.count(b"\n") > 3


def test_lock_file_stays_so_that_two_jobs_cannot_lock_two_files(tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "a") as run:
        before = os.stat(run.path / "lock").st_ino
    with RunDir.open(tmp_path / "a"):
        assert os.stat(run.path / "lock").st_ino == before
