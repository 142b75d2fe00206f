from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from features.past.pages import page_columns
from features.spec import Page

Line = tuple[int, float | None, int | None]

lines = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([None, -1.0, 0.0, 2.0, 3.5]),
        st.sampled_from([None, 1, 2, 3]),
    ),
    max_size=12,
)

PAGE_OUTPUTS = ["value", "rank", "ratio_mean", "ratio_min", "above", "size"]


def by_definition(every: list[Line], line: Line) -> list[float | None]:
    """value, rank, ratio_mean, ratio_min, above and size straight from the words of the spec."""
    request, value, position = line
    page = [other for other in every if other[0] == request]
    present = [v for _, v, _ in page if v is not None]
    above = None if position is None else sum(v or 0 for _, v, p in page if p is not None and p < position)
    if value is None:
        return [None, None, None, None, above, len(page)]
    rank = sum(v < value for v in present) + (sum(v == value for v in present) - 1) / 2
    mean, least = sum(present) / len(present), min(present)
    return [value, rank, value / mean if mean else None, value / least if least else None, above, len(page)]


@settings(deadline=None, max_examples=150)
@given(lines)
def test_equals_the_definition(every: list[Line]) -> None:
    schema = {"__request": pl.Int64, "price": pl.Float64, "place": pl.Int64}
    rows = pl.DataFrame(every, schema=schema, orient="row")
    got = page_columns(rows, "n", Page(column="price", outputs=PAGE_OUTPUTS), position="place")
    assert got.columns == [f"page.n.{output}" for output in PAGE_OUTPUTS]
    expected = [by_definition(every, line) for line in every]
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


def test_booleans_are_counted_and_nan_is_missing() -> None:
    nan = float("nan")
    rows = pl.DataFrame({"__request": [1] * 3, "p": [1, 2, 3], "x": [1.0, nan, 3.0]})
    rows = rows.with_columns(seen=pl.Series([True, False, True]))
    above = page_columns(rows, "n", Page(column="seen", outputs=["above"]), position="p")
    assert above["page.n.above"].to_list() == [0, 1, 1]
    ratio = page_columns(rows, "n", Page(column="x", outputs=["ratio_mean"]), position=None)
    assert ratio["page.n.ratio_mean"].to_list() == [0.5, None, 1.5]


def test_errors_say_what_to_do() -> None:
    rows = pl.DataFrame({"__request": [1], "city": ["x"]})
    with pytest.raises(ConfigError, match=r"page 'n': output above needs .*impressions\.position"):
        page_columns(rows, "n", Page(column="city", outputs=["above"]), position=None)
    with pytest.raises(ConfigError, match=r"column 'city' must be numeric, got String"):
        page_columns(rows, "n", Page(column="city"), position=None)
    with pytest.raises(ConfigError, match=r"page 'n' reads 'gone', which is not there"):
        page_columns(rows, "n", Page(column="gone"), position=None)
