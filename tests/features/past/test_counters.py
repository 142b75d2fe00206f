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
from tests.features.tables import Row, events, impressions, table, values_of

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


@pytest.mark.fault(19)
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


def late_by_definition(past: list[Row], row: Row, counter: Counter) -> list[float | None]:
    """Every output where a value counts only when it was known strictly before; None is no value."""
    mine = keys(row, counter.by)
    if not mine:
        return [None] * 3
    before = [other for other in past if other["__clock"] < row["__clock"]]
    told = [o for o in past if o["known"] < row["__clock"] and o["worth"] is not None]
    running = sum(o["worth"] for o in told) / len(told) if told else 0.5
    window = counter.window or float("inf")

    def seen(others: list[Row]) -> list[Row]:
        recent = [o for o in others if row["__time"] - o["__time"] <= window]
        return [o for key in mine for o in recent if key in keys(o, counter.by)]

    known = seen(told)
    positives = sum(o["worth"] for o in known)
    return [
        len(seen(before)),
        positives,
        (positives + counter.prior * running) / (len(known) + counter.prior),
    ]


delays = st.lists(st.integers(0, 9), min_size=14, max_size=14)
LATE = ["count", "positives", "rate"]


@settings(deadline=None, max_examples=150)
@given(impressions, delays, st.sampled_from(KEYS), st.sampled_from([None, 0.5, 2.5]), st.booleans())
def test_late_values_equal_the_definition(
    rows: list[Row], late: list[int], by: list[str], window: float | None, constant: bool
) -> None:
    """Also with ties, and where what is known later happened earlier."""
    counter = Counter(by=by, prior=3.0, window=window, value="worth", outputs=LATE)
    late = [late[0]] * len(late) if constant else late
    rows = [
        row | {"worth": row["__label"] + i % 3, "known": row["__clock"] + delay}
        for i, (row, delay) in enumerate(zip(rows, late, strict=False))
    ]
    expected = [late_by_definition(rows, row, counter) for row in rows]
    more = {"worth": [r["worth"] for r in rows], "__known.worth": [r["known"] for r in rows]}
    types = {"worth": pl.Float64, "__known.worth": pl.Int64}
    got = counter_columns(table(rows).hstack(pl.DataFrame(more, schema=types)), "n", counter)
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


@settings(deadline=None, max_examples=150)
@given(impressions, events, delays, st.sampled_from(KEYS), st.sampled_from([None, 0.5, 2.5]), st.booleans())
def test_counters_over_events_equal_the_definition(
    rows: list[Row], domain: list[Row], late: list[int], by: list[str], window: float | None, is_late: bool
) -> None:
    counter = Counter(by=by, prior=3.0, window=window, over="d", outputs=LATE)
    late = late if is_late else [0] * len(late)
    domain = [
        event | {"worth": event["__outcome"], "known": event["__clock"] + delay}
        for event, delay in zip(domain, late, strict=False)
    ]
    expected = [late_by_definition(domain, row, counter) for row in rows]
    known = pl.Series("__known.__outcome", [e["known"] for e in domain], dtype=pl.Int64)
    happened = table(domain).with_columns(known) if is_late else table(domain)
    got = counter_columns(table(rows), "n", counter, happened)
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


def test_popularity_among_all_users_by_another_name() -> None:
    events = pl.DataFrame({"thing": [7, 7, 8], "__clock": [0, 2, 2], "__time": [0, 20, 20]})
    rows = pl.DataFrame({"item": [7, 7, 9], "__clock": [2, 3, 3], "__time": [20, 30, 30]})
    outputs = ["count", "since_last", "since_first"]
    counter = Counter(by=["item"], event=["thing"], over="view", outputs=outputs)
    assert counter_columns(rows, "n", counter, events).rows() == [(1, 20, 20), (2, 10, 30), (0, None, None)]
    with pytest.raises(ConfigError, match="over domain 'view' need its outcome or a value"):
        counter_columns(rows, "n", Counter(by=["item"], event=["thing"], over="view"), events)


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
