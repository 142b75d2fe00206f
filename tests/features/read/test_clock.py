from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.read.clock import TimeColumn, add_clocks, seconds_of, to_ticks

AT = TimeColumn("at", "table 'clicks', column 'at'")


def frame(values: list[object], **more: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"at": values, **more}, strict=False)


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
    assert to_ticks(table, AT, "auto")[1] == unit


def test_fractions_of_seconds_are_kept() -> None:
    ticks, unit = to_ticks(frame([1_500_000_000.25, 1_500_000_000.5]), AT, "auto")
    assert (ticks.to_list(), unit) == ([1_500_000_000_250_000, 1_500_000_000_500_000], "us")


def test_mixed_units_are_refused_with_rows_and_files() -> None:
    """Fault 20."""
    table = frame([1_500_000_000, 1_500_000_000_000, 1_500_000_100], __row=[0, 1, 2], __file=["a", "b", "a"])
    with pytest.raises(DataError, match=r"column 'at'.*rows 0, 2 in a\) hold s .*row.* 1 in b\) hold ms"):
        to_ticks(table, AT, "auto")


def test_a_declared_unit_refuses_what_must_be_finer() -> None:
    with pytest.raises(DataError, match=r"time_unit is s, but 1 rows.*hold ms \(1500000000000\)"):
        to_ticks(frame([1_500_000_000, 1_500_000_000_000]), AT, "s")
    assert to_ticks(frame([5, 1_500_000_000_000]), AT, "ms")[1] == "ms"


@pytest.mark.parametrize("values", [[None, 1], ["2024-01-01"], [float("nan")], [[1]]])
def test_what_is_no_time_is_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match="clicks"):
        to_ticks(frame(values), AT, "auto")


def test_clocks_of_different_units_agree() -> None:
    """Seconds and milliseconds meet in milliseconds; times are whole seconds, rounded down."""
    frames = {"a": frame([1_500_000_000]), "b": frame([1_500_000_000_001, 1_499_999_999_999])}
    clocked = add_clocks(frames, {"a": AT, "b": AT}, unit="auto", order=[])
    assert clocked["a"]["__clock"].to_list() == [1_500_000_000_000]
    assert clocked["b"]["__clock"].to_list() == [1_500_000_000_001, 1_499_999_999_999]
    assert clocked["b"]["__time"].to_list() == [1_500_000_000, 1_499_999_999]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 20))
def test_order_breaks_ties_across_tables(pairs: list[tuple[int, int]], cut: int) -> None:
    """The clock is the rank of (time, order) among all distinct pairs of both tables."""
    parts = {"a": pairs[:cut], "b": pairs[cut:]}
    schema = {"at": pl.Int64, "step": pl.Int64}
    frames = {n: pl.DataFrame(p, schema=schema, orient="row") for n, p in parts.items()}
    clocked = add_clocks(frames, {"a": AT, "b": AT}, unit="auto", order=["step"])
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
