from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest

from features.dataset import SPLITS
from features.errors import DataError
from features.read.log import _outcome
from features.read.requests import number_requests
from features.spec import Impressions, Label
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    changed,
    prepared,
    rating_tables,
    run,
    shop_tables,
)

SHOWN = Impressions.model_validate(
    dict(table="t", user="user", item="item", time="at", label={"column": "click"}, context=["device"])
)


def rows(**columns: list[object]) -> pl.DataFrame:
    table = pl.DataFrame(columns)
    count = table.height
    base = {
        "__user": [0] * count,
        "__clock": [0] * count,
        "__item": list(range(count)),
        "device": ["a"] * count,
    }
    base |= {"user": [5] * count, "at": [9] * count}
    return table.with_columns(pl.Series(n, v) for n, v in base.items() if n not in columns).with_row_index(
        "__row"
    )


def test_without_ids_a_request_is_one_user_and_clock() -> None:
    table = rows(__user=[1, 0, 1, 0], __clock=[1, 1, 1, 0], __item=[1, 2, 0, 3])
    numbered, repeated = number_requests(table, SHOWN)
    assert numbered["__request"].to_list() == [0, 1, 2, 2] and repeated == 0
    assert numbered["__item"].to_list() == [3, 2, 0, 1]


def test_ids_part_simultaneous_requests_and_positions_order_rows() -> None:
    shown = SHOWN.model_copy(update={"request": "request", "position": "place"})
    numbered, _ = number_requests(rows(request=["b", "a", "b"], place=[2, 1, 1]), shown)
    assert numbered["__request"].to_list() == [0, 1, 1]
    assert numbered["__item"].to_list() == [1, 2, 0]


@pytest.mark.parametrize(("column", "what"), [("__user", "user"), ("__clock", "time")])
def test_a_request_has_one_user_and_time(column: str, what: str) -> None:
    shown = SHOWN.model_copy(update={"request": "request"})
    table = rows(request=["a", "b", "a"], **{column: [0, 0, 1]})
    with pytest.raises(DataError, match=rf"must have one {what}.*1 requests.*request \['a'\]"):
        number_requests(table, shown)


def test_context_must_not_vary_inside_a_request() -> None:
    table = rows(__clock=[0, 1, 1, 1], device=["a", "b", None, "b"])
    with pytest.raises(
        DataError, match=r"'device'.*1 requests; the first is user 5 at at 9 with \['b', None, 'b'\]"
    ):
        number_requests(table, SHOWN)


@pytest.mark.fault(21)
def test_duplicates_are_counted(tmp_path: Path) -> None:
    """Fault 21, through the whole pipeline."""
    tables = shop_tables()
    tables["shown"] = pl.concat([tables["shown"], tables["shown"].head(3)])
    with pytest.raises(DataError, match=r"3 rows .*repeat an earlier row"):
        run(tmp_path, SHOP_SPEC, tables)
    once = prepared(tmp_path, SHOP_SPEC, shop_tables(), out="once")
    kept = prepared(tmp_path, changed(SHOP_SPEC, impressions__dedup="keep_first"), tables, out="kept")
    assert kept.manifest.counters["impressions.duplicates"] == 3
    assert all(kept.split(s).impressions.equals(once.split(s).impressions) for s in SPLITS)
    allowed = run(tmp_path, changed(SHOP_SPEC, impressions__dedup="allow"), tables, out="allowed")
    assert sum(s.impressions for s in allowed.splits.values()) == tables["shown"].height


@pytest.mark.parametrize("column", ["user_id", "movie_id", "timestamp"])
def test_missing_keys_and_times_are_refused_with_rows(tmp_path: Path, column: str) -> None:
    tables = rating_tables()
    holes = pl.int_range(pl.len()) == 7
    tables["ratings"] = tables["ratings"].with_columns(pl.when(~holes).then(column).alias(column))
    with pytest.raises(DataError, match=rf"(?s){column}.*1 rows \(rows 7 in ratings.parquet\)"):
        run(tmp_path, RATINGS_SPEC, tables)


def test_entities_have_one_row_each(tmp_path: Path) -> None:
    tables = rating_tables()
    users, again = tables["users"], tables["users"].head(2)
    alone = run(tmp_path, RATINGS_SPEC, tables, out="alone")
    twice = run(tmp_path, RATINGS_SPEC, {**tables, "users": pl.concat([users, again])}, out="twice")
    assert twice.files == alone.files and twice.counters["users.rows_repeated"] == 2
    tables["users"] = pl.concat([users, again.with_columns(sex=pl.lit("?"))])
    with pytest.raises(
        DataError, match=r"'users' \(user\) must have one row per 'user_id', but 2 keys.*\[1, 2\]"
    ):
        run(tmp_path, RATINGS_SPEC, tables)


def test_outcomes_are_0_or_1(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"domain 'ratings': label 'rating' must be 0 or 1, but \d+ rows"):
        run(tmp_path, changed(RATINGS_SPEC, domains__ratings__outcome={"column": "rating"}), rating_tables())


def test_events_without_user_or_time_are_counted(tmp_path: Path) -> None:
    tables = shop_tables()
    third = pl.int_range(pl.len()) % 3 == 0
    tables["events"] = tables["events"].with_columns(pl.when(~third).then("user").alias("user"))
    manifest = run(tmp_path, SHOP_SPEC, tables)
    dropped = sum(manifest.counters[f"events.{kind}.without_user_or_time"] for kind in ("view", "cart"))
    assert dropped == tables["events"].filter(pl.col("user").is_null(), pl.col("kind") != "other").height > 0


def test_outcomes_may_be_missing() -> None:
    events = pl.DataFrame({"stars": [5.0, None, float("nan"), 1.0]})
    found = _outcome(events, Label(column="stars", at_least=4), "rated")
    assert found.to_list() == [1, None, None, 0] and found.dtype == pl.Int8


@pytest.mark.fault(20)
def test_one_of_three_files_in_another_unit(tmp_path: Path) -> None:
    """Fault 20, with the file's name."""
    tables = rating_tables()
    third = pl.int_range(pl.len()) * 3 // pl.len()
    parts = tables["ratings"].with_columns(third.alias("part")).partition_by("part", include_key=False)
    parts[1] = parts[1].with_columns(pl.col("timestamp") * 1000)
    for i, part in enumerate(parts):
        tables[f"part-{i}"] = part
    spec = changed(RATINGS_SPEC, source__tables__ratings={"path": "part-*.parquet"})
    with pytest.raises(
        DataError, match=r"(?s)'ratings' \(part-\*.parquet\).*part-0.parquet.*in part-1.parquet\) hold ms"
    ):
        run(tmp_path, spec, tables)


def test_where_that_holds_nowhere_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, changed(SHOP_SPEC, domains__view__where={"kind": [1]}), shop_tables())
    assert "no row holds [1] in column 'kind', which holds" in caplog.text
