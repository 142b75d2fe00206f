"""ML_1MCTR's rows and parts: its rules against plain Python, and the published counts where the data is."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from features.errors import DataError
from features.sources import ml_1mctr, read_source
from features.sources.ml_1mctr import TEST, VALID, select_rows
from features.spec import Source, load_spec
from tests.documents import ROOT

DATA = Path(os.environ.get("CTR_REAL_DATA", ROOT.parent / "shared" / "data")) / "ml-1m"
DAY = 86_400


def log(seed: int) -> pl.DataFrame:
    draw = random.Random(seed)
    rows = [
        (
            int(40 * draw.random() ** 2),
            int(30 * draw.random() ** 2),
            draw.randrange(1, 6),
            10_000 * DAY + draw.randrange(40 * DAY),
        )
        for _ in range(700)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")


def by_hand(rows: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    while True:
        liked = [row for row in rows if row[2] >= 4]
        users, items = Counter(row[0] for row in liked), Counter(row[1] for row in liked)
        kept = [row for row in rows if users[row[0]] >= 5 and items[row[1]] >= 5]
        if kept == rows:
            break
        rows = kept
    days = [(row[3] + 8 * 3600) // DAY for row in rows]
    first, span = min(days), max(days) - min(days)
    part = [0 if d - first <= 0.8 * span else 1 if d - first <= 0.9 * span else 2 for d in days]
    train = [row for row, p in zip(rows, part, strict=True) if p == 0]
    users, items = {row[0] for row in train}, {row[1] for row in train}
    kept = [row for row, p in zip(rows, part, strict=True) if p == 0 or (row[0] in users and row[1] in items)]
    midnights = range(10_000 * DAY - 8 * 3600, 10_041 * DAY, DAY)
    begins = [
        next(t for t in midnights if (t + 8 * 3600) // DAY - first > share * span) for share in (0.8, 0.9)
    ]
    return kept, begins


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_the_rules(seed: int) -> None:
    frame = log(seed)
    want, (valid, test) = by_hand(frame.rows())
    assert select_rows(frame, valid=valid, test=test).rows() == want
    assert 0 < len(want) < len(frame)
    with pytest.raises(DataError, match=rf"would be cut at {valid} and {test}; give the 1M edition"):
        select_rows(frame, valid=valid + DAY, test=test)


def test_the_specs_cut_where_the_reader_does() -> None:
    for name in ("ml-1mctr", "ml-1mctr-published"):
        split = load_spec(ROOT / "pipelines" / "configs" / "specs" / f"{name}.yaml").split
        assert split.valid == "2002-08-05T16:00:00" and split.test == "2002-11-17T16:00:00"
    assert [pl.from_epoch(pl.Series([t]))[0].isoformat() for t in (VALID, TEST)] == [split.valid, split.test]


def test_another_edition_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"userId": [1], "movieId": [2], "rating": [4.0], "timestamp": [978_300_002]}).write_csv(
        tmp_path / "ratings.csv"
    )
    pl.DataFrame({"movieId": [2], "title": ["a (1999)"], "genres": ["Drama"]}).write_csv(
        tmp_path / "movies.csv"
    )
    with pytest.raises(DataError, match="ML_1MCTR cuts MovieLens 1M"):
        read_source(Source(kind="ml_1mctr", path=tmp_path.name), base=tmp_path.parent)


@pytest.mark.skipif(not DATA.is_dir(), reason="MovieLens 1M is not here")
def test_the_counts_are_the_published_ones() -> None:
    ratings = ml_1mctr.read(DATA)["ratings"].collect()
    parts = [
        ratings.filter(pl.col("timestamp") < VALID),
        ratings.filter(pl.col("timestamp").is_between(VALID, TEST, closed="left")),
        ratings.filter(pl.col("timestamp") >= TEST),
    ]
    assert [len(part) for part in parts] == [983_836, 5_190, 5_176]
    assert [part["liked"].sum() for part in parts] == [568_761, 2_651, 2_874]
    assert parts[2]["user_id"].n_unique() == 256
