"""A run in MLflow has every figure, its spec, its tags, and a model that scores as `ctr predict` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.errors import CheckpointError
from ctr.runs.journal import read_rows
from features.dataset import Dataset
from features.errors import DataError
from pipelines.cli import main
from pipelines.logged_model import open_rows
from tests.ctr.tiny_run import tiny_dataset, write_config

LOADED = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pipelines.cli import main

config, run = sys.argv[1:3]
assert main(["train", config]) == 0
for _ in range(2):  # the second evaluation changes nothing
    assert main(["evaluate", run, "--baseline", "logistic"]) == 0
assert main(["sync", run]) == 0

import mlflow
from mlflow import MlflowClient
uri = f"sqlite:///{Path(run).parent}/mlflow.db"
mlflow.set_tracking_uri(uri)
client = MlflowClient(tracking_uri=uri)
[found] = client.search_runs([client.get_experiment_by_name("ctr").experiment_id])
assert found.info.status == "FINISHED"
assert found.data.tags["ctr.model"] == "hyformer" and len(found.data.tags["ctr.dataset_sha256"]) == 64
keys = found.data.metrics
assert {"test/auc", "test/auc_delong_low", "test_slices/known_user/new/auc_delong_low",
        "test_baselines/logistic/auc_delong_high"} <= set(keys), sorted(keys)
assert len(client.get_metric_history(found.info.run_id, "test/auc")) == 1
root = f"runs:/{found.info.run_id}/model"
folder = Path(mlflow.artifacts.download_artifacts(root))
names = [path.name for path in folder.rglob("*") if path.is_file()]
assert "tensors.safetensors" in names and not [n for n in names if n.endswith((".pkl", ".pt", ".bin"))], names
mlflow.register_model(root, "clicks")
table = pq.read_table(f"{run}/predictions/test.parquet")
rows = table["row_id"].to_numpy()[::-3]
for address in (root, "models:/clicks/1"):
    model = mlflow.pyfunc.load_model(address)
    assert model.metadata.signature.inputs.input_names() == ["row_id"], model.metadata.signature
    assert set(model.input_example) == {"row_id"}, model.input_example
    scores = model.predict(pd.DataFrame({"row_id": rows}))
    np.testing.assert_allclose(scores, table["score"].to_numpy()[::-3], atol=1e-6)
"""


@pytest.mark.slow
def test_a_logged_model_loads_and_scores(tmp_path: Path) -> None:
    """In a process of its own: mlflow changes global state."""
    run = tmp_path / "runs" / "a run"
    config = write_config(tmp_path / "run.yaml", tiny_dataset(tmp_path), run, "tracking.uri=auto")
    command = [sys.executable, "-c", LOADED, str(config), str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not [word for word in ("ype hint", "Downloading", "Warning") if word in done.stderr], done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run, its data set beside it."""
    folder = tmp_path_factory.mktemp("model")
    config = write_config(folder / "run.yaml", tiny_dataset(folder), folder / "run", "train.epochs=1")
    assert main(["train", str(config)]) == 0
    assert main(["evaluate", str(folder / "run")]) == 0
    return folder / "run"


def checkpoint_of(run: Path) -> Path:
    (row,) = [row for row in read_rows(run / "journal.jsonl") if row["kind"] == "model"]
    return run / row["path"]


def test_rows_of_any_part_in_any_order(run: Path) -> None:
    dataset = run.parent / "dataset"
    score = open_rows(run / "config.yaml", checkpoint_of(run), dataset)
    table = pq.read_table(run / "predictions" / "test.parquet")
    test, train = table["row_id"].to_numpy(), Dataset(dataset).split("train").impressions["row_id"].to_numpy()
    asked = np.array([test[5], train[3], test[0], test[5]])
    found = score(asked)
    assert found.dtype == np.float64 and found[0] == found[3]
    np.testing.assert_allclose(found[[0, 2]], table["score"].to_numpy()[[5, 0]], atol=1e-6)
    assert score(np.empty(0, np.int64)).shape == (0,)
    with pytest.raises(DataError, match=r"row_id must name rows of .* got \[-4, 77777777\], which it lacks"):
        score(np.array([test[0], 77_777_777, -4]))


def test_another_data_set_is_refused(run: Path, tmp_path: Path) -> None:
    from tests.ctr.dataset_fixture import write_dataset
    from tests.ctr.tiny_run import SIZES

    other = write_dataset(tmp_path / "dataset", SIZES, seed=2)
    with pytest.raises(CheckpointError, match="another run"):
        open_rows(run / "config.yaml", checkpoint_of(run), other)


def test_a_checkpoint_too_large_is_not_logged(run: Path, tmp_path: Path) -> None:
    dataset = run.parent / "dataset"
    config = write_config(
        tmp_path / "run.yaml", dataset, tmp_path / "run", "train.epochs=1", "tracking.model_mb=0"
    )
    assert main(["train", str(config)]) == 0 and main(["evaluate", str(tmp_path / "run")]) == 0
    assert "model" not in [row["kind"] for row in read_rows(tmp_path / "run" / "journal.jsonl")]
