"""Every row of a table of predictions leads back to its user, its item and its line of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.predictions import RowKeys, SplitRows, write_predictions
from ctr.predictions.write import Scored
from features.dataset import SPLITS, Dataset
from features.prepare import prepare
from features.spec import parse_spec
from tests.ctr.dataset_fixture import write_dataset

SPEC: dict[str, Any] = {
    "name": "log",
    "order": [],
    "source": {"tables": {"shown": {"path": "shown/*.csv", "format": "csv"}}},
    "impressions": {
        "table": "shown",
        "user": "user",
        "item": "item",
        "time": "time",
        "label": {"column": "click", "equals": 1},
    },
    "tables": {"item": {}},
    "features": {"item": {"column": "item", "table": "item"}},
    "domains": {},
    "tokens": {"all": ["item"]},
}


def log_rows() -> pl.DataFrame:
    """600 impressions, not in the order of time, users and items as texts that look like numbers."""
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "user": [f"{u:03d}" for u in random.integers(0, 30, 600)],
            "item": [f"i{i}" for i in random.integers(0, 40, 600)],
            "time": 1_700_000_000 + random.permutation(600) * 60,
            "click": random.integers(0, 2, 600),
            "kind": random.integers(0, 3, 600),
        }
    )


def prepared(folder: Path, **impressions: Any) -> Dataset:
    log = log_rows()
    (folder / "shown").mkdir(parents=True)
    log[:250].write_csv(folder / "shown" / "a.csv")
    log[250:].write_csv(folder / "shown" / "b.csv")
    spec = {**SPEC, "impressions": {**SPEC["impressions"], **impressions}}
    prepare(parse_spec(spec), folder / "dataset", base=folder)
    return Dataset(folder / "dataset", verify=True)


def written(dataset: Dataset, split: str, path: Path, step: int = 7) -> pa.Table:
    """Predictions in pieces of some rows."""
    ids = dataset.split(split).impressions["row_id"].to_numpy()
    parts = [ids[i : i + step] for i in range(0, len(ids), step)]
    scored = (Scored(p, np.zeros(len(p), np.float32), np.full(len(p), 0.5)) for p in parts)
    assert write_predictions(path, SplitRows(dataset, split), scored) == len(ids)
    return pq.read_table(path)


@pytest.mark.parametrize("where", [None, {"kind": [1, 2]}])
def test_every_row_is_found_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any] | None
) -> None:
    monkeypatch.setattr("ctr.predictions.write.GROUP_ROWS", 20)  # several row groups
    log = log_rows()
    dataset = prepared(tmp_path, **({"where": where} if where else {}))
    lines = {name: (tmp_path / "shown" / name).read_text().splitlines() for name in ("a.csv", "b.csv")}
    seen: list[int] = []
    for split in SPLITS:
        table = written(dataset, split, tmp_path / f"{split}.parquet")
        assert pq.ParquetFile(tmp_path / f"{split}.parquet").num_row_groups > 1
        for row in table.to_pylist():
            raw = log.row(row["log_row"], named=True)
            assert (row["user_key"], row["item_key"], row["label"]) == (
                raw["user"],
                raw["item"],
                raw["click"],
            )
            assert row["time"] == raw["time"]
            line = lines[Path(row["log_file"]).name][row["log_line"] - 1]
            assert line == ",".join(str(value) for value in raw.values())
            assert row["log_file"].startswith("shown/")
            seen.append(row["log_row"])
    kept = log.with_row_index().filter(pl.col("kind").is_in(where["kind"]) if where else True)
    assert sorted(seen) == kept["index"].to_list()


def test_keys_are_integers_or_dictionaries_and_unknown_ones_null(tmp_path: Path) -> None:
    keys = RowKeys(prepared(tmp_path))
    found = keys.columns(
        user_id=np.array([0, -1, 0]), item_id=np.array([-1, 1, 1]), row_id=np.array([-1, 5, 3])
    )
    assert found["user_key"].to_pylist() == ["000", None, "000"]
    assert found["user_key"].type == pa.dictionary(pa.int32(), pa.string())
    assert len(found["user_key"].dictionary) == 1  # what these rows need, not all users
    assert found["log_row"].null_count == 1
    none = keys.columns(user_id=np.array([-1]), item_id=np.array([-1]), row_id=np.array([-1]))
    assert [column.null_count for column in none.values()] == [1] * len(none)


def test_rows_in_another_order_are_refused(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    ids = dataset.split("test").impressions["row_id"].to_numpy()[::-1].copy()
    scored = Scored(ids, np.zeros(len(ids), np.float32), np.full(len(ids), 0.5))
    with pytest.raises(ValueError, match="must come in the order of the split, rows 0 to"):
        write_predictions(tmp_path / "out.parquet", SplitRows(dataset, "test"), [scored])
    assert not (tmp_path / "out.parquet").exists()


def test_a_data_set_without_keys_has_codes_alone(tmp_path: Path) -> None:
    table = written(Dataset(write_dataset(tmp_path / "old")), "test", tmp_path / "old.parquet")
    assert "item_id" in table.column_names
    assert not [name for name in table.column_names if name.startswith(("log_", "user_key", "item_key"))]
