"""A data set does not depend on how many partitions it is prepared in, to the byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from features.dataset import Dataset
from features.errors import DataError
from features.partitions import combine, job
from features.partitions.workers import Resources
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.partitions.kinds import KINDS
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
        "recent": {
            "by": ["movie_id"],
            "window": "12h",
            "outputs": ["count", "rate", "since_last", "since_first"],
        },
    },
    matches__genre__outputs=["count", "decayed", "recency", "last", "share", "positive_share"],
    domains__ratings__outcome={"column": "rating", "at_least": 4},
    domains__ratings__side__stars={"columns": ["rating", "item.year"], "scale": "standard"},
    ages={"movie": "item.added", "account": "user.joined"},
    crosses={"taste": ["user.sex", "item.genres"], "group": ["user.age", "user.sex"]},
    tables__taste={"min_count": 2},
    features__taste={"column": "cross.taste", "table": "taste"},
    features__group={"column": "cross.group", "table": "taste"},
    pages={
        "age": {"column": "age.movie"},
        "year": {"column": "item.year"},
        "rate": {"column": "count.item.rate", "outputs": ["value", "rank"]},
    },
    features__pages={"columns": ["page.*"], "scale": "quantile"},
    features__ages={"columns": ["age.*"], "scale": "log"},
    features__account={"column": "age.account", "table": "age"},
    slices__taste="cross.taste",
    tokens__rest=["hour", "counts", "pages", "ages", "account", "taste", "group"],
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
    same(tmp_path, RATINGS, rating_tables(), parts=(5,))


def many_users() -> Tables:
    """Three times the ratings of twelve users, each of other users."""
    copies = [rating_tables(80, seed) for seed in range(3)]

    def all_of(table: str) -> pl.DataFrame:
        return pl.concat(c[table].with_columns(pl.col("user_id") + 12 * i) for i, c in enumerate(copies))

    return {"ratings": all_of("ratings"), "users": all_of("users"), "movies": copies[0]["movies"]}


@pytest.mark.slow
def test_any_number_of_partitions_and_workers(tmp_path: Path) -> None:
    """The corners of 1, 4 and 16 partitions with 1, 2 and 3 workers."""
    write_tables(tmp_path / "raw", many_users())
    whole = prepared(tmp_path, RATINGS, 1)
    for parts, workers in ((16, 1), (4, 2), (16, 3)):
        assert prepared(tmp_path, RATINGS, parts, workers=workers) == whole


def test_a_shop_with_requests_texts_and_duplicates(tmp_path: Path) -> None:
    tables = shop_tables()
    shown = tables["shown"]
    tables["shown"] = pl.concat([shown, shown[::7]])
    same(tmp_path, SHOP, tables)


@pytest.mark.parametrize("kind", KINDS)
def test_logs_of_every_kind(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BATCH", 16)
    monkeypatch.setattr(combine, "SHARE", 100)
    same(tmp_path, *KINDS[kind](), parts=(3,))


def test_moments_of_users_that_are_in_another_unit_in_each_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory they are refused; a share by itself would take each for what it looks like."""
    monkeypatch.setattr(combine, "SHARE", 6)
    tables = rating_tables(60)
    joined = pl.Series([870_000_000] * 6 + [870_000_000_000] * 6)
    write_tables(tmp_path / "raw", {**tables, "users": tables["users"].with_columns(joined=joined)})
    for parts, message in ((1, "'joined': times must be in one unit"), (3, "'joined': times are of several")):
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, RATINGS, parts)


def test_half_of_all_rows_of_one_user_and_one_item_and_of_one_moment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = rating_tables(200)
    most = rng.random(tables["ratings"].height) < 0.5
    tables["ratings"] = tables["ratings"].with_columns(
        pl.when(pl.Series(most)).then(7).otherwise("user_id").alias("user_id"),
        pl.when(pl.Series(np.roll(most, 3))).then(880_000_000).otherwise("timestamp").alias("timestamp"),
    )
    tables["ratings"] = tables["ratings"].unique(["user_id", "movie_id", "timestamp"], maintain_order=True)
    same(tmp_path, RATINGS, tables, parts=(4,))


def test_files_that_cannot_be_read_are_left_out_by_every_task(tmp_path: Path) -> None:
    """One is cut off, and one has a flipped bit in a page, which only the process that begins looks for."""
    tables, folder = rating_tables(120), tmp_path / "raw" / "ratings"
    write_tables(tmp_path / "raw", tables)
    folder.mkdir()
    paths = [folder / f"{number}.parquet" for number in range(4)]
    how: dict[str, Any] = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    for path, part in zip(paths, tables["ratings"].iter_slices(30), strict=True):
        pq.write_table(part.to_arrow(), path, **how)
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    flipped = bytearray(paths[2].read_bytes())
    page = pq.ParquetFile(paths[2]).metadata.row_group(0).column(0)
    flipped[page.data_page_offset + page.total_compressed_size - 3] ^= 1
    paths[2].write_bytes(flipped)
    spec = changed(RATINGS, source__tables__ratings={"path": "ratings/*.parquet"})
    spec["source"]["options"] = {"on_error": "skip"}
    whole = prepared(tmp_path, spec, 1)
    assert prepared(tmp_path, spec, 3) == whole
    assert Dataset(tmp_path / "parts-3-1").manifest.counters["files.ratings.skipped"] == 2


def test_more_partitions_than_users(tmp_path: Path) -> None:
    tables = rating_tables(60)
    tables["ratings"] = tables["ratings"].filter(pl.col("user_id") < 3)
    same(tmp_path, RATINGS, tables, parts=(4,))


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


def test_tables_of_which_no_column_is_read_change_nothing(tmp_path: Path) -> None:
    item = {"column": "movie_id", "table": "item"}
    spec = changed(
        RATINGS_SPEC,
        tables={"item": {}},
        features={"item": item},
        domains__ratings__side={"item": item},
        matches={},
        tokens={"all": ["item"]},
        slices={},
    )
    same(tmp_path, spec, rating_tables(60), parts=(2,))
    write_tables(tmp_path / "none" / "raw", rating_tables(60))
    prepared(tmp_path / "none", {n: part for n, part in spec.items() if n not in ("user", "item")}, 1)
    with_tables, without = (written(root / "parts-1-1") for root in (tmp_path, tmp_path / "none"))
    assert {n for n in without if without[n] != with_tables[n]} <= {"spec.yaml", "manifest.json"}
