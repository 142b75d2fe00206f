"""A data set does not depend on how many partitions it is prepared in, to the byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.errors import DataError
from features.partitions.workers import Resources
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    Tables,
    changed,
    rating_tables,
    shop_tables,
    write_tables,
)

STARS = {"by": ["movie_id"], "value": "rating", "prior": 5}
RATINGS = changed(
    RATINGS_SPEC,
    counters={
        "item": {"by": ["movie_id"], "outputs": ["count", "positives", "rate", "since_last", "since_first"]},
        "stars": {**STARS, "outputs": ["rate"]},
        "above": {
            "by": ["user_id"],
            "value": "rating",
            "against": "count.stars.rate",
            "outputs": ["residual"],
        },
        "genre": {"by": ["item.genres", "user.sex"], "separator": "|", "outputs": ["count", "rate"]},
        "recent": {"by": ["movie_id"], "window": "12h", "outputs": ["count", "rate", "since_last"]},
    },
    matches__genre__outputs=["count", "decayed", "recency", "last", "share", "positive_share"],
    domains__ratings__outcome={"column": "rating", "at_least": 4},
    domains__ratings__side__stars={"columns": ["rating", "item.year"], "scale": "standard"},
    pages={
        "year": {"column": "item.year"},
        "rate": {"column": "count.item.rate", "outputs": ["value", "rank"]},
    },
    features__pages={"columns": ["page.*"], "scale": "quantile"},
    tokens__rest=["hour", "counts", "pages"],
)
SHOP = changed(
    SHOP_SPEC,
    tables__item={"encode": "hash", "rows": 50},
    tables__price={"encode": "quantile", "rows": 5},
    features__bucket={"column": "price", "table": "price"},
    tokens__all=["item", "device", "tags", "price", "bucket"],
    impressions__dedup="keep_first",
)


def written(out: Path) -> dict[str, str]:
    """Relative path → sha256 of every file of a data set."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def prepared(root: Path, spec: dict[str, Any], parts: int, *, workers: int = 1) -> dict[str, str]:
    """What a prepare of the raw tables in `root/raw` writes."""
    out = root / f"parts-{parts}-{workers}"
    told: list[str] = []
    prepare(
        parse_spec(spec),
        out,
        base=root / "raw",
        resources=Resources(partitions=parts, workers=workers),
        progress=told.append,
    )
    assert (parts == 1) != any(f"{parts} partitions" in line for line in told)
    assert not list(root.glob(".*"))  # nothing is left beside it
    return written(out)


def same(root: Path, spec: dict[str, Any], tables: Tables, *, parts: tuple[int, ...] = (3,)) -> None:
    write_tables(root / "raw", tables)
    whole = prepared(root, spec, 1)
    for number in parts:
        assert prepared(root, spec, number) == whole


def test_ratings_with_an_order_and_counters_of_all_kinds(tmp_path: Path) -> None:
    same(tmp_path, RATINGS, rating_tables(), parts=(2, 5))


def test_a_shop_with_requests_texts_and_duplicates(tmp_path: Path) -> None:
    tables = shop_tables()
    shown = tables["shown"]
    tables["shown"] = pl.concat([shown, shown[::7]])
    same(tmp_path, SHOP, tables)


@pytest.mark.parametrize("seed", range(2))
def test_half_of_all_rows_of_one_user_and_one_item_and_of_one_moment(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = rating_tables(200, seed=seed)
    most = rng.random(tables["ratings"].height) < 0.5
    tables["ratings"] = tables["ratings"].with_columns(
        pl.when(pl.Series(most)).then(7).otherwise("user_id").alias("user_id"),
        pl.when(pl.Series(np.roll(most, 3))).then(880_000_000).otherwise("timestamp").alias("timestamp"),
    )
    tables["ratings"] = tables["ratings"].unique(["user_id", "movie_id", "timestamp"], maintain_order=True)
    same(tmp_path, RATINGS, tables, parts=(4,))


def test_more_partitions_than_users(tmp_path: Path) -> None:
    tables = rating_tables(60)
    tables["ratings"] = tables["ratings"].filter(pl.col("user_id") < 3)
    same(tmp_path, RATINGS, tables, parts=(7,))


def test_numbers_that_are_larger_in_some_partitions(tmp_path: Path) -> None:
    tables = rating_tables(100)
    large = pl.col("user_id") > 11
    tables["ratings"] = tables["ratings"].with_columns(
        pl.col("movie_id") + pl.when(large).then(40_000).otherwise(0)
    )
    same(tmp_path, RATINGS, tables, parts=(2,))


def test_a_request_with_two_times_is_refused_wherever_they_lie(tmp_path: Path) -> None:
    tables = shop_tables()
    shown = tables["shown"]
    last = (pl.int_range(pl.len()) == pl.len() - 1) & (pl.lit(shown["request"][0]) != pl.col("request"))
    first = shown["request"][0]
    tables["shown"] = shown.with_columns(
        pl.when(last).then(pl.lit(first)).otherwise("request").alias("request")
    )
    write_tables(tmp_path / "raw", tables)
    for parts in (1, 3):
        with pytest.raises(DataError, match=f"must have one .*{first}"):
            prepared(tmp_path, SHOP, parts)
