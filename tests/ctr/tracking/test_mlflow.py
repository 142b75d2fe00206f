from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REAL = """
import sys
from pathlib import Path
from ctr.runs.directory import RunDir
from ctr.tracking import Tracker, sync
from ctr.tracking.replica import Replica
from ctr.tracking.tracked_run import keep_run

path = Path(sys.argv[1])
data = {"name": "ml", "sha256": "ab" * 32, "source": "here"}
with RunDir.open(path) as run, Tracker(run, config={"a": 1}, dataset=data, system_seconds=0) as tracker:
    tracker.resume_at(0)
    for step in range(1, 5):
        tracker.log("train", step, {"loss": 1 / step, "x=y": 1})
    assert tracker.close(timeout=120)  # the first use of MLflow takes long on a busy machine
with RunDir.open(path) as run, Tracker(run, config={"a": 1}, dataset=data, system_seconds=0) as tracker:
    tracker.resume_at(2)
    for step in range(3, 7):
        tracker.log("train", step, {"loss": 1 / step, "x=y": 1})
    run.config.write_text("a: 1")
    tracker.artifact(run.config)
assert sync(path) == 0
sync(path, f"sqlite:///{path.parent}/again.db")

from mlflow import MlflowClient
seen = []
for name in ("mlflow.db", "again.db"):
    client = MlflowClient(tracking_uri=f"sqlite:///{path.parent}/{name}")
    place = client.get_experiment_by_name("ctr").experiment_id
    [found] = client.search_runs([place])
    metrics = {key: sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, key))
               for key in found.data.metrics}
    files = [entry.path for entry in client.list_artifacts(found.info.run_id)]
    given = found.inputs.dataset_inputs
    inputs = [(entry.dataset.name, {t.key: t.value for t in entry.tags}["sha256"]) for entry in given]
    seen.append((metrics, found.data.params, found.info.status, files, inputs))
assert seen[0] == seen[1], seen
loss = [(step, 1 / step) for step in range(1, 7)]
ones = [(step, 1.0) for step in range(1, 7)]
assert seen[0] == ({"train/loss": loss, "train/x:3d:y": ones}, {"a": "1"}, "FINISHED", ["config.yaml"],
                   [("ml", "ab" * 32)]), seen[0]
"""


@pytest.mark.slow
def test_real_mlflow_with_sqlite(tmp_path: Path) -> None:
    """In a process of its own: mlflow changes global state, and must say nothing on stderr."""
    path = tmp_path / "a folder" / "runs" / "demo"
    done = subprocess.run([sys.executable, "-c", REAL, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
