from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode.values import values_of
from features.errors import DataError
from features.spec import IdFeature

lists = st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "", None]), max_size=4), max_size=8)


def frame(values: list[list[str | None] | None]) -> pl.DataFrame:
    weights = [None if v is None else [float(i) for i in range(len(v))] for v in values]
    return pl.DataFrame(
        {
            "tags": pl.Series(values, dtype=pl.List(pl.String)),
            "weights": pl.Series(weights, dtype=pl.List(pl.Float64)),
        }
    )


@given(values=lists, limit=st.none() | st.integers(1, 3))
def test_lists_by_definition(values: list[list[str | None] | None], limit: int | None) -> None:
    """Missing and empty values go with their weights, then the first `limit` stay."""
    feature = IdFeature(column="tags", table="t", weights="weights", max_values=limit)
    found = values_of(frame(values), feature, what="feature")
    assert found.offsets is not None and found.weights is not None
    wanted = [[(v, float(i)) for i, v in enumerate(row or []) if v][:limit] for row in values]
    flat = list(zip(found.flat.to_list(), found.weights.tolist(), strict=True))
    assert [flat[a:b] for a, b in zip(found.offsets, found.offsets[1:], strict=False)] == wanted


@given(values=lists)
def test_separated_strings_are_lists(values: list[list[str | None] | None]) -> None:
    joined = [None if row is None else "|".join(v or "" for v in row) for row in values]
    text = pl.DataFrame({"tags": pl.Series(joined, dtype=pl.String)})
    found = values_of(text, IdFeature(column="tags", table="t", separator="|"), what="feature")
    wanted = values_of(frame(values), IdFeature(column="tags", table="t"), what="feature")
    assert found.flat.to_list() == wanted.flat.to_list()
    assert found.offsets is not None and (found.offsets == wanted.offsets).all()


def test_arrays_are_lists() -> None:
    table = pl.DataFrame({"tags": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2))})
    found = values_of(table, IdFeature(column="tags", table="t"), what="feature")
    assert found.flat.to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"column": "n", "separator": "|"}, "a separator needs strings, 'n' is Int64"),
        ({"column": "n", "weights": "weights"}, "weights need a list"),
        ({"column": "tags", "weights": "tags"}, "weights must be lists of numbers"),
        ({"column": "tags", "weights": "short"}, r"'short' must be as long as 'tags'.*1 rows differ.*\[1\]"),
    ],
)
def test_what_does_not_fit_is_refused(feature: dict[str, str], message: str) -> None:
    table = pl.DataFrame({
        "n": [1, 2], "tags": [["a"], ["b", "c"]], "weights": [[1.0], [1.0, 2.0]], "short": [[1.0], [1.0]]
    })  # fmt: skip
    with pytest.raises(DataError, match=message):
        values_of(table, IdFeature(table="t", **feature), what="feature 'tags'")
