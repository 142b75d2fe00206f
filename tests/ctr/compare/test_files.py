"""Prediction files in any order and format are matched row by row, or refused with what does not match."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.compare import Cell, Paired, compare_files, files, judge
from ctr.metrics.table import compared
from features.errors import DataError
from tests.ctr.compare.tables import Table, table_of

ROWS = 500
Change = Callable[[pl.DataFrame], pl.DataFrame]


def frame(table: Table, score: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": np.arange(ROWS) * 3 - 50,
            "request_id": table.request,
            "user_id": table.user,
            "label": table.label,
            "score": score,
            "slice_half": np.where(np.arange(ROWS) < 250, "first", "second"),
        }
    )


@pytest.fixture
def table() -> Table:
    return table_of(0, ROWS)


@pytest.fixture
def paths(table: Table, tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "base.parquet", tmp_path / "variant.parquet"
    frame(table, table.base).write_parquet(found[0])
    frame(table, table.variant).write_parquet(found[1])
    return found


def assert_same(found: Paired, expected: Paired) -> None:
    assert (found.rows, found.positives, found.unit) == (expected.rows, expected.positives, expected.unit)
    for one, other in ((found.base, expected.base), (found.variant, expected.variant)):
        np.testing.assert_allclose(one.values, other.values, atol=1e-11)
    assert (found.delong is None) == (expected.delong is None)
    if found.delong is not None and expected.delong is not None:
        assert found.delong.se == pytest.approx(expected.delong.se, rel=1e-9)


@pytest.fixture(params=["whole", "in pieces"])
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Everything in memory, or small pieces that wait on disk."""
    if request.param == "whole":
        return 10_000
    monkeypatch.setattr(files, "PIECE_ROWS", 64)
    monkeypatch.setattr(files, "_BATCH_ROWS", 50)
    return 100


def shuffled(data: pl.DataFrame) -> pl.DataFrame:
    return data.sample(fraction=1.0, shuffle=True, seed=1)


@pytest.mark.parametrize("change", [lambda data: data, shuffled], ids=["in order", "shuffled"])
def test_files_give_the_sums_of_their_arrays(
    table: Table, paths: tuple[Path, Path], change: Change, chunk_rows: int
) -> None:
    base, variant = paths
    change(pl.read_parquet(variant)).drop("user_id", "request_id").write_parquet(variant)
    assert_same(compare_files(base, {"v": variant}, chunk_rows=chunk_rows)["v"], table.pair())


def weighing(data: pl.DataFrame) -> pl.DataFrame:
    """Weights that follow from the rows, some of them 0."""
    return data.with_columns(weight=(pl.col("row_id") % 4).cast(pl.Float64))


@pytest.mark.parametrize("change", [lambda data: data, shuffled], ids=["in order", "shuffled"])
def test_weights_of_files_are_those_of_arrays(
    table: Table, paths: tuple[Path, Path], change: Change, chunk_rows: int
) -> None:
    base, variant = paths
    weighing(pl.read_parquet(base)).write_parquet(base)
    change(weighing(pl.read_parquet(variant))).write_parquet(variant)
    weight = weighing(frame(table, table.base))["weight"].to_numpy()
    assert_same(compare_files(base, {"v": variant}, chunk_rows=chunk_rows)["v"], table.pair(weight=weight))
    pl.read_parquet(variant).drop("weight").write_parquet(variant)
    with pytest.raises(DataError, match=r"weights of rows, or none, and .*variant.parquet has none"):
        compare_files(base, {"v": variant}, chunk_rows=chunk_rows)


def test_the_same_shuffled_order_in_both_needs_no_sorting(
    table: Table, paths: tuple[Path, Path], chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in paths:
        shuffled(pl.read_parquet(path)).write_parquet(path)
    monkeypatch.setattr("ctr.compare.streams.by_id", None)
    assert_same(compare_files(paths[0], {"v": paths[1]}, chunk_rows=chunk_rows)["v"], table.pair())


def test_csv_with_text_ids_groups_and_logits(table: Table, tmp_path: Path) -> None:
    columns = {"id": [f"row {k}" for k in range(ROWS)], "label": table.label}
    base = pl.DataFrame({**columns, "score": table.base, "group": [f"user {u}" for u in table.user]})
    logit = np.log(table.variant / (1 - table.variant))
    variant = shuffled(pl.DataFrame({**columns, "logit": logit}))
    base.write_csv(tmp_path / "base.csv")
    variant.write_csv(tmp_path / "variant.csv")
    found = compare_files(tmp_path / "base.csv", {"v": tmp_path / "variant.csv"})["v"]
    expected = table.pair()
    for metric in ("auc", "gauc", "log_loss", "ne"):
        assert found.values(metric) == pytest.approx(expected.values(metric), abs=1e-9)
    assert np.isnan(found.values("query_auc")).all() and found.clusters == len(np.unique(table.user))


def test_a_run_directory_means_its_test_predictions(table: Table, paths: tuple[Path, Path]) -> None:
    run = paths[0].parent / "run"
    (run / "predictions").mkdir(parents=True)
    paths[1].rename(run / "predictions" / "test.parquet")
    assert compare_files(paths[0], {"v": run})["v"].delta("auc") == table.pair().delta("auc")


def test_several_variants_and_a_slice(table: Table, paths: tuple[Path, Path], chunk_rows: int) -> None:
    base, variant = paths
    found = compare_files(base, {"same": base, "v": variant}, where=("half", "second"), chunk_rows=chunk_rows)
    assert all(found["same"].delta(metric.name) == 0.0 for metric in compared())
    assert_same(found["v"], table.take(np.arange(250, ROWS)).pair())


def test_a_slice_without_rows_has_no_verdict(paths: tuple[Path, Path]) -> None:
    pair = compare_files(paths[0], {"v": paths[1]}, where=("half", "third"))["v"]
    judged = judge({"v": [Cell(pair=pair)]})
    assert pair.rows == 0 and all(j.reason and j.delta is None and j.p is None for j in judged)


def change_label(data: pl.DataFrame) -> pl.DataFrame:
    wrong = pl.col("row_id").is_in([10, 4])
    return data.with_columns(label=pl.when(wrong).then(1 - pl.col("label")).otherwise(pl.col("label")))


WRONG_ROWS: dict[str, tuple[Change, str]] = {
    "missing": (lambda d: d.tail(-3), "3 ids of the base are missing, first -50"),
    "missing at the end": (lambda d: d.head(-2), "2 ids of the base are missing, first 1444"),
    "extra": (
        lambda d: pl.concat([d, d.head(1).with_columns(row_id=pl.lit(9999, pl.Int64))]),
        "1 ids are not in the base, first 9999",
    ),
    "repeated": (lambda d: pl.concat([d, d.head(2)]), "2 rows repeat an id, first -50"),
    "labels": (change_label, "2 labels differ, first at id 4"),
    "labels, shuffled": (lambda d: shuffled(change_label(d)), "2 labels differ, first at id 4"),
    "weights": (
        lambda d: weighing(d).with_columns(weight=pl.col("weight") + (pl.col("row_id") == 4)),
        "1 weights differ, first at id 4",
    ),
    "nothing": (lambda d: d.head(0), "500 ids of the base are missing, first -50"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_rows_that_do_not_match_are_counted(name: str, paths: tuple[Path, Path], chunk_rows: int) -> None:
    change, message = WRONG_ROWS[name]
    if name == "weights":
        weighing(pl.read_parquet(paths[0])).write_parquet(paths[0])
    change(pl.read_parquet(paths[1])).write_parquet(paths[1])
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        compare_files(paths[0], {"v": paths[1]}, chunk_rows=chunk_rows)
    assert str(paths[1]) in str(caught.value)


def test_ids_repeated_in_both_files_are_found(paths: tuple[Path, Path], chunk_rows: int) -> None:
    for path in paths:
        data = pl.read_parquet(path)
        pl.concat([data, data.head(2)]).write_parquet(path)
    with pytest.raises(
        DataError, match=r"base.parquet must have each id once, got: 2 rows repeat an id, first -50"
    ):
        compare_files(paths[0], {"v": paths[1]}, chunk_rows=chunk_rows)


def with_null(name: str) -> Change:
    return lambda d: d.with_columns(
        pl.when(pl.col("row_id") == 1).then(None).otherwise(pl.col(name)).alias(name)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop("label"), "must have the columns label, got"),
        (lambda d: d.drop("row_id", "score"), "must have the columns row_id or id, score or logit"),
        (with_null("score"), "score must be finite, got 1 other values of 500, first nan at row_id 1"),
        (with_null("row_id"), "column row_id must have no nulls, got 1"),
        (with_null("user_id"), "column user_id must have no nulls, got 1"),
        (lambda d: d.with_columns(pl.col("user_id") + 0.5), "column user_id must be integers or text"),
        (lambda d: d.with_columns(pl.col("score") * 5), "score must be a probability"),
        (lambda d: d.with_columns(label=pl.lit("yes")), "column label must be numbers"),
        (lambda d: d.with_columns(pl.col("row_id").cast(pl.String)), "ids must be integers in all files"),
    ],
)
def test_wrong_tables_are_refused(change: Change, message: str, paths: tuple[Path, Path]) -> None:
    change(pl.read_parquet(paths[0])).write_parquet(paths[0])
    with pytest.raises(DataError, match=re.escape(message)):
        compare_files(paths[0], {"v": paths[1]})


def test_files_that_cannot_be_read_are_refused(paths: tuple[Path, Path]) -> None:
    base, variant = paths
    with pytest.raises(DataError, match=r"there is no .*absent; make a run's with: ctr evaluate"):
        compare_files(base, {"v": base.parent / "absent"})
    with pytest.raises(DataError, match=re.escape("must be among ['half'], got 'age'")):
        compare_files(base, {"v": variant}, where=("age", "1"))
    variant.write_bytes(variant.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"must be a readable Parquet or CSV file"):
        compare_files(base, {"v": variant})
    (base.parent / "words.csv").write_text("id,label,score\n1,0,0.5\n2,1,high\n")
    with pytest.raises(DataError, match=r"must be a readable Parquet or CSV file"):
        compare_files(base, {"v": base.parent / "words.csv"})
