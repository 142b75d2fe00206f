"""A run of a fraction of a second: its data set, its configuration, and what must be equal at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ctr.checkpoint.checkpoint import MANIFEST, steps
from ctr.config import RunConfig, parse_config
from ctr.runs.journal import comparable, read_rows
from features.safe_yaml import apply_overrides, dump_yaml
from tests.ctr.dataset_fixture import Sizes, write_dataset

SIZES = Sizes(users=9, requests=30, rows=3, events=8, max_len=6)
STEPS_PER_EPOCH = 6  # of about 60 rows in batches of at most 12
# M = 1 group and N = 2 queries: T = 3 divides d_model 12.
SETTINGS: dict[str, Any] = {
    "model": {"d_model": 12, "heads": 2, "layers": 1, "head_hidden": [8]},
    "embedding": {"dim": 4},
    "optimizer": {"warmup_steps": 3, "lr": 0.01},
    "loader": {"batch_rows": 12, "window": 16},
    "train": {"epochs": 2, "device": "cpu"},
    "tracking": {"uri": None, "log_every": 2},
}


def tiny_dataset(folder: Path) -> Path:
    """Write the data set below a folder."""
    return write_dataset(folder / "dataset", SIZES, seed=1)


def settings(dataset: Path, run: Path, *overrides: str) -> dict[str, Any]:
    """The plain data of a run's configuration, with overrides like `train.epochs=3`."""
    return apply_overrides({"dataset": str(dataset), "run": str(run), **SETTINGS}, list(overrides))


def tiny_config(dataset: Path, run: Path, *overrides: str) -> RunConfig:
    """The configuration of a run."""
    return parse_config(settings(dataset, run, *overrides))


def write_config(path: Path, dataset: Path, run: Path, *overrides: str) -> Path:
    """The configuration as a YAML file."""
    path.write_text(dump_yaml(settings(dataset, run, *overrides)))
    return path


def outcome_of(run: Path) -> dict[str, Any]:
    """What two runs must have in common bit by bit: hashes of the last checkpoint, its steps, the journal."""
    found = steps(run / "checkpoints")
    manifest = json.loads((run / "checkpoints" / f"step-{found[-1]}" / MANIFEST).read_text())
    hashes = {name: file["sha256"] for name, file in manifest["files"].items()}
    journal = [row for row in comparable(read_rows(run / "journal.jsonl")) if row["kind"] != "run"]
    return {"steps": found, "hashes": hashes, "journal": journal}  # the row "run" names the directory


def endings(run: Path) -> list[str]:
    """How the sessions of a run ended, as tracking was told."""
    rows = [row["wall"] for row in read_rows(run / "journal.jsonl") if row["kind"] == "session"]
    return [wall["status"] for wall in rows if wall["event"] == "end"]
