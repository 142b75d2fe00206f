from __future__ import annotations

from itertools import product

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from features.counters import counter_columns
from features.errors import ConfigError
from features.spec import COUNTER_OUTPUTS, Counter
from tests.features.tables import Row, impressions, table, values_of

KEYS = [["item"], ["__user"], ["item.genres"], ["__user", "item.genres"], ["item", "sex"]]


def keys(row: Row, by: list[str]) -> set[tuple[object, ...]]:
    return set(product(*(values_of(row[column]) for column in by)))


def by_definition(rows: list[Row], row: Row, counter: Counter) -> list[float | None]:
    """count, positives, rate, since_last and since_first straight from the words of the spec."""
    mine = keys(row, counter.by)
    if not mine:
        return [None] * 5
    before = [other for other in rows if other["__clock"] < row["__clock"]]
    running = sum(o["__label"] for o in before) / len(before) if before else 0.5
    window = counter.window or float("inf")
    recent = [o for o in before if row["__time"] - o["__time"] <= window]
    seen = [o for key in mine for o in recent if key in keys(o, counter.by)]
    ages = [row["__time"] - o["__time"] for o in seen]
    positives = sum(o["__label"] for o in seen)
    rate = (positives + counter.prior * running) / (len(seen) + counter.prior)
    return [len(seen), positives, rate, min(ages, default=None), max(ages, default=None)]


@settings(deadline=None, max_examples=150)
@given(impressions, st.sampled_from(KEYS), st.sampled_from([None, 0.5, 1.0, 2.5]))
def test_equals_the_definition(rows: list[Row], by: list[str], window: float | None) -> None:
    counter = Counter(by=by, outputs=list(COUNTER_OUTPUTS), prior=3.0, window=window)
    expected = [by_definition(rows, row, counter) for row in rows]
    got = counter_columns(table(rows), "n", counter)
    assert got.columns == [f"count.n.{output}" for output in COUNTER_OUTPUTS]
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


@settings(deadline=None, max_examples=50)
@given(impressions, st.randoms())
def test_order_of_the_rows_does_not_matter(rows: list[Row], random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    counter = Counter(by=["item.genres"], outputs=list(COUNTER_OUTPUTS))
    got = counter_columns(table(rows), "n", counter)
    shuffled = counter_columns(table(rows)[order], "n", counter)
    assert_frame_equal(got[order], shuffled)


def test_strings_of_several_values_equal_lists() -> None:
    lists = [["a", "b"], ["b"], None, ["a", "b", "b"], [], ["c"]]
    size = len(lists)
    rows = pl.DataFrame({"__clock": range(size), "__time": range(size), "__label": [1, 0] * 3, "g": lists})
    joined = rows.with_columns(pl.col("g").list.join("|"))
    expected = counter_columns(rows, "n", Counter(by=["g"], outputs=list(COUNTER_OUTPUTS)))
    assert expected["count.n.count"].to_list() == [0, 1, None, 3, None, 0]
    split = counter_columns(joined, "n", Counter(by=["g"], outputs=list(COUNTER_OUTPUTS), separator="|"))
    assert_frame_equal(split, expected)


def test_wrong_columns_are_named() -> None:
    rows = table([]).with_columns(tags=pl.lit(None, dtype=pl.List(pl.String)))
    with pytest.raises(ConfigError, match=r"counter 'n' reads columns that are not there: \['gone'\]"):
        counter_columns(rows, "n", Counter(by=["gone"]))
    with pytest.raises(ConfigError, match=r"at most one column .*, got \['tags', 'item.genres'\]"):
        counter_columns(rows, "n", Counter(by=["tags", "item.genres"]))
