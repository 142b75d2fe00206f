"""A cross has one category for each combination: never two for one, never one for two."""

from __future__ import annotations

import itertools
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.encode.crosses import cross_of, with_crosses
from features.encode.fitted import Fitted
from features.encode.tables import Vocabulary
from features.errors import ConfigError, CtrError, DataError
from features.spec import parse_spec
from tests.features.small_log import RATINGS_SPEC, changed, prepared, rating_tables

CROSS: dict[str, Any] = {
    "crosses": {"taste": ["user.sex", "item.genres"]},
    "tables__taste": {},
    "features__taste": {"column": "cross.taste", "table": "taste"},
    "tokens__more": ["taste"],
}


def test_combinations_and_texts_are_one_to_one() -> None:
    values = [None, "", "|", "\\", "\\N", "a", "a|", "|a", "a\\", "\\|", "N"]
    combinations = list(itertools.product(values, repeat=3))
    parts = [pl.Series(column, dtype=pl.String) for column in zip(*combinations, strict=True)]
    texts = cross_of(parts).to_list()
    assert len(set(texts)) == len(combinations)
    assert [c for c, text in zip(combinations, texts, strict=True) if text is None] == [(None, None, None)]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float64, pl.String, pl.Categorical])
def test_a_number_meets_its_own_digits(dtype: Any) -> None:
    numbers = pl.Series([7, 12, None]).cast(pl.String if dtype == pl.Categorical else dtype).cast(dtype)
    rows = pl.DataFrame({"a": numbers, "b": ["x", None, "y"]})
    assert with_crosses(rows, {"c": ["a", "b"]})["cross.c"].to_list() == ["7|x", "12|\\N", "\\N|y"]


def test_the_vocabulary_is_that_of_the_training_rows(tmp_path: Path) -> None:
    data = prepared(tmp_path, changed(RATINGS_SPEC, **deepcopy(CROSS)), rating_tables())
    tables = rating_tables()
    rows = tables["ratings"].join(tables["users"], on="user_id")
    rows = rows.join(tables["movies"], on="movie_id", how="left").sort("timestamp")
    rows = rows.head(data.manifest.splits["train"].impressions)
    table = Fitted(data).table("taste")
    assert isinstance(table, Vocabulary)
    pairs = rows.select("sex", "genres").unique().filter(~pl.all_horizontal(pl.all().is_null())).rows()
    expected = {
        "|".join("\\N" if part is None else part.replace("|", "\\|") for part in pair) for pair in pairs
    }
    assert set(table.values.to_list()) == expected and len(expected) > 10
    assert data.manifest.column("taste").level == "candidate"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crosses": {"taste": ["user.sex"]}}, "two columns or more"),
        ({"crosses": {"taste": ["user.sex", "user.sex"]}}, "each once"),
        ({"crosses": {"taste": ["user.sex", "count.item.rate"]}}, "which are computed"),
        ({"crosses": {"taste": ["user.sex", "rating"]}}, "cross 'taste' reads 'rating', the label"),
        ({"crosses": {"taste": ["user.sex", "item.gone"]}}, "'gone', which cross 'taste' reads"),
        ({"crosses": {"taste": ["user.sex", "item.lists"]}}, "one value a row"),
        (
            {"crosses": {"taste": ["user.sex", "item.half"]}},
            "cross 'taste', column 'item.half'.*whole number",
        ),
        ({"features__taste__separator": "|"}, "drop separator"),
        ({"counters": {"item": {"by": ["cross.taste"]}}}, "counter 'item' reads .* not there"),
        ({"domains__ratings__side__x": {"column": "cross.taste", "table": "taste"}}, "'cross.taste'"),
    ],
)
def test_what_cannot_be_crossed_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    tables = rating_tables()
    more = {"lists": [[1, 2]] * 18, "half": [0.5] * 18}
    tables["movies"] = tables["movies"].with_columns(pl.Series(n, v) for n, v in more.items())
    with pytest.raises(CtrError, match=says) as refused:
        prepared(tmp_path, changed(RATINGS_SPEC, **deepcopy(CROSS | changes)), tables)
    assert isinstance(refused.value, ConfigError | DataError)


def test_a_spec_without_crosses_keeps_its_digest() -> None:
    assert "crosses" not in parse_spec(RATINGS_SPEC).model_dump(mode="json")
