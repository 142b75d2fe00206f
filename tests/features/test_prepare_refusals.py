"""What `ctr prepare` refuses, all of it at once, and what a failure leaves behind: nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, dense_values
from features.errors import ConfigError, DataError
from features.prepare import check, prepare
from features.raw import RawEncoder
from features.spec import parse_spec
from tests.features.small_log import (
    RATINGS_SPEC,
    changed,
    prepared,
    rating_tables,
    run,
    write_tables,
)


@pytest.mark.fault(16)
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), -float("inf")])
def test_a_dense_value_that_must_be_there(tmp_path: Path, bad: float | None) -> None:
    """missing: error refuses what is else an indicator, with its rows, when prepared and when scored."""
    tables = rating_tables()
    year = pl.col("year").fill_null(1990).cast(pl.Float64)
    tables["movies"] = tables["movies"].with_columns(year)
    tables["ratings"] = tables["ratings"].filter(
        pl.col("movie_id").is_in(tables["movies"]["movie_id"].to_list())
    )
    spec = changed(RATINGS_SPEC, features__year={"columns": ["item.y*r"], "missing": "error"})
    data = prepared(tmp_path / "whole", spec, tables)
    assert data.manifest.column("year").fields == ["item.year"]
    with pytest.raises(DataError, match=r"columns.item.year must hold a finite number .*error\), got"):
        RawEncoder(data).encode("candidate", {"item.year": [1.0, bad]}, what="columns")
    movie = tables["ratings"]["movie_id"][3]
    wrong = pl.when(pl.col("movie_id") == movie).then(pl.lit(bad, dtype=pl.Float64)).otherwise("year")
    tables["movies"] = tables["movies"].with_columns(wrong.alias("year"))
    count = tables["ratings"].filter(pl.col("movie_id") == movie).height
    with pytest.raises(
        DataError,
        match=rf"feature 'year' must .*\(missing: error\), but {count} rows \(rows .*ratings.parquet\) hold",
    ):
        prepared(tmp_path / "broken", spec, tables)
    data = prepared(tmp_path / "marked", changed(spec, features__year={"columns": ["item.year"]}), tables)
    flags = np.concatenate(
        [dense_values(data.split(s).impressions, data.manifest.column("year"))[:, 1] for s in SPLITS]
    )
    assert flags.sum() == count


def test_label_column_is_no_feature(tmp_path: Path) -> None:
    spec = changed(RATINGS_SPEC, features__item={"column": "rating", "table": "rating"})
    with pytest.raises(
        ConfigError, match=r"feature 'item' reads 'rating', the label column, unknown at the request"
    ):
        run(tmp_path, spec, rating_tables())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features__year": {"columns": ["item.yaer"]}},
            r"movies.*column 'yaer', which feature 'year' reads",
        ),
        ({"features__year": {"columns": ["itm.*"]}}, r"feature 'year': pattern 'itm.\*' matches no column"),
        ({"features__year": {"columns": ["count.item.rat"]}}, r"feature 'year' reads 'count.item.rat', but"),
        (
            {"features__year": {"columns": ["item.genres"]}},
            r"feature 'year': column 'item.genres' must be numeric",
        ),
        ({"impressions__time": "time"}, r"column 'time', which impressions.time reads"),
        ({"source__kind": "nowhere"}, r"nowhere"),
        (
            {"order": ["movie_id"], "impressions__label": {"column": "rating"}},
            r"label 'rating' must be 0 or 1",
        ),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """And leave nothing behind."""
    with pytest.raises((ConfigError, DataError), match=f"(?s){message}"):
        run(tmp_path, changed(RATINGS_SPEC, **change), rating_tables())
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_out_is_replaced_only_on_demand(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", rating_tables())
    spec, out = parse_spec(RATINGS_SPEC), tmp_path / "dataset"
    prepare(spec, out, base=tmp_path / "raw")
    with pytest.raises(DataError, match="already holds a dataset"):
        prepare(spec, out, base=tmp_path / "raw")
    prepare(spec, out, base=tmp_path / "raw", overwrite=True)
    (out / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="no dataset, and is left alone"):
        prepare(spec, out, base=tmp_path / "raw", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset", "raw"]


def test_an_old_dataset_survives_a_failure(tmp_path: Path) -> None:
    tables = rating_tables()
    data = prepared(tmp_path, RATINGS_SPEC, tables)
    bad = parse_spec(changed(RATINGS_SPEC, impressions__label={"column": "rating"}))
    with pytest.raises(DataError):
        prepare(bad, data.root, base=tmp_path / "raw", overwrite=True)
    assert Dataset(data.root, verify=True).manifest == data.manifest


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a killed process left behind goes at the next start."""
    left = tmp_path / ".dataset.partial-999999999"
    (left / "train").mkdir(parents=True)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("features.encode.fitted.write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, RATINGS_SPEC, rating_tables())
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_out_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="a file or link is there"):
        run(tmp_path, RATINGS_SPEC, rating_tables(), out="file")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another --out"):
        run(tmp_path, RATINGS_SPEC, rating_tables(), out="file/dataset")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dry_run_tells_all_that_the_beginnings_of_the_files_show(tmp_path: Path) -> None:
    tables = rating_tables()
    tables["movies"] = tables["movies"].with_columns(year=pl.lit("unknown"))
    write_tables(tmp_path, tables)
    right = changed(RATINGS_SPEC, features__year={"calendar": "weekday"})
    check(parse_spec(right), base=tmp_path)
    wrong = changed(RATINGS_SPEC, source__tables__ratings={"path": "rating.parquet"})
    wrong["features"]["sex"] = {"column": "user.gender", "table": "sex"}
    wrong["domains"]["ratings"]["where"] = {}
    with pytest.raises(DataError) as error:
        check(parse_spec(wrong), base=tmp_path)
    text = str(error.value)
    assert text.startswith("3 things must be corrected:\n- ") and text.count("things must") == 1
    for part in ("no file matches 'rating.parquet'", "column 'gender'", "'year' must hold a number"):
        assert part in text
    with pytest.raises(ConfigError, match="sum to less than 1"):
        check(parse_spec(changed(RATINGS_SPEC, split={"valid": 0.5, "test": 0.6})), base=tmp_path)


def test_a_dry_run_tells_what_is_wrong_in_the_spec_and_in_the_files_together(tmp_path: Path) -> None:
    write_tables(tmp_path, rating_tables())
    wrong = changed(RATINGS_SPEC, split={"valid": 0.5, "test": 0.6}, time_range=[2, 1])
    wrong["features"]["sex"] = {"column": "rating", "table": "sex"}  # the label
    wrong["features"]["hour"] = {"column": "count.nothing.rate", "table": "sex"}
    wrong["user"] = {"table": "users", "key": "id"}
    with pytest.raises(ConfigError) as error:
        check(parse_spec(wrong), base=tmp_path)
    text = str(error.value)
    assert text.startswith("5 things must be corrected:\n- ") and text.count("things must") == 1
    parts = (
        "sum to less than 1",
        "first before last",
        "reads 'rating', the label",
        "count.nothing",
        "'id', which",
    )
    for part in parts:
        assert part in text
    with pytest.raises(ConfigError, match="2 things must be corrected"):
        check(
            parse_spec(wrong | {"time_range": None, "user": RATINGS_SPEC["user"], "split": {}}), base=tmp_path
        )
    patterns = changed(RATINGS_SPEC, features__year={"columns": ["item.y?", "item.z*"]})
    with pytest.raises(ConfigError, match=r"(?s)2 things.*'item.y\?' matches no column.*'item.z\*' matches"):
        check(parse_spec(patterns), base=tmp_path)
