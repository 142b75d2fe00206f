"""Windows, ages and half-lives of a log in milliseconds, against their words, on the raw times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.dataset import Dataset
from features.errors import DataError
from features.lineage.state import State
from features.past.counter_state import counter_state
from features.past.counters import counter_columns
from features.prepare import prepare
from features.read.log import read_log
from features.read.needed import needed_columns
from features.sources import open_tables
from features.spec import parse_spec
from tests.features.lineage.days import all_at_once, assert_same_features, cut, day_by_day
from tests.features.partitions.test_equal import same
from tests.features.small_log import changed, logged_rows, run, write_tables

BEGIN = 1_709_251_200_000
SPEC: dict[str, Any] = {
    "name": "quick",
    "source": {"tables": {t: {"path": f"{t}.parquet"} for t in ("shown", "views", "items")}},
    "impressions": {
        "table": "shown", "user": "user", "item": "item", "time": "at", "request": "row",
        "label": {"column": "click"},
    },
    "item": {"table": "items", "key": "item"},
    "tables": {"item": {}},
    "domains": {
        "view": {
            "table": "views", "user": "user", "item": "item", "time": "at",
            "side": {"item": {"column": "item", "table": "item"}},
        }
    },
    "ages": {"item": "item.made"},
    "counters": {
        "second": {"by": ["item"], "window": 1, "outputs": ["count", "positives", "since_last"]},
        "short": {"by": ["item"], "window": 0.3, "outputs": ["count"]},
        "views": {"by": ["item"], "over": "view", "window": 1.5, "outputs": ["count"]},
    },
    "matches": {
        "item": {
            "domain": "view", "candidate": "item", "event": "item", "half_life": 0.7, "old": 1.2,
            "recent": 0.8, "outputs": ["count", "decayed", "recency", "share_old", "count_recent"],
        },
    },
    "pairs": {
        "close": {"within": 1.4, "outputs": ["count_sum"]},
        "far": {"older": 0.6, "half_life": 0.7, "outputs": ["count_sum"]},
    },
    "features": {
        "item": {"column": "item", "table": "item"},
        "past": {"columns": ["count.*", "match.*", "pair.*", "age.*"]},
    },
    "tokens": {"all": ["item", "past"]},
    "slices": {"row": "row"},
}  # fmt: skip
for _pair in SPEC["pairs"].values():
    _pair |= {"candidate": "item", "domain": "view", "event": "item"}


def quick_log(seed: int) -> dict[str, pl.DataFrame]:
    """Eight seconds of three users and four items, with equal times and moments close to requests."""
    rng = np.random.default_rng(seed)

    def rows(size: int) -> pl.DataFrame:
        of = {"user": rng.integers(0, 3, size), "item": rng.integers(0, 4, size)}
        at = BEGIN + np.sort(rng.integers(0, 80, size)) * 100 + rng.integers(0, 2, size)
        return pl.DataFrame(of | {"at": at}).unique(maintain_order=True)

    shown = rows(60).with_row_index("row").with_columns(click=pl.col("row") % 3 // 2)
    made = pl.Series([BEGIN + 50, BEGIN + 3_950, None, BEGIN + 5_001])
    return {"shown": shown, "views": rows(60), "items": pl.DataFrame({"item": range(4), "made": made})}


def by_definition(tables: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Every column from the words of the spec; times in milliseconds."""
    shown, views = tables["shown"].to_dicts(), tables["views"].to_dicts()
    made = dict(zip(*(tables["items"][c].to_list() for c in ("item", "made")), strict=True))

    def past(row: dict[str, Any], others: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
        """The rows strictly before, each with its age."""
        return [(row["at"] - other["at"], other) for other in others if other["at"] < row["at"]]

    found = []
    for row in shown:
        same = [(age, o) for age, o in past(row, shown) if o["item"] == row["item"]]
        watched = [(age, o) for age, o in past(row, views) if o["item"] == row["item"]]
        own = [(age, o) for age, o in past(row, views) if o["user"] == row["user"]]
        ages = [age for age, o in own if o["item"] == row["item"]]
        second, old, since = row["at"] // 1000, [a for a, _ in own if a > 1200], made[row["item"]]
        newest = max((o["at"] for age, o in same if age <= 1000), default=None)
        found.append(
            {
                "count.second.count": sum(age <= 1000 for age, _ in same),
                "count.second.positives": sum(o["click"] for age, o in same if age <= 1000),
                "count.second.since_last": None if newest is None else second - newest // 1000,
                "count.short.count": sum(age <= 300 for age, _ in same),
                "count.views.count": sum(age <= 1500 for age, _ in watched),
                "match.item.count": len(ages),
                "match.item.decayed": sum(2 ** (-age / 700) for age in ages),
                "match.item.recency": second - (row["at"] - min(ages)) // 1000 if ages else None,
                "match.item.share_old": sum(age > 1200 for age in ages) / len(old) if old else 0.0,
                "match.item.count_recent": sum(age < 800 for age in ages),
                "age.item": None if since is None or since > row["at"] else float(second - since // 1000),
            }
        )
    return found


@pytest.mark.parametrize(("unit", "order", "seed"), [("ms", [], 0), ("us", ["at"], 1), ("ns", [], 2)])
def test_equals_the_definition(tmp_path: Path, unit: str, order: list[str], seed: int) -> None:
    """Also where ranks replace the clock."""
    tables = quick_log(seed)
    expected = by_definition(tables)
    scale = {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    times = {"shown": "at", "views": "at", "items": "made"}
    write_tables(tmp_path, {n: t.with_columns(pl.col(times[n]) * scale) for n, t in tables.items()})
    found = logged_rows(parse_spec(SPEC | {"order": order}), tmp_path).sort("row")
    assert found.height == len(expected)
    for column in expected[0]:
        want, got = (pl.Series(of, dtype=pl.Float64) for of in ([r[column] for r in expected], found[column]))
        assert got.is_null().to_list() == want.is_null().to_list(), column
        assert got.drop_nulls().to_list() == pytest.approx(want.drop_nulls().to_list(), rel=1e-9), column


@pytest.mark.parametrize("window", [{"within": 1.4}, {"older": 0.6}])
def test_a_pair_sees_the_events_of_its_window_alone(tmp_path: Path, window: dict[str, float]) -> None:
    """As if the events of each row were cut by hand: the newest row of the log, row after row."""
    tables = quick_log(3)
    write_tables(tmp_path / "all", tables)
    pair = {"candidate": "item", "domain": "view", "event": "item", "outputs": ["count_sum"]}
    whole = logged_rows(parse_spec(SPEC | {"pairs": {"near": pair | window}}), tmp_path / "all")
    counted: dict[tuple[Any, Any], int] = {}
    shown, views = tables["shown"].to_dicts(), tables["views"].to_dicts()
    expected: dict[int, int] = {}
    for at in sorted({row["at"] for row in shown}):
        pairs = []
        for row in (r for r in shown if r["at"] == at):
            ages = [(at - v["at"], v["item"]) for v in views if v["user"] == row["user"] and v["at"] < at]
            bag = (
                [i for age, i in ages if age <= 1400]
                if "within" in window
                else [i for a, i in ages if a > 600]
            )
            expected[row["row"]] = sum(counted.get((row["item"], value), 0) for value in bag)
            pairs += [(row["item"], value) for value in bag]
        for key in pairs:
            counted[key] = counted.get(key, 0) + 1
    assert dict(whole.select("row", "pair.near.count_sum").iter_rows()) == expected


def test_moments_after_their_request_are_counted(tmp_path: Path) -> None:
    tables = quick_log(0)
    made = tables["items"]["made"].gather(tables["shown"]["item"])
    later = int((made > tables["shown"]["at"]).sum())
    manifest = run(tmp_path, SPEC, tables)
    assert manifest.counters["age.item.later_than_request"] == later > 0


def test_the_state_at_a_moment_has_what_an_impression_then_would_have(tmp_path: Path) -> None:
    write_tables(tmp_path, quick_log(0))
    spec = parse_spec(SPEC)
    log = read_log(spec, open_tables(spec.source, base=tmp_path, needed=needed_columns(spec)))
    counter = spec.counters["second"]
    counts = counter_columns(log.rows, "second", counter)["count.second.count"]
    asked = log.rows.select("item", "__clock", "__time", "__fraction").rows()
    for (item, clock, time, within), count in zip(asked, counts, strict=True):
        state = counter_state(log.rows, "second", counter, clock=clock, time=time, within=within)
        assert dict(state.table.select("0", "count").iter_rows()).get(item, 0) == count


@pytest.mark.parametrize("order", [[], ["at"]])
def test_partitions_and_days_count_as_the_whole_log_does(tmp_path: Path, order: list[str]) -> None:
    """Each window lies across borders, which are at whole seconds."""
    tables = quick_log(1)
    spec = {key: value for key, value in SPEC.items() if key not in ("pairs", "slices")} | {"order": order}
    spec["features"] = SPEC["features"] | {"past": {"columns": ["count.*", "match.*", "age.*"]}}
    same(tmp_path, spec, tables, parts=(3,))
    if order:
        return
    spec |= {"counters": {n: c for n, c in SPEC["counters"].items() if "over" not in c}}
    bounds = [BEGIN + 4_000, BEGIN + 5_000]
    split = {"valid": BEGIN + 2_000, "test": BEGIN + 3_000}
    days = day_by_day(tmp_path, spec, cut(tables, {"shown": "at", "views": "at"}, bounds), split)
    assert_same_features(all_at_once(tmp_path / "all", spec, tables, split), days)
    refuses_an_older_state(tmp_path, spec, days[1])


def refuses_an_older_state(root: Path, spec: dict[str, Any], day: Path) -> None:
    """One in which events and windows were handed on in whole seconds."""
    state = State.read(Dataset(day), parse_spec(spec))
    older = {n: events.drop("__fraction") for n, events in state.events.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "read", lambda *_: replace(state, events=older))
        with pytest.raises(DataError, match="finer than a second, but holds whole seconds"):
            again = changed(spec, split={"valid": 0.3, "test": 0})
            prepare(parse_spec(again), root / "again", base=root / "raw-2", after=day, keep_state=True)
