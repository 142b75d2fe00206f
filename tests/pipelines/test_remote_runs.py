"""Runs and data sets in an object store: trained to it, and scored from it on a machine that has neither."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ctr.distributed.world import World
from features.durable.faults import injected
from features.errors import ConfigError
from pipelines.cli import main
from pipelines.train import check_alone
from tests.ctr.tiny_run import tiny_config, tiny_dataset, write_config
from tests.object_store import Bucket


def forget(cache: Path) -> None:
    """As on another machine."""
    shutil.rmtree(cache)


@pytest.mark.slow
def test_train_go_on_and_score_from_the_store(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run, data = tiny_dataset(tmp_path), f"{bucket.url}/runs/tiny", f"{bucket.url}/sets/tiny"
    bucket.put_all(folder, "sets/tiny")
    options = "train.max_steps=4", "train.checkpoint_every=2"
    here = write_config(tmp_path / "here.yaml", folder, tmp_path / "here", *options)
    assert main(["train", str(here)]) == 0 and main(["predict", str(tmp_path / "here")]) == 0
    config = write_config(tmp_path / "far.yaml", Path("data"), Path("run"), *options)
    place = ["--set", f"run={run}", "--set", f"dataset={data}"]
    with injected("step:3:raise"):
        assert main(["train", str(config), *place]) == 1
    there = bucket.listing("runs/tiny")
    assert "runs/tiny/journal.jsonl" in there and any("checkpoints/step-2/" in name for name in there)
    assert not any(name.endswith("lock") or "/.tmp" in name for name in there)
    assert "test-secret-key" not in bucket.read("runs/tiny/journal.jsonl").decode()
    assert data in bucket.read("runs/tiny/journal.jsonl").decode()

    monkeypatch.setenv("CTR_CACHE", str(tmp_path / "other-machine"))
    assert main(["train", str(config), *place]) == 0
    forget(tmp_path / "other-machine")
    assert main(["predict", run]) == 0
    own = (tmp_path / "here/predictions/test.parquet").read_bytes()
    assert bucket.read("runs/tiny/predictions/test.parquet") == own
    capsys.readouterr()
    assert main(["score", run, "--split", "test", "--out", f"{bucket.url}/scores.parquet"]) == 2
    told = capsys.readouterr().err
    assert f"out of ctr score must be on this machine, got {bucket.url}/scores.parquet" in told
    assert not (Path.cwd() / "s3:").exists()


def test_both_sides_changed(tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "run.yaml", tiny_dataset(tmp_path), Path("run"), "train.max_steps=2")
    run = f"{bucket.url}/runs/tiny"
    assert main(["train", str(config), "--set", f"run={run}"]) == 0
    assert "runs/tiny/journal.jsonl" in bucket.listing("runs/tiny")
    (journal,) = (tmp_path / "cache/runs").rglob("journal.jsonl")
    journal.write_bytes(journal.read_bytes() + b"\n")
    bucket.put("runs/tiny/journal.jsonl", b"of another machine")
    capsys.readouterr()
    assert main(["predict", run]) == 3
    assert f"{run}/journal.jsonl has changed there and in its working copy" in capsys.readouterr().err


def test_several_processes_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, Path("run"), "run=s3://bucket/run")
    world = World(rank=0, size=2, local_rank=0, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="is trained by one process, got 2"):
        check_alone(config, world)
