"""A day after a day has the features of all days at once, to the bit; codes and vocabularies only grow."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from features.dataset import SPLITS, Dataset
from features.doctor import examine
from features.durable.faults import InjectedFault, injected
from features.encode.encoding import encoding_of
from features.encode.fitted import Fitted
from features.encode.row_map import map_rows
from features.errors import ConfigError, DataError
from features.partitions.frames import read_frame
from features.partitions.workers import Resources
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.lineage.days import (
    LATER_SPLIT,
    all_at_once,
    assert_same_features,
    cut,
    day_by_day,
    one_day,
    written,
)
from tests.features.partitions.test_equal import RATINGS, SHOP
from tests.features.small_log import Tables, changed, rating_tables, shop_tables, write_tables

RATING_TIMES, SHOP_TIMES = {"ratings": "timestamp"}, {"shown": "at", "events": "at"}
RATING_DAYS = [880_000_000 + 3600 * hour for hour in (14, 22, 23, 31)]
RATING_SPLIT = {"valid": RATING_DAYS[0] - 3 * 3600, "test": RATING_DAYS[0] - 2 * 3600}
RATING_EARLY = {"valid": 880_000_000 + 8 * 3600, "test": 880_000_000 + 9 * 3600}
SHOP_DAYS = [1_700_000_000_000 + day * 20_000_000 for day in (2, 3, 4)]
SHOP_EARLY = {"valid": 1_700_000_000_000 + 20_000_000, "test": 1_700_000_000_000 + 26_000_000}
SHOP_SPLIT = {"valid": SHOP_DAYS[0] - 10_000_000, "test": SHOP_DAYS[0] - 5_000_000}


@dataclass(frozen=True)
class Ratings:
    """Five days of ratings; one user and two movies are new after the first."""

    root: Path
    cuts: list[Tables]
    days: list[Path]


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Ratings:
    root, cuts = tmp_path_factory.mktemp("ratings"), cut(rating_tables(400), RATING_TIMES, RATING_DAYS)
    first = cuts[0]["ratings"].filter(pl.col("user_id") != 7, pl.col("movie_id") < 19)
    cuts[0] = {**cuts[0], "ratings": first}
    return Ratings(root, cuts, day_by_day(root, RATINGS, cuts, RATING_SPLIT))


def test_ratings_with_an_order_windows_and_counters_of_counters(ratings: Ratings, tmp_path: Path) -> None:
    tables = {**ratings.cuts[0], "ratings": pl.concat([day["ratings"] for day in ratings.cuts])}
    assert_same_features(all_at_once(tmp_path, RATINGS, tables, RATING_SPLIT), ratings.days)


def test_a_shop_with_ticks_of_two_lengths(tmp_path: Path) -> None:
    tables = shop_tables(120)
    days = day_by_day(tmp_path, SHOP, cut(tables, SHOP_TIMES, SHOP_DAYS[:1]), SHOP_SPLIT)
    assert_same_features(all_at_once(tmp_path, SHOP, tables, SHOP_SPLIT), days)


def without_common_ticks(seed: int = 0, requests: int = 120) -> dict[str, pl.DataFrame]:
    """The shop with events that are logged to the millisecond, as its impressions are."""
    tables = shop_tables(requests, seed)
    return {**tables, "events": tables["events"].with_columns(pl.col("at") + 1)}


def with_short_histories() -> dict[str, object]:
    """The shop with histories of three events and the gaps between them, which no match looks behind."""
    spec = changed(
        SHOP, counters__device={"by": ["device", "tags"], "outputs": ["count", "rate", "since_last"]}
    )
    for kind in ("view", "cart"):
        spec["domains"][kind] |= {"max_len": 3}
        spec["domains"][kind]["side"]["gap"] = {"since_previous": True}
    return changed(
        spec,
        features__counts={"columns": ["count.*"], "scale": "none"},
        tokens__all=[*spec["tokens"]["all"], "counts"],
    )


def test_only_the_ends_of_histories_are_handed_on(tmp_path: Path) -> None:
    tables, spec = without_common_ticks(), with_short_histories()
    days = day_by_day(tmp_path, spec, cut(tables, SHOP_TIMES, SHOP_DAYS[:2]), SHOP_SPLIT)
    assert_same_features(all_at_once(tmp_path, spec, tables, SHOP_SPLIT), days)
    kept = read_frame(days[-1] / "state" / "events-view.arrow")
    assert kept["__user"].value_counts()["count"].max() == 4
    assert kept.height < tables["events"].filter(pl.col("kind") == "view").height


def test_codes_and_vocabularies_only_grow_and_the_manifest_says_so(ratings: Ratings) -> None:
    days = [Dataset(path) for path in ratings.days]
    for old, new in pairwise(days):
        for name in ("users", "items"):
            keys, grown = (_column(d, f"keys/{name}.parquet", "key") for d in (old, new))
            assert grown[: len(keys)] == keys and len(set(grown)) == len(grown)
            assert len(grown) - len(keys) == new.manifest.lineage.grew[name].new
        for name in ("item", "genre", "rating"):
            values, grown = (_column(d, f"fitted/{name}.parquet", "value") for d in (old, new))
            assert grown[: len(values)] == values and len(set(grown)) == len(grown)
            assert len(grown) - len(values) == new.manifest.lineage.grew[f"table {name}"].new
        for name, known in encoding_of(old).tables.items():
            if known.encode == "vocabulary":  # and nothing but the digests of the ancestor is needed
                assert map_rows(new, name, known, pytest.fail).why_not_exact() is None
        assert new.manifest.lineage.ancestors[-1] == old.manifest.digest()
        assert new.descends_from(old.manifest.digest()) and not old.descends_from(new.manifest.digest())
        assert encoding_of(new).scales == encoding_of(old).scales
        assert Fitted(new).parts == Fitted(old).parts
    assert [d.manifest.lineage.generation for d in days[1:]] == [1, 2, 3, 4]
    grew = [d.manifest.lineage.grew for d in days[1:]]
    assert [sum(g[name].new for g in grew) for name in ("users", "items")] == [1, 2]
    assert days[-1].manifest.lineage.impressions == sum(c["ratings"].height for c in ratings.cuts[:-1])
    assert [c for c in examine(days[-1].root).checks if c.status == "fail"] == []


def test_a_user_of_an_earlier_day_is_known(ratings: Ratings) -> None:
    earlier = set(ratings.cuts[0]["ratings"]["user_id"])
    data = Dataset(ratings.days[1])
    keys = _column(data, "keys/users.parquet", "key")
    seen: set[int] = set()
    for name in SPLITS:
        requests = data.split(name).requests
        for code, known in zip(
            requests["user_id"].to_pylist(), requests["known_user"].to_pylist(), strict=True
        ):
            assert known == (keys[code] in earlier | seen)
            seen |= {keys[code]} if name == "train" else set()


def test_without_a_state_the_bytes_are_those_of_before(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", rating_tables(200))
    for name, keep in (("plain", False), ("with", True)):
        prepare(parse_spec(RATINGS), tmp_path / name, base=tmp_path / "raw", keep_state=keep)
    plain, kept = written(tmp_path / "plain"), written(tmp_path / "with")
    assert {n: h for n, h in kept.items() if not n.startswith("state/") and n != "manifest.json"} == {
        n: h for n, h in plain.items() if n != "manifest.json"
    }
    assert not (tmp_path / "plain" / "state").exists()


def test_a_day_that_was_interrupted_is_prepared_again_to_the_same_bytes(
    ratings: Ratings, tmp_path: Path
) -> None:
    for name in ("raw-1", "day-0"):
        shutil.copytree(ratings.root / name, tmp_path / name)
    spec, whole = changed(RATINGS, split=LATER_SPLIT), written(ratings.days[1])
    with injected("dataset.before_rename:raise"), pytest.raises(InjectedFault):
        one_day(tmp_path, spec, 1)
    assert written(one_day(tmp_path, spec, 1)) == whole


def test_what_cannot_go_on_is_refused(ratings: Ratings, tmp_path: Path) -> None:
    cuts, days = ratings.cuts, ratings.days
    raw = tmp_path / "raw-late"
    write_tables(raw, {**cuts[2], "ratings": pl.concat([cuts[2]["ratings"], cuts[1]["ratings"].head(3)])})

    def refused(error: type[Exception], said: str, after: Path = days[1], **more: Any) -> None:
        spec = parse_spec(changed(RATINGS, **more))
        with pytest.raises(error, match=said):
            prepare(spec, tmp_path / "out", base=raw, after=after)

    refused(DataError, r"3 of .* impressions are not; the first is at .*3 rows \(rows ")
    refused(
        ConfigError, r"tables\.item\.oov_rows: 3 there, 4 here", tables__item={"oov_rows": 4, "min_count": 2}
    )
    prepare(parse_spec(RATINGS), tmp_path / "plain", base=ratings.root / "raw-0")
    refused(DataError, "prepare it again with --state", after=tmp_path / "plain")
    texts = cuts[2]["ratings"].with_columns(pl.format("u{}", "user_id").alias("user_id"))
    write_tables(raw, {**cuts[2], "ratings": texts})
    refused(DataError, "user keys must be Int64")
    damaged = shutil.copytree(days[1], tmp_path / "damaged") / "state" / "counter-item.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    refused(DataError, "counter-item.arrow has changed since it was written", after=damaged.parents[1])
    assert not (tmp_path / "out").exists()


def test_a_log_that_cannot_be_cut_in_time_has_no_state(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", rating_tables(200))
    late = parse_spec(changed(RATINGS, impressions__label={"column": "rating", "at_least": 4, "delay": "1h"}))
    with pytest.raises(ConfigError, match="known later than its row; prepare all days at once"):
        prepare(late, tmp_path / "out", base=tmp_path / "raw", keep_state=True)
    pair = {"candidate": "movie_id", "domain": "ratings", "event": "movie_id"}
    paired = parse_spec(changed(RATINGS, pairs={"seen_with": pair}))
    with pytest.raises(ConfigError, match="histories of all users in time order; prepare all days at once"):
        prepare(paired, tmp_path / "out", base=tmp_path / "raw", keep_state=True)
    steps: list[str] = []
    whole = Resources(partitions=3)
    prepare(paired, tmp_path / "out", base=tmp_path / "raw", resources=whole, progress=steps.append)
    assert any(step.startswith("in one partition, all in memory: pairs meet") for step in steps)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ConfigError, match="in one partition; drop --partitions"):
        many = Resources(partitions=3)
        prepare(parse_spec(RATINGS), tmp_path / "out", base=tmp_path / "raw", keep_state=True, resources=many)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_log_and_any_days(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds = [
        880_000_000 + 3600 * int(hour) for hour in sorted(rng.choice(range(12, 38, 3), 4, replace=False))
    ]
    tables = rating_tables(int(rng.integers(250, 500)), seed=seed)
    days = day_by_day(tmp_path / "a", RATINGS, cut(tables, RATING_TIMES, bounds), RATING_EARLY)
    assert_same_features(all_at_once(tmp_path / "a", RATINGS, tables, RATING_EARLY), days)
    tables, spec = without_common_ticks(seed, 150), with_short_histories()
    chosen = np.sort(rng.choice(range(6, 15), 4, replace=False)) * tables["shown"].height // 16
    bounds = [at // 1000 * 1000 for at in tables["shown"]["at"].gather(chosen).to_list()]
    days = day_by_day(tmp_path / "b", spec, cut(tables, SHOP_TIMES, bounds), SHOP_EARLY)
    assert_same_features(all_at_once(tmp_path / "b", spec, tables, SHOP_EARLY), days)


def _column(data: Dataset, name: str, column: str) -> list[Any]:
    found: list[Any] = pq.read_table(data.root / name)[column].to_pylist()
    return found
