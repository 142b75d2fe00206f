"""IDs of any size and character, through `ctr prepare` into a data set."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, id_values
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    changed,
    prepared,
    rating_tables,
    shop_tables,
)


@pytest.mark.fault(15)
def test_bad_ids_of_any_size_have_a_row(tmp_path: Path) -> None:
    """Fault 15: negative and huge IDs are values like any other, in vocabularies and hashes."""
    tables = rating_tables()
    movies = tables["ratings"]["movie_id"]
    odd = [-1, 2**31, 2**63 - 1, -(2**63)]
    tables["ratings"] = tables["ratings"].with_columns(
        pl.Series("movie_id", [odd[i % 7] if i % 7 < 4 else m for i, m in enumerate(movies)])
    ).unique(["user_id", "movie_id", "timestamp"], maintain_order=True)  # fmt: skip
    for name, table in (
        ("hash", {"encode": "hash", "rows": 7}),
        ("vocabulary", {"oov_rows": 2, "max_size": 3}),
    ):
        data = prepared(tmp_path, changed(RATINGS_SPEC, tables__item=table), tables, out=name)
        for split in SPLITS:
            ids = id_values(data.split(split).impressions, data.manifest.column("item")).values
            assert ids.min() >= 1 and ids.max() < data.manifest.tables["item"].rows


@pytest.mark.fault(36)
def test_huge_ids_and_ids_of_odd_characters_stay_apart(tmp_path: Path) -> None:
    """Users and items whose IDs differ in their last character, or in how a letter is written, alone."""
    tables = shop_tables()
    long, odd = "x" * 2**14, ["\u00e9", "e\u0301", "\u202eab", "a\x00", "a", " a", "\U0001f600"]
    items = pl.concat([t["item"] for t in tables.values()]).unique().sort().to_list()
    names = {item: (odd[i] if i < len(odd) else f"{long}{i}") for i, item in enumerate(items)}
    assert len(set(names.values())) == len(items) > len(odd) + 2
    renamed = {n: t.with_columns(pl.col("item").replace_strict(names)) for n, t in tables.items()}
    plain, other = (prepared(tmp_path / n, SHOP_SPEC, t) for n, t in (("a", tables), ("b", renamed)))
    keys = [pl.read_parquet(d.root / "keys" / "items.parquet").sort("code")["key"] for d in (plain, other)]
    assert set(keys[1]) == {names[key] for key in keys[0]}
    for split in SPLITS:
        ours, theirs = (d.split(split).impressions["item_id"].to_pylist() for d in (plain, other))
        assert [names[keys[0][code]] for code in ours] == [keys[1][code] for code in theirs]


@pytest.mark.fault(36)
def test_hashed_ids_keep_their_rows_when_the_log_grows(tmp_path: Path) -> None:
    """In a vocabulary rows follow the counts; a run on the old data refuses the new one (fault 7)."""
    tables = rating_tables()
    spec = changed(RATINGS_SPEC, tables__item={"encode": "hash", "rows": 50})
    more = tables["ratings"].with_columns(pl.col("movie_id") + 1000, pl.col("timestamp") + 10**7)
    grown = tables | {"ratings": pl.concat([tables["ratings"], more])}
    old, new = (prepared(tmp_path / n, spec, t) for n, t in (("a", tables), ("b", grown)))

    def rows_of(data: Dataset) -> dict[int, int]:
        book = pl.read_parquet(data.root / "keys" / "items.parquet")
        raw = dict(book.select("code", "key").rows())
        found: dict[int, int] = {}
        for split in SPLITS:
            part = data.split(split).impressions
            ids = id_values(part, data.manifest.column("item")).values.tolist()
            found |= {raw[code]: row for code, row in zip(part["item_id"].to_pylist(), ids, strict=True)}
        return found

    before, after = rows_of(old), rows_of(new)
    assert len(after) > len(before) > 10 and {key: after[key] for key in before} == before
    assert old.manifest.digest() != new.manifest.digest()
