from __future__ import annotations

from itertools import product

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from features.errors import ConfigError
from features.past.counters import counter_columns
from features.spec import Counter
from tests.features.tables import Row, impressions, table, values_of

COUNTER_OUTPUTS = ["count", "positives", "rate", "residual", "since_last", "since_first"]
PLAIN = [o for o in COUNTER_OUTPUTS if o != "residual"]
FLOATS = {"worth": pl.Float64, "hope": pl.Float64}
KEYS = [["item"], ["__user"], ["item.genres"], ["__user", "item.genres"], ["item", "sex"]]


def keys(row: Row, by: list[str]) -> set[tuple[object, ...]]:
    return set(product(*(values_of(row[column]) for column in by)))


def by_definition(rows: list[Row], row: Row, counter: Counter) -> list[float | None]:
    """Every output straight from the words of the spec."""
    mine = keys(row, counter.by)
    if not mine:
        return [None] * 6
    before = [other for other in rows if other["__clock"] < row["__clock"]]
    running = sum(o["worth"] for o in before) / len(before) if before else 0.5
    window = counter.window or float("inf")
    recent = [o for o in before if row["__time"] - o["__time"] <= window]
    seen = [o for key in mine for o in recent if key in keys(o, counter.by)]
    ages = [row["__time"] - o["__time"] for o in seen]
    positives = sum(o["worth"] for o in seen)
    residual = sum(o["worth"] - o["hope"] for o in seen) / (len(seen) + counter.prior)
    rate = (positives + counter.prior * running) / (len(seen) + counter.prior)
    return [len(seen), positives, rate, residual, min(ages, default=None), max(ages, default=None)]


@settings(deadline=None, max_examples=150)
@given(impressions, st.sampled_from(KEYS), st.sampled_from([None, 0.5, 1.0, 2.5]))
def test_equals_the_definition(rows: list[Row], by: list[str], window: float | None) -> None:
    everything = {"outputs": COUNTER_OUTPUTS, "value": "worth", "against": "hope"}
    counter = Counter(by=by, prior=3.0, window=window, **everything)
    rows = [
        row | {"worth": 0.5 * row["__label"] + i % 3, "hope": 0.25 * (i % 4)} for i, row in enumerate(rows)
    ]
    expected = [by_definition(rows, row, counter) for row in rows]
    numbers = pl.DataFrame({n: [row[n] for row in rows] for n in ("worth", "hope")}, schema_overrides=FLOATS)
    got = counter_columns(table(rows).hstack(numbers), "n", counter)
    assert got.columns == [f"count.n.{output}" for output in COUNTER_OUTPUTS]
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


@settings(deadline=None, max_examples=50)
@given(impressions, st.randoms())
def test_order_of_the_rows_does_not_matter(rows: list[Row], random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    counter = Counter(by=["item.genres"], outputs=PLAIN)
    got = counter_columns(table(rows), "n", counter)
    shuffled = counter_columns(table(rows)[order], "n", counter)
    assert_frame_equal(got[order], shuffled)


def test_strings_of_several_values_equal_lists() -> None:
    lists = [["a", "b"], ["b"], None, ["a", "b", "b"], [], ["c"]]
    size = len(lists)
    rows = pl.DataFrame({"__clock": range(size), "__time": range(size), "__label": [1, 0] * 3, "g": lists})
    joined = rows.with_columns(pl.col("g").list.join("|"))
    expected = counter_columns(rows, "n", Counter(by=["g"], outputs=PLAIN))
    assert expected["count.n.count"].to_list() == [0, 1, None, 3, None, 0]
    split = counter_columns(joined, "n", Counter(by=["g"], outputs=PLAIN, separator="|"))
    assert_frame_equal(split, expected)


def test_wrong_columns_are_named() -> None:
    rows = table([]).with_columns(tags=pl.lit(None, dtype=pl.List(pl.String)))
    with pytest.raises(ConfigError, match=r"counter 'n' reads columns that are not there: \['gone'\]"):
        counter_columns(rows, "n", Counter(by=["gone"]))
    with pytest.raises(ConfigError, match=r"at most one column .*, got \['tags', 'item.genres'\]"):
        counter_columns(rows, "n", Counter(by=["tags", "item.genres"]))
