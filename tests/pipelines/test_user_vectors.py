"""User vectors of one run in another one's history: the newest strictly before each request, with its age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ctr.build import build_state, open_dataset, pick_device, scoring_loader
from ctr.config import RunConfig
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config
from tests.features.small_log import RATINGS_SPEC, changed, prepared, rating_tables

GRID = ("model.kind=grid", "model.layers=2", "train.max_steps=2", "loader.batch_rows=64")
PLAIN = changed(RATINGS_SPEC, order=[])
VECTORS = {
    "table": "vectors",
    "user": "user",
    "time": "as_of",
    "max_len": 1,
    "side": {"vector": {"columns": ["vector"], "scale": "none"}},
}
WITH = changed(PLAIN, source__tables__vectors={"path": "vectors-*.parquet"}, domains__vector=VECTORS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, a GRU on it, its vectors beside the log, and the data set that reads them."""
    root = tmp_path_factory.mktemp("vectors")
    prepared(root, PLAIN, rating_tables(150))
    train(tiny_config(root / "dataset", root / "gru", *GRID, "model.sequence.kind=recurrent"))
    for split in ("train", "valid", "test"):
        out = str(root / "raw" / f"vectors-{split}.parquet")
        assert main(["predict", str(root / "gru"), "--split", split, "--user-vectors", out]) == 0
    prepared(root, WITH, rating_tables(150), out="with")
    return root


def config_of(folder: Path) -> RunConfig:
    return tiny_config(
        folder / "with", folder / "reader", *GRID, "model.sequence.kind=user_embedding", "drop=[ratings]"
    )


def test_a_request_reads_the_newest_vector_before_it_and_its_age(folder: Path) -> None:
    vectors = pl.read_parquet(folder / "raw" / "vectors-*.parquet")
    assert vectors["version"].n_unique() == 1 and vectors["vector"].list.len().unique().to_list() == [12]
    config = config_of(folder)
    dataset = open_dataset(config)
    keys, seen = dataset.keys("users"), 0
    assert keys is not None
    for split in ("train", "test"):
        for batch in scoring_loader(config, dataset, split).iterate(0):
            own = batch.sequences["vector"]
            for number, (user, time) in enumerate(zip(batch.user_id, batch.time, strict=True)):
                before = vectors.filter(user=keys[int(user)].as_py()).filter(pl.col("as_of") < int(time))
                first, last = own.offsets[number : number + 2].tolist()
                assert last - first == min(1, len(before))
                if not len(before):
                    continue
                newest = before.filter(as_of=before["as_of"].max())
                assert float(own.time_gap[first]) == int(time) - newest["as_of"][0]
                got = own.dense["vector"][first][: newest["vector"].list.len()[0]].numpy()
                assert any(np.allclose(got, v, atol=1e-6) for v in newest["vector"].to_list())
                seen += 1
    assert seen > 60


def test_a_run_learns_from_them(folder: Path) -> None:
    config = config_of(folder)
    train(config)
    assert main(["predict", config.run, "--split", "test"]) == 0
    model: Any = build_state(config, open_dataset(config).manifest, pick_device("cpu")).model
    assert len(model.sides) == 1  # of the vectors alone


def test_a_state_that_is_no_vector_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_config(folder / "dataset", folder / "din", *GRID))
    out = folder / "none.parquet"
    assert main(["predict", str(folder / "din"), "--user-vectors", str(out)]) != 0
    assert "a user vector must be all that a model keeps" in capsys.readouterr().err and not out.exists()
