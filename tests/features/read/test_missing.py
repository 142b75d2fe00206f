from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest

from features.past.counters import counter_columns
from features.read.missing import with_declared_nulls
from features.read.rows import read_columns
from features.spec import Counter
from tests.features.small_log import SHOP_SPEC, changed, prepared, shop_tables

NAN = float("nan")


def read(frame: pl.DataFrame, *, keys: tuple[str, ...] = ()) -> tuple[pl.DataFrame, dict[str, int]]:
    counters: dict[str, int] = {}
    found = read_columns(frame.lazy(), frame.columns, counters, keys=keys, name="t", what="table 't'")
    return found, counters


def test_nan_is_missing_wherever_it_stands() -> None:
    frame = pl.DataFrame(
        {
            "number": [1.0, NAN],
            "list": [[1.0, NAN], None],
            "vector": pl.Series([[1.0, NAN], None], dtype=pl.Array(pl.Float32, 2)),
            "half": pl.Series([NAN, 2.0], dtype=pl.Float32),
        }
    )
    found, _ = read(frame)
    assert found.rows() == [(1.0, [1.0, None], [1.0, None], None), (None, None, None, 2.0)]


@pytest.mark.fault(16)
def test_infinite_numbers_are_missing_and_counted_but_not_of_ids(caplog: pytest.LogCaptureFixture) -> None:
    frame = pl.DataFrame({"a": [1.0, float("inf"), -float("inf")], "id": [float("inf"), 1.0, 2.0]})
    with caplog.at_level(logging.WARNING):
        found, counters = read(frame, keys=("id",))
    assert found["a"].to_list() == [1.0, None, None] and counters == {"infinite.t.a": 2}
    assert found["id"][0] == float("inf")  # refused by key_values
    assert "column 'a' is infinite in 2 of 3 rows" in caplog.text


def test_declared_spellings_are_missing_in_texts_and_lists() -> None:
    frame = pl.DataFrame({"a": ["NULL", "x"], "b": [["x", "NULL"], ["y"]], "n": [1, 2]})
    found = frame.with_columns(list(with_declared_nulls(dict(frame.schema), ["NULL"])))
    assert found.rows() == [(None, ["x", None], 1), ("x", ["y"], 2)]
    kinds = frame.select(pl.col("a").cast(pl.Categorical))
    assert kinds.select(with_declared_nulls(dict(kinds.schema), ["NULL"])).rows() == [(None,), ("x",)]


@pytest.mark.parametrize("value", ["NULL", "\\N", "", "nan", "N/A", "None"])
def test_a_text_that_looks_like_missing_is_told(value: str, caplog: pytest.LogCaptureFixture) -> None:
    for dtype in (pl.String, pl.Categorical):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read(pl.DataFrame({"a": pl.Series(["x", value], dtype=dtype)}))
        assert f"column 'a' holds {[value]!r} in 1 of 2 rows" in caplog.text


def test_blanks_around_an_id_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(pl.DataFrame({"id": ["a", " a", "b "], "text": [" x", "y", "z"]}), keys=("id",))
    assert [r.getMessage()[:74] for r in caplog.records] == [
        "table 't': column 'id' holds texts with blanks around them in 2 of 3 rows,"
    ]


@pytest.mark.parametrize("mark", ["\ufeff", "\u200b", "\xa0"])
def test_invisible_characters_in_an_id_are_told(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    """As where files that begin with the mark of UTF-8 were put behind one another."""
    with caplog.at_level(logging.WARNING):
        read(pl.DataFrame({"id": ["é", f"{mark}a", None, "\u06a9\u200c\u06a9"]}), keys=("id",))
    assert [r.getMessage()[:79] for r in caplog.records] == [
        "table 't': column 'id' holds texts with invisible characters in 1 of 4 rows, su"
    ]
    assert ascii(mark)[1:-1] in caplog.text


def test_ids_that_were_written_as_floats_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(pl.DataFrame({"id": ["7.0", "v1.0", "8"]}), keys=("id",))
    assert "column 'id' holds texts like whole numbers that were written as floats in 1 of 3" in caplog.text


def test_one_missing_value_reaches_no_other_row() -> None:
    """A running sum would carry a NaN to all later rows of its key, and the running mean to every row."""
    rows = pl.DataFrame(
        {
            "item": [1, 1, 1, 2, 1],
            "__clock": [0, 1, 2, 3, 4],
            "__time": [0, 1, 2, 3, 4],
            "__label": [0] * 5,
            "worth": [2.0, None, 4.0, 6.0, 8.0],
        }
    )
    counter = Counter(by=["item"], value="worth", prior=1.0, outputs=["count", "positives", "rate"])
    found = counter_columns(rows, "n", counter).rows()
    assert [row[:2] for row in found] == [(0, 0.0), (1, 2.0), (2, 2.0), (0, 0.0), (3, 6.0)]
    means = [0.5, 2.0, 2.0, 3.0, 4.0]  # of all known values before
    rates = [(s + m) / (n + 1) for s, n, m in zip([0, 2, 2, 0, 6], [0, 1, 1, 0, 2], means, strict=True)]
    assert [row[2] for row in found] == pytest.approx(rates)


@pytest.mark.fault(16)
def test_nan_and_null_give_the_same_data_set(tmp_path: Path) -> None:
    spec = changed(
        SHOP_SPEC,
        counters={"p": {"by": ["device"], "value": "price", "outputs": ["positives", "rate"]}},
        features__price={"columns": ["count.p.*"], "scale": "none"},
    )
    one, other = shop_tables(), shop_tables()
    other["shown"] = other["shown"].with_columns(pl.col("price").fill_nan(None))
    assert one["shown"]["price"].is_nan().any()
    files = [prepared(tmp_path / name, spec, t).manifest.files for name, t in (("a", one), ("b", other))]
    assert {**files[0], "spec.yaml": ""} == {**files[1], "spec.yaml": ""}
