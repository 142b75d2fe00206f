"""A run that is being trained may be evaluated, predicted and scored."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctr.checkpoint.directories import steps
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config, tiny_dataset, write_config

ENDLESS = ("train.epochs=100000", "train.checkpoint_every=1", "train.evaluate_every=7", "train.keep_last=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("run")
    train(tiny_config(tiny_dataset(folder), folder / "run", "train.max_steps=3"))
    return folder / "run"


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_results_need_no_lock_of_the_training(
    command: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its journal is left alone meanwhile, and hears of an evaluation afterwards."""
    before = read_rows(run / "journal.jsonl")
    with RunDir.open(run):
        assert main([command, str(run)]) == 0
        assert read_rows(run / "journal.jsonl") == before
    assert (run / "predictions" / "test.parquet").exists()
    assert ("is being trained: its journal and MLflow do not hear" in caplog.text) == (command == "evaluate")
    if command == "evaluate":
        assert main([command, str(run)]) == 0
        assert {row["kind"] for row in read_rows(run / "journal.jsonl")[len(before) :]} > {"test"}


def test_two_evaluations_do_not_write_one_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir.open_results(run) as held:
        (held.predictions / ".tmp-test.parquet").write_bytes(b"half")
        assert main(["predict", str(run)]) == 6
        assert "one job at a time" in capsys.readouterr().err
        with RunDir.open(run):  # a training begins, and sweeps nothing of what is being written
            assert (held.predictions / ".tmp-test.parquet").exists()
            assert not held.record()
        assert held.record()
    RunDir.open(run).close()
    assert not (run / "predictions" / ".tmp-test.parquet").exists()


def test_a_row_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind":"train","step":1}\n{"kind":"tr')
    assert [row["step"] for row in read_rows(path)] == [1]


@pytest.mark.slow
@pytest.mark.fault(43)
def test_commands_beside_a_training_that_saves_every_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, path = tiny_dataset(tmp_path), tmp_path / "run"
    config = write_config(tmp_path / "run.yaml", dataset, path, *ENDLESS)
    command = [sys.executable, "-m", "pipelines.cli", "train", str(config)]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE) as job:
        try:
            while len(steps(path / "checkpoints")) < 2 and job.poll() is None:
                time.sleep(0.05)
            first = steps(path / "checkpoints")
            for out in range(4):
                for name in ("predict", "evaluate"):
                    assert main([name, str(path), "--checkpoint", ("best", "last")[out % 2]]) == 0
                scores = str(tmp_path / f"scores-{out}.parquet")
                assert main(["score", str(path), "--split", "test", "--out", scores]) == 0
            assert job.poll() is None and steps(path / "checkpoints") > first
        finally:
            job.kill()
    assert "damaged" not in caplog.text and "stepping back" not in caplog.text
