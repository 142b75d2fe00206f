"""The simulated log: reproducible, whole or absent, and consistent in itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import ConfigError
from features.synthetic import Sizes, simulate, write
from tests.features.synthetic.logs import Log, read

SMALL = {"users": 40, "items": 200, "categories": 5, "requests_per_user": 3, "events_per_user": 20}


def hashes(log_dir: Path) -> dict[str, str]:
    """sha256 of every file by relative name."""
    files = sorted(p for p in log_dir.rglob("*") if p.is_file())
    return {str(p.relative_to(log_dir)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate(tmp_path / name, seed=seed, **SMALL)
    same, again, other = (hashes(tmp_path / name) for name in "abc")
    assert same == again
    assert same.keys() == other.keys()
    assert all(same[name] != other[name] for name in same)


def test_the_chunk_size_changes_the_files_but_not_the_log(tmp_path: Path) -> None:
    sizes = SMALL | {"users": 2_100, "requests_per_user": 1, "events_per_user": 4}
    simulate(tmp_path / "fine", chunk_users=1, **sizes)
    simulate(tmp_path / "coarse", chunk_users=100_000, **sizes)
    assert len(list((tmp_path / "fine" / "view").iterdir())) == 3
    assert len(list((tmp_path / "coarse" / "view").iterdir())) == 1
    for name in ("users", "items", "impressions", "view", "cart", "search", "truth/impressions"):
        assert read(tmp_path / "fine", name).equals(read(tmp_path / "coarse", name)), name


def test_the_first_users_stay_the_same_when_blocks_are_added(tmp_path: Path) -> None:
    sizes = SMALL | {"requests_per_user": 1, "events_per_user": 4}
    simulate(tmp_path / "one", **(sizes | {"users": 1_024}))
    simulate(tmp_path / "two", **(sizes | {"users": 1_500}))
    more = read(tmp_path / "two", "impressions").filter(pl.col("user_id") <= 1_024)
    assert more.equals(read(tmp_path / "one", "impressions"))


def test_schema(log: Log) -> None:
    keys = {"user_id": pl.Int64, "item_id": pl.Int64}
    side = {"category_id": pl.Int32, "brand_id": pl.Int32, "price": pl.Float64, "time": pl.Int64}
    expected = {
        "impressions": {"request_id": pl.Int64, **keys, "time": pl.Int64, "position": pl.Int32}
        | {"device": pl.String, "page": pl.String, "noise_context": pl.Int32, "clicked": pl.Int8},
        "view": keys | side | {"dwell": pl.Float32, "outcome": pl.String},
        "cart": keys | side,
        "search": {"user_id": pl.Int64, "query_id": pl.Int32, "category_id": pl.Int32, "time": pl.Int64},
        "users": {"user_id": pl.Int64, "segment": pl.String, "age_band": pl.String}
        | {"country": pl.String, "joined": pl.Int64, "noise_user": pl.Int32},
        "items": {"item_id": pl.Int64, "category_id": pl.Int32, "brand_id": pl.Int32, "price": pl.Float64}
        | {"tags": pl.List(pl.String), "created": pl.Int64, "noise_item": pl.Int32},
    }
    for name, columns in expected.items():
        assert dict(read(log[0], name).schema) == columns, name


def test_row_counts_in_meta_are_those_of_the_files(log: Log) -> None:
    out, meta = log
    assert meta == json.loads((out / "truth" / "meta.json").read_text())
    assert meta["rows"] == {name: read(out, name).height for name in meta["rows"]}


def test_missing_values_are_null_and_only_where_documented(log: Log) -> None:
    maybe = {("users", "age_band"), ("users", "country"), ("items", "price"), ("items", "brand_id")}
    maybe |= {(domain, name) for domain in ("view", "cart") for name in ("price", "brand_id")}
    for table in ("impressions", "view", "cart", "search", "users", "items"):
        frame = read(log[0], table)
        for name in frame.columns:
            assert (frame[name].null_count() > 0) == ((table, name) in maybe), (table, name)


def test_a_request_shows_distinct_items_to_one_user_at_one_time(log: Log) -> None:
    shown = read(log[0], "impressions")
    assert not shown.select("request_id", "item_id").is_duplicated().any()
    requests = shown.group_by("request_id").agg(
        pl.n_unique("user_id", "time", "device", "page").name.suffix("_n"),
        pl.col("position"),
        pl.first("user_id", "time"),
    )
    assert requests.select(pl.col("^.*_n$").max()).row(0) == (1, 1, 1, 1)
    assert all(sorted(p) == [1, 2, 3, 4, 5] for p in requests["position"])
    gaps = requests.sort("user_id", "time").select(pl.col("time").diff().over("user_id").min()).item()
    assert gaps >= 120


def test_items_appear_only_after_their_creation(log: Log) -> None:
    items = read(log[0], "items").select("item_id", "created")
    assert items.filter(pl.col("created") >= log[1]["start"]).height > 20
    for name in ("impressions", "view", "cart"):
        joined = read(log[0], name).join(items, on="item_id")
        assert joined.height == log[1]["rows"][name]
        assert (joined["created"] < joined["time"]).all(), name


def test_every_click_becomes_a_view_after_the_request(log: Log) -> None:
    clicks = read(log[0], "impressions").filter(pl.col("clicked") == 1).select("user_id", "item_id", "time")
    views = (
        read(log[0], "view").filter(pl.col("outcome") == "clicked").select("user_id", "item_id", after="time")
    )
    delay = pl.col("after") - pl.col("time")
    found = clicks.join(views, on=["user_id", "item_id"]).filter((delay > 0) & (delay <= 60))
    assert found.unique(["user_id", "item_id", "time"]).height == clicks.height


@pytest.mark.parametrize(
    "sizes", [{"events_per_user": 0}, {"candidates": 1}, {"requests_per_user": 1}, {"users": 1}, {"days": 1}]
)
def test_smallest_sizes(tmp_path: Path, sizes: dict[str, int]) -> None:
    meta = simulate(tmp_path / "log", **(SMALL | sizes))
    candidates = sizes.get("candidates", 5)
    assert meta["rows"]["impressions"] > 0
    assert meta["rows"]["impressions"] % candidates == 0


@pytest.mark.parametrize("name", [f for f in asdict(Sizes()) if f != "events_per_user"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_sizes_outside_their_range_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must lie in \[\d+, \d+\], got {value}; choose"):
        simulate(tmp_path / "log", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_too_few_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="items must be at least 8 per category and 8 per candidate, here 160, got 100"
    ):
        simulate(tmp_path / "log", items=100)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_a_wrong_seed_is_refused(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed must be a whole number from 0"):
        simulate(tmp_path / "log", seed=seed)


def test_an_occupied_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "keep.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(
            ConfigError, match="must not exist or be an empty directory; choose another --out"
        ):
            simulate(tmp_path / name, **SMALL)
    with pytest.raises(ConfigError, match="cannot be written: File exists; choose another --out"):
        simulate(tmp_path / "file" / "below", **SMALL)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "keep.txt", "link"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    simulate(tmp_path / "log", **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setitem(write._STREAMS, "cart", fail)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path / "log", **SMALL)
    assert list(tmp_path.iterdir()) == []
