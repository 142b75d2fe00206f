from __future__ import annotations

import logging

import polars as pl
import pytest

from features.encode.values import values_of
from features.errors import DataError
from features.past.keys import encode_keys
from features.read.json_lists import json_lists
from features.read.lists import split, vectors
from features.spec import IdFeature

TEXTS = ["Action, Comedy", "Comedy,  Action ", " Comedy", None, " , ", "a,,b"]
PARTS = [["Action", "Comedy"], ["Comedy", "Action"], ["Comedy"], None, [], ["a", "b"]]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_parts_are_trimmed_alike_for_features_counters_and_matches(dtype: pl.DataType) -> None:
    column = pl.Series("x", TEXTS, dtype=pl.String).cast(dtype)
    assert split(column, ",").to_list() == PARTS
    found = values_of(column.to_frame(), IdFeature(column="x", table="t", separator=","), what="f")
    assert found.flat.to_list() == [v for part in PARTS for v in part or []]
    (keys,) = encode_keys(column.to_frame(), by=[["x"]], separator=",", what="c")
    assert keys.row.tolist() == [i for i, part in enumerate(PARTS) for _ in part or []]


def test_a_column_without_the_separator_has_one_value_a_row() -> None:
    assert split(pl.Series([" a", "", "b"]), "|").to_list() == ["a", None, "b"]
    assert split(pl.Series([[1], [2, 3]], dtype=pl.List(pl.Int64)), "|").to_list() == [[1], [2, 3]]
    assert split(pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), None).to_list() == [[1, 2]]


@pytest.mark.parametrize("text", ["[1,2]", '"a","b"', "{1,2}"])
def test_brackets_and_quotes_are_told(text: str, caplog: pytest.LogCaptureFixture) -> None:
    frame = pl.DataFrame({"x": [text]})
    with caplog.at_level(logging.WARNING):
        values_of(frame, IdFeature(column="x", table="t", separator=","), what="feature 'x'")
    assert "feature 'x': values between separators begin or end with brackets or quotes" in caplog.text


def test_json_lists_hold_plain_values() -> None:
    texts = ["[1, 1.10, true]", "[]", None, "[[1]]", '{"a": 1}', "[1", '["ü", null]', "[NaN]", "[" * 9999]
    expected = [["1", "1.10", "true"], [], None, None, None, None, ["ü", None], [None], None]
    assert json_lists(pl.Series(texts)).to_list() == expected


@pytest.mark.parametrize("text", ['["\\ud800"]', '["a", "\\udc00b"]', "[Infinity]", "[1, -Infinity]"])
def test_json_that_is_no_list_of_texts_is_none(text: str) -> None:
    """Half of a surrogate pair is no character, and an infinite number no ID."""
    assert json_lists(pl.Series([text, '["\\ud83d\\ude00", "\\\\ud800"]'])).to_list() == [
        None,
        ["😀", "\\ud800"],
    ]


def test_lists_of_one_length_are_vectors() -> None:
    found = vectors(pl.Series([[1, 2], None, [3, None]]), what="x")
    assert found.dtype == pl.Array(pl.Int64, 2) and found.to_list() == [[1, 2], None, [3, None]]
    assert vectors(pl.Series([["0.5", "1"], ["2", "3"]]), what="x").to_list() == [[0.5, 1.0], [2.0, 3.0]]
    assert vectors(pl.Series([1.0]), what="x").to_list() == [1.0]
    with pytest.raises(DataError, match="x: lists of a dense feature must have one length, got 1 to 2"):
        vectors(pl.Series([[1], [1, 2]]), what="x")
    with pytest.raises(DataError, match=r"x: a vector must hold numbers, got others, such as \['a'\]"):
        vectors(pl.Series([["a"]]), what="x")
    with pytest.raises(DataError, match="x: a vector must be a list of numbers"):
        vectors(pl.Series([[[1]]]), what="x")
