"""Prediction tables: slices, undefined days, Parquet in and out of memory, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from ctr.metrics import evaluate_table
from features.errors import DataError


def table_of(n: int = 600) -> dict[str, np.ndarray]:
    """Predictions of four days; on day 3 nobody clicks."""
    rng = np.random.default_rng(0)
    day = np.arange(n) * 4 // n
    score = rng.random(n)
    label = ((rng.random(n) < score) & (day < 3)).astype(np.int8)
    return {
        "row_id": 1000 + np.arange(n),
        "request_id": np.arange(n) // 6,
        "user_id": rng.integers(0, 40, n),
        "label": label,
        "score": score,
        "slice_day": day,
        "slice_history": np.array(["0", "1-5", "6-20", "21+"])[rng.integers(0, 4, n)],
    }


@pytest.mark.fault(23)
def test_slices_are_the_figures_of_their_rows() -> None:
    table = table_of()
    result = evaluate_table(table, draws=20)
    assert list(result.slices["history"]) == ["0", "1-5", "6-20", "21+"]
    for value, summary in result.slices["history"].items():
        rows = table["slice_history"] == value
        expected = roc_auc_score(table["label"][rows], table["score"][rows])
        assert summary.rows == rows.sum() and summary.metrics["auc"].value == pytest.approx(
            expected, abs=1e-12
        )


@pytest.mark.fault(24)
def test_a_day_of_one_class_is_null_with_its_reason() -> None:
    result = json.loads(evaluate_table(table_of(), draws=20).to_json())
    planted = result["slices"]["day"]["3"]["metrics"]["auc"]
    assert planted["value"] is None and planted["reason"].startswith("only one class: 0 rows with label 1")
    assert result["slices"]["day"]["2"]["metrics"]["auc"]["value"] > 0.5
    assert result["overall"]["metrics"]["auc"]["low"] is not None


def test_parquet_gives_the_same_in_and_out_of_memory(tmp_path: Path) -> None:
    path, table = tmp_path / "test.parquet", pa.table(table_of())
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    expected = evaluate_table(table, draws=20).to_dict()
    assert evaluate_table(path, draws=20).to_dict() == expected
    streamed = evaluate_table(path, draws=20, chunk_rows=50).to_dict()
    assert flat(streamed) == pytest.approx(flat(expected), abs=1e-10)


def flat(tree: object, name: str = "") -> dict[str, object]:
    """Every leaf by its path, so that numbers can be compared with a tolerance."""
    if not isinstance(tree, dict):
        return {name: tree}
    return {path: leaf for key, value in tree.items() for path, leaf in flat(value, f"{name}/{key}").items()}


def test_rare_values_and_nulls_have_names() -> None:
    table = table_of(400)
    values = [None, *("rare" + str(i) for i in range(9)), *["often"] * 390]
    result = evaluate_table(
        pa.table({**table, "slice_city": pa.array(values)}), slices=["city"], max_values=3, draws=0
    )
    counts = {value: summary.rows for value, summary in result.slices["city"].items()}
    assert list(result.slices) == ["city"] and sum(counts.values()) == 400
    assert counts["often"] == 390 and counts["(missing)"] == 1 and counts["(other)"] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, r"must have the columns label and score, got .* without \['score'\]"),
        ({"score": pa.array([0.5, None] * 300)}, "score must be finite, got 300 .* nan at row_id 1001"),
        ({"label": pa.array(["1"] * 600)}, "column label must be numeric, got string"),
        ({"user_id": pa.array([1, None] * 300)}, "column user_id must have no nulls, got 300"),
    ],
)
def test_wrong_tables_are_refused(change: dict[str, pa.Array | None], message: str) -> None:
    columns = {k: v for k, v in {**table_of(), **change}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        evaluate_table(pa.table(columns), draws=0)


def test_unknown_slices_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"slices must be among \['day', 'history'\], got \['city'\]"):
        evaluate_table(table_of(), slices=["city"])
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"readable Parquet file, got .*torn\.parquet"):
        evaluate_table(torn)
    with pytest.raises(DataError, match="readable Parquet file"):
        evaluate_table(tmp_path / "absent.parquet")


@pytest.mark.fault(10)
@pytest.mark.parametrize("chunk_rows", [10, 10**6])
def test_a_flipped_bit_in_a_page_is_found(tmp_path: Path, chunk_rows: int) -> None:
    path = tmp_path / "flipped.parquet"
    pq.write_table(
        pa.table(table_of()), path, write_page_checksum=True, compression="none", use_dictionary=False
    )
    with pq.ParquetFile(path) as file:
        at = file.metadata.row_group(0).column(4).data_page_offset + 500
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"flipped\.parquet"):
        evaluate_table(path, draws=0, chunk_rows=chunk_rows, slices=[])
