"""A small prepared log and ablation plans for it, for tests that train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.ablate.ablation import Ablation
from ctr.ablate.plan import Plan, parse_plan
from ctr.ablate.task import Task
from ctr.config import dump_config
from ctr.tracking import replica
from features.prepare import prepare
from features.spec import load_spec
from features.synthetic import simulate
from tests.ctr.fake_mlflow import FakeRun, FakeServer, install

SPEC = Path(__file__).resolve().parents[3] / "pipelines" / "configs" / "specs" / "simulator.yaml"
BASE: dict[str, Any] = {
    "model": {"d_model": 8, "layers": 1, "heads": 2, "head_hidden": [8]},
    "embedding": {"dim": 4},
    "optimizer": {"warmup_steps": 2, "lr": 0.01},
    "loader": {"batch_rows": 128, "max_len": {"view": 8, "cart": 4, "search": 4}},
    "train": {"epochs": 1, "device": "cpu"},
    "tracking": {"uri": None, "log_every": 4},
}


def small_log(folder: Path) -> Path:
    """Simulate and prepare: about 1,300, 190 and 370 rows in train, valid and test."""
    log = folder / "log"
    sizes = {"users": 80, "items": 200, "days": 6, "requests_per_user": 6, "candidates": 4}
    simulate(log, **sizes, events_per_user=20, seed=1)
    spec = load_spec(SPEC)
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"path": str(log)})})
    prepare(spec, folder / "dataset", base=folder)
    return folder / "dataset"


def small_plan(dataset: Path, out: Path, **changes: Any) -> Plan:
    """Two variants, one of them without a training; one seed, two windows."""
    content: dict[str, Any] = {
        "name": "small",
        "base": {"dataset": str(dataset), **BASE},
        "out": str(out),
        "windows": 2,
        "metrics": ["auc", "ne"],
        "variants": {"short": {"max_len": 2}, "permuted": {"permute": ["group:match", "view"]}},
    }
    return parse_plan({**content, **changes})


class Inline:
    """A worker that does its task in this process, at once."""

    def __init__(self, task: Task, work: Callable[[Task], int]) -> None:
        self.code = work(task)

    def poll(self) -> int:
        return self.code

    def stop(self) -> None:
        return None


def pretend(task: Task, predictions: dict[str, Any], **cost: float) -> int:
    """What a training would have left: its configuration, the cost in its journal, its predictions."""
    run = Path(task.config.run)
    (run / "predictions").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(dump_config(task.config))
    cost = {"dense_parameters": 10.0, "embedding_parameters": 90.0, "flops_per_row": 100.0, **cost}
    rows = [{"kind": "run", "step": 0, "params": {}, "dataset": {}, "tags": {}, "wall": {"time": 1.0}},
            {"kind": "cost", "step": 1, **cost, "wall": {"time": 1.0, "peak_mib": 1.0}}]  # fmt: skip
    (run / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.table(predictions), run / "predictions" / "test.parquet")
    return 0


def open_small(dataset: Path, out: Path, **changes: Any) -> Ablation:
    return Ablation.open(small_plan(dataset, out, **changes))


def fake_server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """An MLflow server in this process, at fake:a."""
    server = FakeServer()
    install(monkeypatch, {"fake:a": server})
    monkeypatch.setattr(replica, "_check_answers", lambda uri: None)
    return server


def family(server: FakeServer, parent: str) -> tuple[FakeRun, list[FakeRun]]:
    """The run of a name, and all others, which must be nested in it."""
    [found] = [run for run in server.runs.values() if run.name == parent]
    children = [run for run in server.runs.values() if run is not found]
    assert {run.tags["mlflow.parentRunId"] for run in children} == {found.info.run_id}
    return found, children


def without_wall(value: Any) -> Any:
    """The content of results.json that does not depend on the clock."""
    if isinstance(value, dict):
        return {k: without_wall(v) for k, v in value.items() if k not in ("wall", "out")}
    return [without_wall(v) for v in value] if isinstance(value, list) else value


def results_of(out: Path) -> Any:
    return without_wall(json.loads((out / "report" / "results.json").read_text()))
