from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.read.clock import add_clocks, seconds_of, to_ticks
from features.read.resolution import tick_length
from features.read.time_column import TimeColumn

AT = TimeColumn("at", "table 'clicks', column 'at'")


def frame(values: list[object], **more: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"at": values, **more}, strict=False)


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1_500_000_000], "s"),
        ([1_500_000_000_000], "ms"),
        ([1_500_000_000_000_000], "us"),
        ([1_500_000_000_000_000_000], "ns"),
        ([0, 5], "s"),
        ([-86_400], "s"),
        ([date(2024, 1, 1)], "s"),
        ([datetime(2024, 1, 1, tzinfo=UTC)], "us"),
        ([], "s"),
    ],
)
def test_unit_is_told_by_magnitude(values: list[object], unit: str) -> None:
    table = frame(values) if values else pl.DataFrame({"at": pl.Series([], dtype=pl.Int64)})
    assert to_ticks(table, AT, "auto").unit == unit


def test_fractions_of_seconds_are_kept() -> None:
    ticks = to_ticks(frame([1_500_000_000.25, 1_500_000_000.5]), AT, "auto")
    assert ticks.values.to_list() == [1_500_000_000_250_000, 1_500_000_000_500_000]
    assert (ticks.unit, ticks.length) == ("us", 1)


@pytest.mark.fault(20)
def test_mixed_units_are_refused_with_rows_and_files() -> None:
    """Fault 20."""
    table = frame([1_500_000_000, 1_500_000_000_000, 1_500_000_100], __row=[0, 1, 2], __file=["a", "b", "a"])
    with pytest.raises(DataError, match=r"column 'at'.*rows 0, 2 in a\) hold s .*row.* 1 in b\) hold ms"):
        to_ticks(table, AT, "auto")


def test_a_declared_unit_refuses_what_must_be_finer() -> None:
    with pytest.raises(DataError, match=r"time_unit is s, but 1 rows.*hold ms \(1500000000000\)"):
        to_ticks(frame([1_500_000_000, 1_500_000_000_000]), AT, "s")
    assert to_ticks(frame([5, 1_500_000_000_000]), AT, "ms").unit == "ms"


@pytest.mark.parametrize("values", [[None, 1], ["today"], [float("nan")], [[1]]])
def test_what_is_no_time_is_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match="clicks"):
        to_ticks(frame(values), AT, "auto")


def test_clocks_of_different_units_agree() -> None:
    """Seconds and milliseconds meet in milliseconds; times are whole seconds, rounded down."""
    frames = {"a": frame([1_500_000_000]), "b": frame([1_500_000_000_001, 1_499_999_999_999])}
    clocked, ticks, _ = add_clocks(frames, {"a": AT, "b": AT}, unit="auto", order=[])
    assert ticks == {"a": 1.0, "b": 0.001}
    assert clocked["a"]["__clock"].to_list() == [1_500_000_000_000]
    assert clocked["b"]["__clock"].to_list() == [1_500_000_000_001, 1_499_999_999_999]
    assert clocked["b"]["__time"].to_list() == [1_500_000_000, 1_499_999_999]


NS = 10**9
SHOWN = TimeColumn("at", "table 'shown', column 'at'")
CLICK = TimeColumn("at", "table 'clicks', column 'at'", is_event=True)
# Kind of column → length of its tick in ns.
KINDS = {
    "date": 86_400 * NS,
    "s": NS,
    "datetime_ms": 10**6,
    "ms": 10**6,
    "us": 1000,
    "datetime_ns": 1,
    "ns": 1,
}
# One moment that is no whole second, minute, hour or day, so that nothing looks rounded more than it is.
ODD = 1_700_000_123_456_789_123


def logged(moments: list[int], kind: str) -> pl.DataFrame:
    """Moments (ns) in a column of that kind, rounded down."""
    ticks = [m // KINDS[kind] for m in moments]
    if kind == "date":
        return pl.DataFrame({"at": pl.Series(ticks, dtype=pl.Int32).cast(pl.Date)})
    column = pl.Series(ticks, dtype=pl.Int64)
    unit = kind.removeprefix("datetime_")
    return pl.DataFrame({"at": column.cast(pl.Datetime(unit)) if unit != kind else column})


moments = st.lists(
    st.builds(
        lambda day, second, rest: ODD + day * 86_400 * NS + second * NS + rest,
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from([0, 1, 999, 1000, 10**6, 5 * 10**8]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("of_events", KINDS)
@pytest.mark.parametrize("of_impressions", KINDS)
@settings(deadline=None, max_examples=20)
@given(shown=moments, clicked=moments)
def test_an_event_is_earlier_when_its_tick_is_over(
    of_events: str, of_impressions: str, shown: list[int], clicked: list[int]
) -> None:
    """By definition: the end of the event's tick is not later than the start of the impression's."""
    shown, clicked = [*shown, ODD], [*clicked, ODD]
    frames = {"shown": logged(shown, of_impressions), "clicks": logged(clicked, of_events)}
    clocked, _, _ = add_clocks(frames, {"shown": SHOWN, "clicks": CLICK}, unit="auto", order=[])
    at, happened = (clocked[name]["__clock"].to_list() for name in ("shown", "clicks"))
    start, end = KINDS[of_impressions], KINDS[of_events]
    for i, moment in enumerate(shown):
        for j, click in enumerate(clicked):
            earlier = (click // end + 1) * end <= moment // start * start
            assert (happened[j] < at[i]) == earlier
            assert not earlier or click < moment  # so nothing later is ever seen


@pytest.mark.parametrize("kind", KINDS)
@given(shown=moments, clicked=moments)
def test_clocks_of_one_unit_are_the_logged_times(kind: str, shown: list[int], clicked: list[int]) -> None:
    frames = {"shown": logged([*shown, ODD], kind), "clicks": logged([*clicked, ODD], kind)}
    clocked, _, _ = add_clocks(frames, {"shown": SHOWN, "clicks": CLICK}, unit="auto", order=[])
    for name, table in frames.items():
        assert clocked[name]["__clock"].equals(to_ticks(table, AT, "auto").values)


def test_whole_seconds_in_a_finer_column_are_seconds() -> None:
    """Clicks that were written as text in whole seconds, and became datetimes in microseconds."""
    clicks = frame([datetime(2024, 1, 1, 0, 0, second, tzinfo=UTC) for second in (10, 11, 31)])
    shown = frame([1_704_067_210_500, 1_704_067_211_001])
    clocked, ticks, _ = add_clocks(
        {"shown": shown, "clicks": clicks}, {"shown": SHOWN, "clicks": CLICK}, unit="auto", order=[]
    )
    assert ticks == {"shown": 0.001, "clicks": 1.0}
    before = [[c < at for c in clocked["clicks"]["__clock"]] for at in clocked["shown"]["__clock"]]
    assert before == [[False, False, False], [True, False, False]]


@pytest.mark.parametrize(
    ("values", "unit", "declared", "wanted"),
    [
        ([60, 120, 180, 240, 300, 420], "s", None, 60),
        ([60, 120, 180, 240, 300], "s", None, 1),  # five of 60 can be chance
        ([60, 120, 180, 240, 300, 361], "s", None, 1),
        ([60, 120, 180, 240, 300, 420], "s", 1.0, 1),
        ([7, 8, 9], "s", 3600.0, 3600),
        ([7000, 8000, 9000], "ms", None, 1000),
        ([0, 86_400_000], "ms", None, 86_400_000),
        ([], "ms", None, 1),
    ],
)
def test_the_tick_of_a_column(values: list[int], unit: str, declared: float | None, wanted: int) -> None:
    column = pl.Series(values, dtype=pl.Int64)
    assert tick_length(column, unit, declared=declared, what="clicks") == wanted


def test_a_tick_finer_than_its_column_is_refused() -> None:
    must = r"clicks: tick must be a whole number of the column's unit \(s\), got 0.5"
    with pytest.raises(DataError, match=must):
        tick_length(pl.Series([1]), "s", declared=0.5, what="clicks")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 20))
def test_order_breaks_ties_across_tables(pairs: list[tuple[int, int]], cut: int) -> None:
    """The clock is the rank of (time, order) among all distinct pairs of both tables."""
    parts = {"a": pairs[:cut], "b": pairs[cut:]}
    schema = {"at": pl.Int64, "step": pl.Int64}
    frames = {n: pl.DataFrame(p, schema=schema, orient="row") for n, p in parts.items()}
    clocked, _, _ = add_clocks(frames, {"a": AT, "b": AT}, unit="auto", order=["step"])
    ranks = {pair: i for i, pair in enumerate(sorted(set(pairs)))}
    for name, part in parts.items():
        assert clocked[name]["__clock"].to_list() == [ranks[pair] for pair in part]


def test_missing_order_values_are_refused() -> None:
    table = frame([1, 1], step=[0, None], __row=[0, 1])
    with pytest.raises(DataError, match=r"order column 'step' must not be missing, 1 rows \(rows 1\)"):
        add_clocks({"a": table}, {"a": AT}, unit="auto", order=["step"])


def test_times_of_a_spec() -> None:
    assert seconds_of("2024-01-01T01:00:00+01:00") == seconds_of("2024-01-01") == seconds_of(1_704_067_200)
    with pytest.raises(ConfigError, match="must read like 2024-01-31"):
        seconds_of("yesterday")


def test_order_columns_are_compared_exactly() -> None:
    """As floats, 2^53 and 2^53 + 1 would tie."""
    frames = {"a": frame([1, 1], step=[2**53, 2**53 + 1]), "b": frame([1], step=[1.0])}
    clocked, _, _ = add_clocks(frames, {"a": AT, "b": AT}, unit="auto", order=["step"])
    assert clocked["a"]["__clock"].to_list() == [1, 2] and clocked["b"]["__clock"].to_list() == [0]
    halves = {"a": frame([1], step=[1]), "b": frame([1], step=[0.5])}
    with pytest.raises(DataError, match="order column 'step': an ID must be a whole number"):
        add_clocks(halves, {"a": AT, "b": AT}, unit="auto", order=["step"])
