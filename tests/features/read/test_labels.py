from __future__ import annotations

import polars as pl
import pytest

from features.errors import DataError
from features.read.labels import drop_duplicates, label_of
from features.spec import Label


def rows(values: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"click": pl.Series(values, strict=False)}).with_row_index("__row")


@pytest.mark.parametrize(
    ("values", "rule", "wanted"),
    [
        ([0, 1], {}, [0, 1]),
        ([0.0, 1.0], {}, [0, 1]),
        ([True, False], {}, [1, 0]),
        ([3, 4, 5], {"at_least": 4}, [0, 1, 1]),
        (["buy", "view"], {"equals": "buy"}, [1, 0]),
        ([7, 8], {"equals": 7}, [1, 0]),
    ],
)
def test_rules(values: list[object], rule: dict[str, object], wanted: list[int]) -> None:
    label = label_of(rows(values), Label(column="click", **rule), what="shown")
    assert label.to_list() == wanted and label.dtype == pl.Int8


@pytest.mark.fault(14)
@pytest.mark.parametrize("bad", [2, -1, 0.5, float("nan"), None, "1"])
@pytest.mark.parametrize("rule", [{}, {"equals": 1}])
def test_bad_labels_are_refused(bad: object, rule: dict[str, object]) -> None:
    """Fault 14: no silent cast. A rule compares numbers, and texts by their digits, but nothing missing."""
    if rule and bad is not None and bad == bad:
        return
    with pytest.raises(DataError, match=r"shown: label 'click' must"):
        label_of(rows([0, bad]), Label(column="click", **rule), what="shown")


@pytest.mark.fault(14)
def test_error_has_count_and_first_rows() -> None:
    with pytest.raises(DataError, match=r"7 rows \(rows 1, 2, 3, 4, 5, …\) hold \[2, 2, 2, 2, 2\]"):
        label_of(rows([1, *[2] * 7, 0]), Label(column="click"), what="shown")


@pytest.mark.fault(21)
def test_duplicates() -> None:
    """Fault 21."""
    table = pl.DataFrame({"user": [1, 1, 1], "item": [2, 2, 3], "__row": [0, 1, 2]})
    with pytest.raises(DataError, match=r"1 rows \(rows 1\) repeat an earlier row; set impressions.dedup"):
        drop_duplicates(table, ["user", "item"], "error", what="shown")
    kept, count = drop_duplicates(table, ["user", "item"], "keep_first", what="shown")
    assert (kept["__row"].to_list(), count) == ([0, 2], 1)
    kept, count = drop_duplicates(table, ["user", "item"], "allow", what="shown")
    assert (kept.height, count) == (3, 1)
