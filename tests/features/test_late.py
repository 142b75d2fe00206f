"""`ctr prepare` on logs whose labels, outcomes and fields are known later: against the words of the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.errors import ConfigError, DataError
from features.spec import parse_spec
from tests.features.small_log import SHOP_SPEC, changed, logged_rows, prepared, run, shop_tables, write_tables

HOUR = 3_600_000  # ms, the unit of both tables
RULES: list[dict[str, Any]] = [
    {"delay": "3h"},
    {"known_at": "told"},
    {"known_at": "told", "delay": "3h"},
]


MATCH = {"candidate": "item", "event": "item", "outputs": ["count", "positive_share"]}


def late_tables(seed: int = 0) -> dict[str, pl.DataFrame]:
    """The shop's log, with the time at which each row was told, and outcomes of events, in whole seconds."""
    rng = np.random.default_rng(seed)
    tables = shop_tables(seed=seed)
    for name in ("shown", "events"):
        table = tables[name]
        tables[name] = table.with_columns(told=pl.col("at") + rng.integers(0, 6 * HOUR, table.height))
    bought = pl.Series(rng.integers(0, 3, tables["events"].height))
    tables["events"] = tables["events"].with_columns(bought=pl.when(bought < 2).then(bought))
    return tables


def known_at(row: dict[str, Any], rule: dict[str, Any], tick: int = 1) -> int:
    """The end, in ms, of the tick at which a value is known, by the words of the spec."""
    end = row["at"] + tick
    late = end + 3 * HOUR if "delay" in rule else None
    told = row["told"] + 1 if "known_at" in rule and row["told"] is not None else None
    return max(end, next(t for t in (told, late) if t is not None))


def rows_of(tmp_path: Path, spec: dict[str, Any], tables: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The prepared rows with their computed columns, in the order of the log."""
    write_tables(tmp_path, tables)
    at = {(r["request"], r["item"]): r["at"] for r in tables["shown"].to_dicts()}
    rows = logged_rows(
        parse_spec(changed(spec, slices={"request": "request", "user": "user"})), tmp_path
    ).to_dicts()
    return [row | {"at": at[row["request"], row["item"]]} for row in rows]


def some_never_told(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(told=pl.when(pl.int_range(pl.len()) % 3 > 0).then("told"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", [[], ["at"]])
@pytest.mark.parametrize("window", [None, "8h"])
def test_a_rate_counts_labels_from_when_they_are_known(
    tmp_path: Path, rule: dict[str, Any], order: list[str], window: str | None
) -> None:
    tables = late_tables()
    if "delay" in rule:
        tables["shown"] = some_never_told(tables["shown"])
    outputs = ["count", "positives", "rate"]
    spec = changed(
        SHOP_SPEC,
        order=order,
        impressions__label={"column": "click", **rule},
        counters={"user": {"by": ["user"], "outputs": outputs, "prior": 2.0, "window": window}},
        features__counts={"columns": ["count.user.*"]},
        tokens={"all": ["item", "device", "tags", "price", "counts"]},
    )
    spec["counters"]["user"] = {k: v for k, v in spec["counters"]["user"].items() if v is not None}
    shown = tables["shown"].to_dicts()
    for row in rows_of(tmp_path, spec, tables):
        now = row["at"]
        oldest = now // 1000 - 8 * 3600 if window else 0
        recent = [r for r in shown if r["user"] == row["user"] and r["at"] // 1000 >= oldest]
        before = [r for r in recent if r["at"] < now]
        told = [r["click"] for r in recent if known_at(r, rule) <= now]
        everyone = [r["click"] for r in shown if known_at(r, rule) <= now]
        running = np.mean(everyone) if everyone else 0.5
        assert row["count.user.count"] == len(before)
        assert row["count.user.positives"] == sum(told)
        assert row["count.user.rate"] == pytest.approx((sum(told) + 2.0 * running) / (len(told) + 2.0))


def test_defaults_change_nothing(tmp_path: Path) -> None:
    """A rule that lets everything be known at once gives the values of no rule at all."""
    tables = late_tables()
    tables["shown"] = tables["shown"].with_columns(told=pl.col("at") - 5)
    counters = {"item": {"by": ["item"], "outputs": ["count", "positives", "rate"]}}
    spec = changed(SHOP_SPEC, counters=counters)
    plain = rows_of(tmp_path / "plain", spec, tables)
    late = rows_of(tmp_path / "late", changed(spec, impressions__label__known_at="told"), tables)
    columns = [f"count.item.{output}" for output in ("count", "positives", "rate")]
    assert [[row[c] for c in columns] for row in late] == [[row[c] for c in columns] for row in plain]


def test_a_value_without_a_time_is_an_error_unless_a_delay_stands_for_it(tmp_path: Path) -> None:
    tables = late_tables()
    tables["shown"] = some_never_told(tables["shown"])
    spec = changed(SHOP_SPEC, impressions__label__known_at="told")
    with pytest.raises(
        DataError, match=r"every value needs the time at which it is known.*lack 'told'.*a delay"
    ):
        run(tmp_path, spec, tables)
    assert prepared(tmp_path / "b", changed(spec, impressions__label__delay="1d"), tables).manifest.users


def test_outcomes_of_events_count_from_when_they_are_known(tmp_path: Path) -> None:
    tables = late_tables()
    rule = {"known_at": "told"}
    spec = changed(
        SHOP_SPEC,
        domains__view__outcome={"column": "bought", **rule},
        matches={"item": {"domain": "view", **MATCH}},
        counters={"popular": {"by": ["item"], "over": "view", "prior": 1.0, "outputs": ["count", "rate"]}},
    )
    views = [e for e in tables["events"].to_dicts() if e["kind"] == "view"]
    for row in rows_of(tmp_path, spec, tables):
        now = row["at"]
        told = [e for e in views if known_at(e, rule, tick=1000) <= now and e["bought"] is not None]
        running = np.mean([e["bought"] for e in told]) if told else 0.5
        of_item = [e["bought"] for e in told if e["item"] == row["item"]]
        mine = [e["bought"] for e in told if e["item"] == row["item"] and e["user"] == row["user"]]
        seen = [e for e in views if e["item"] == row["item"] and e["at"] + 1000 <= now]
        assert row["count.popular.count"] == len(seen)
        assert row["count.popular.rate"] == pytest.approx((sum(of_item) + running) / (len(of_item) + 1))
        assert row["match.item.count"] == sum(e["user"] == row["user"] for e in seen)
        assert row["match.item.positive_share"] == pytest.approx((sum(mine) + running) / (len(mine) + 1))


def test_two_rules_for_one_column_are_refused() -> None:
    spec = changed(
        SHOP_SPEC,
        domains__view__outcome={"column": "bought", "delay": "1d"},
        domains__view__known_later={"bought": {"delay": "2d"}},
    )
    with pytest.raises(ConfigError, match="say differently when 'bought' is known"):
        run(Path("/nowhere"), spec, {})


def test_only_the_impressions_that_are_meant_are_read(tmp_path: Path) -> None:
    tables = shop_tables()
    spec = changed(SHOP_SPEC, impressions__where={"device": ["phone"]})
    data = prepared(tmp_path, spec, tables)
    wanted = tables["shown"].filter(pl.col("device") == "phone").height
    assert sum(split.impressions for split in data.manifest.splits.values()) == wanted
