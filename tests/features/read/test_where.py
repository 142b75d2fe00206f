from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest

from features.errors import ConfigError, DataError
from features.read.labels import label_of
from features.read.where import holds
from features.spec import Label


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        (["a", "1", None], [1], [False, True, False]),
        ([0, 1, None], ["1"], [False, True, False]),
        ([2**53, 2**53 + 1], [2**53 + 1], [False, True]),
        ([1.0, 1.5], [1], [True, False]),
        ([1, 2], [1.5], [False, False]),
        ([True, False], ["true"], [True, False]),
        (["True", "false", "x"], [True, False], [True, True, False]),
        (["a", None], [None], [False, True]),
        (["a", "b", None], ["a", None], [True, False, True]),
        ([date(2024, 3, 1)], ["2024-03-01"], [True]),
        ([None, None], [1], [False, False]),
        (["a"], [], [False]),
    ],
)
def test_values_meet_whatever_the_types(values: list[Any], wanted: list[Any], found: list[bool]) -> None:
    series = pl.Series("k", values)
    for column in (series, *([series.cast(pl.Categorical)] if series.dtype == pl.String else [])):
        condition = holds("k", column.dtype, wanted, what="domain 'd'")
        assert column.to_frame().select(condition.alias("k")).to_series().to_list() == found


@pytest.mark.parametrize(
    ("values", "wanted", "message"),
    [
        ([True], [1], "is boolean and holds true or false, never 1"),
        ([1], ["read"], "is Int64 and never holds 'read'"),
        ([1], [True], "never holds True"),
        ([[1]], [1], "where needs a column of numbers or texts"),
    ],
)
def test_a_value_that_the_column_never_holds_is_refused(
    values: list[Any], wanted: list[Any], message: str
) -> None:
    column = pl.Series("k", values)
    with pytest.raises(ConfigError, match=f"domain 'd': .*{message}"):
        holds("k", column.dtype, wanted, what="domain 'd'")


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
@pytest.mark.parametrize("number", [0.1, 0.3, 0.7, 4.0])
def test_a_rule_meets_the_number_as_the_column_holds_it(dtype: type[pl.DataType], number: float) -> None:
    """0.7 in 32 bits is 0.699999988: below 0.7, and equal to no number of the spec."""
    frame = pl.DataFrame({"k": pl.Series([number, number / 2], dtype=dtype)})
    for rule in ({"at_least": number}, {"equals": number}):
        assert label_of(frame, Label(column="k", **rule), what="t").to_list() == [1, 0]
    assert frame.select(holds("k", frame.schema["k"], [number], what="t"))["k"].to_list() == [True, False]


def test_labels_equal_by_the_same_rule() -> None:
    frame = pl.DataFrame({"a": ["click", "none"], "b": ["click ", "x"], "n": [1.0, 0.0], "f": [True, False]})

    def found(column: str, equals: object) -> list[int]:
        return label_of(frame, Label(column=column, equals=equals), what="t").to_list()

    assert found("a", "click") == found("n", "1") == found("n", True) == found("f", "true") == [1, 0]
    with pytest.raises(
        DataError, match=r"equals 'Click' in no row, but is 'click' in some; write equals: 'cl"
    ):
        found("a", "Click")
    with pytest.raises(DataError, match="is 'click ' in some"):
        found("b", "click")
    with pytest.raises(DataError, match="must be 0 or 1 to equal True"):
        label_of(pl.DataFrame({"n": [2]}), Label(column="n", equals=True), what="t")
