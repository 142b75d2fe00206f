from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, dense_values, id_values, read_arrow
from features.errors import ConfigError, DataError
from features.prepare import check, prepare
from features.raw import RawEncoder
from features.spec import parse_spec
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    changed,
    prepared,
    rating_tables,
    run,
    shop_tables,
    write_tables,
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
