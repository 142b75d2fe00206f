"""What `ctr prepare` writes: rows, histories, vocabularies, numbers and times, against the raw tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, dense_values, id_values, read_arrow
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    changed,
    prepared,
    rating_tables,
    run,
    shop_tables,
)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("ratings"), RATINGS_SPEC, rating_tables())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("shop"), SHOP_SPEC, shop_tables())


def test_parts_hold_all_rows_in_time_order(ratings: Dataset) -> None:
    """20 % of the rows are not for training; the clock rises through all parts."""
    clocks = np.concatenate([ratings.split(s).requests["clock"].to_numpy() for s in SPLITS])
    rows = [ratings.split(s).impressions.num_rows for s in SPLITS]
    total = rating_tables()["ratings"].height
    assert sum(rows) == total
    assert rows[2] == total - int(round(0.9 * total, 6))
    assert (np.diff(clocks) > 0).all()


def test_files_hold_what_the_manifest_says(ratings: Dataset) -> None:
    for name, info in ratings.manifest.splits.items():
        split = ratings.split(name)
        assert split.requests.num_rows == info.requests
        assert split.impressions.num_rows == info.impressions == split.row_offsets[-1]
        assert split.impressions["label"].to_numpy().sum() == info.positives
    assert {c.name: c.level for c in ratings.manifest.features} == {
        "sex": "request", "age": "request", "item": "candidate", "genres": "candidate",
        "hour": "request", "year": "candidate", "counts": "candidate",
    }  # fmt: skip
    assert ratings.manifest.counters["impressions.unknown_item"] > 0
    assert len(read_arrow(ratings.root / "events" / "ratings.arrow")["clock"].chunks) == 1


@pytest.mark.fault(19, 23)
def test_history_is_what_the_user_rated_before(ratings: Dataset) -> None:
    """Against the raw table: the five newest ratings of the user, strictly before in (time, user, item)."""
    raw = rating_tables()["ratings"].sort("timestamp", "user_id", "movie_id").rows(named=True)
    store = ratings.events("ratings")
    rating_of = {
        i: v for v, i in pl.read_parquet(ratings.root / "fitted" / "rating.parquet")["value", "id"].rows()
    }
    requests = pl.concat([pl.DataFrame(ratings.split(s).requests) for s in SPLITS])
    for row, request in zip(raw, requests.rows(named=True), strict=True):
        clock = request["clock"]
        before = [r["rating"] for r in raw[:clock] if r["user_id"] == row["user_id"]][-5:]
        events = range(request["start.ratings"], request["end.ratings"])
        assert [rating_of.get(store.ids["rating"].values[e]) for e in events] == before
        assert request["known_user"] == any(
            r["user_id"] == row["user_id"]
            for r in raw[: min(clock, ratings.manifest.splits["train"].requests)]
        )


def test_vocabulary_holds_training_values_only(ratings: Dataset) -> None:
    """Counted anew from the raw table: train rows, and events before the first other row, at least twice."""
    raw = rating_tables()["ratings"].sort("timestamp", "user_id", "movie_id")
    train = raw.head(ratings.manifest.splits["train"].impressions)
    counts = train["movie_id"].value_counts()  # impressions; the same ratings as events do not count
    wanted = counts.filter(pl.col("count") >= 2).sort("count", "movie_id", descending=[True, False])
    book = pl.read_parquet(ratings.root / "fitted" / "item.parquet")
    assert book["value"].to_list() == wanted["movie_id"].to_list()
    assert book["count"].to_list() == wanted["count"].to_list()
    assert book["id"].to_list() == list(range(4, 4 + wanted.height))  # 0 missing, 1 … 3 unknown
    assert ratings.manifest.tables["item"].rows == 4 + wanted.height


def test_list_and_missing_values(ratings: Dataset) -> None:
    """`b|c|d` keeps two genres; an unknown movie, null and "" have none; a missing sex is 0."""
    split = ratings.split("train")
    items = pl.read_parquet(ratings.root / "keys" / "items.parquet")["key"]
    genres = dict(rating_tables()["movies"]["movie_id", "genres"].iter_rows())
    ids = id_values(split.impressions, ratings.manifest.column("genres"))
    assert ids.offsets is not None
    lengths = np.diff(ids.offsets)
    raw = [(genres.get(items[i]) or "").split("|") for i in split.impressions["item_id"].to_pylist()]
    assert lengths.tolist() == [min(len([g for g in parts if g]), 2) for parts in raw]
    sex = dict(rating_tables()["users"]["user_id", "sex"].iter_rows())
    users = pl.read_parquet(ratings.root / "keys" / "users.parquet")["key"]
    missing = [sex[users[u]] is None for u in split.requests["user_id"].to_pylist()]
    values = id_values(split.requests, ratings.manifest.column("sex")).values
    assert ((values == 0) == missing).all()


def test_dense_is_scaled_on_training_rows(ratings: Dataset) -> None:
    column = ratings.manifest.column("year")
    assert column.fields == ["item.year", "item.year.missing"]
    train = dense_values(ratings.split("train").impressions, column)
    known = train[train[:, 1] == 0, 0]
    assert known.mean() == pytest.approx(0, abs=1e-5) and known.std() == pytest.approx(1, abs=1e-5)
    assert (train[train[:, 1] == 1, 0] == 0).all() and train[:, 1].sum() > 0


def test_requests_keep_their_rows_and_positions(shop: Dataset) -> None:
    raw = shop_tables()["shown"].sort("at", "user", "request", "position")
    items = pl.read_parquet(shop.root / "keys" / "items.parquet")["key"]
    keys = ["row_id", "label", "item_id"]
    impressions = pl.concat([pl.DataFrame(shop.split(s).impressions.select(keys)) for s in SPLITS])
    assert impressions["label"].to_list() == raw["click"].to_list()
    assert [items[i] for i in impressions["item_id"]] == raw["item"].to_list()
    assert impressions["row_id"].to_list() == list(range(raw.height))
    keys = ["num_rows", "time", "clock"]
    requests = pl.concat([pl.DataFrame(shop.split(s).requests.select(keys)) for s in SPLITS])
    sizes = raw.group_by("request", maintain_order=True).agg(pl.len(), pl.col("at").first())
    assert requests["num_rows"].to_list() == sizes["len"].to_list()
    assert requests["clock"].to_list() == sizes["at"].to_list()  # native milliseconds
    assert requests["time"].to_list() == (sizes["at"] // 1000).to_list()


def test_domains_filter_their_events(shop: Dataset) -> None:
    raw = shop_tables()["events"]
    for kind in ("view", "cart"):
        assert shop.events(kind).info.events == raw.filter(pl.col("kind") == kind).height
        assert shop.events(kind).dense["dwell"].std() == pytest.approx(1, abs=0.15)


def test_weights_follow_their_values(shop: Dataset) -> None:
    ids = id_values(shop.split("train").impressions, shop.manifest.column("tags"))
    assert ids.offsets is not None and ids.weights is not None
    for start, end in zip(ids.offsets, ids.offsets[1:], strict=False):
        assert ids.weights[start:end].tolist() == [1.0 + i for i in range(end - start)]


@pytest.mark.fault(22)
def test_order_of_the_input_does_not_matter(tmp_path: Path) -> None:
    """Fault 22: shuffled tables give the same dataset, byte for byte; so does running twice."""
    for spec, tables in ((RATINGS_SPEC, rating_tables()), (SHOP_SPEC, shop_tables())):
        first = run(tmp_path, spec, tables, out=f"{spec['name']}-1")
        again = run(tmp_path, spec, tables, out=f"{spec['name']}-2")
        shuffled = {n: t.sample(fraction=1.0, shuffle=True, seed=3) for n, t in tables.items()}
        other = run(tmp_path, spec, shuffled, out=f"{spec['name']}-3")
        assert first.files == again.files == other.files
        assert first.digest() == other.digest()


def test_future_values_do_not_reach_the_fit(tmp_path: Path) -> None:
    """Other ratings and items in the test period change nothing that was fitted, nor the train part."""
    tables = rating_tables()
    first = run(tmp_path, RATINGS_SPEC, tables, out="a")
    last = tables["ratings"]["timestamp"].max()
    late = pl.col("timestamp") == last
    tables["ratings"] = tables["ratings"].with_columns(
        pl.when(late).then(pl.lit(1)).otherwise("rating").cast(pl.Int8).alias("rating"),
        pl.when(late).then(pl.col("movie_id") + 1000).otherwise("movie_id").alias("movie_id"),
    )
    second = run(tmp_path, RATINGS_SPEC, tables, out="b")
    assert first.files["test/impressions.arrow"] != second.files["test/impressions.arrow"]
    same = [f for f in first.files if f.startswith(("fitted/", "train/requests"))]
    assert [first.files[f] for f in same] == [second.files[f] for f in same]


def test_calendar_and_gaps_by_hand(ratings: Dataset) -> None:
    split, store = ratings.split("test"), ratings.events("ratings")
    time = split.requests["time"].to_numpy()
    assert (split.requests["id.hour"].to_numpy() == time % 86_400 // 3600 + 1).all()
    for event in range(1, 40):
        gap = store.time[event] - store.time[event - 1]
        first = store.user_id[event] != store.user_id[event - 1]
        assert store.ids["gap"].values[event] == (0 if first else 1 + int(np.log2(1 + gap)))


def test_weekday_counts_from_monday(tmp_path: Path) -> None:
    """1970-01-01 was a Thursday; an offset moves the border of the days."""
    weekday = {"calendar": "weekday", "offset_hours": 2}
    data = prepared(tmp_path, changed(RATINGS_SPEC, features__hour=weekday), rating_tables())
    requests = data.split("train").requests
    days = pl.from_epoch(pl.Series(requests["time"].to_numpy() + 7200)).dt.weekday()
    assert requests["id.hour"].to_pylist() == days.to_list()


def test_parts_may_be_left_out(tmp_path: Path) -> None:
    data = prepared(tmp_path, changed(RATINGS_SPEC, split={"valid": 0, "test": 0}), rating_tables())
    assert data.split("valid").requests.num_rows == 0
    assert data.split("train").impressions.num_rows == rating_tables()["ratings"].height


def test_a_domain_without_events_is_a_normal_case(tmp_path: Path) -> None:
    spec = changed(SHOP_SPEC, domains__view__where={"kind": ["never"]})
    data = prepared(tmp_path, spec, shop_tables())
    assert data.manifest.domains["view"].events == 0 and data.events("view").dense["dwell"].shape == (0, 1)
    assert (data.split("train").requests["end.view"].to_numpy() == 0).all()
