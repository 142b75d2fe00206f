"""A cross has one category for each combination: never two for one, never one for two."""

from __future__ import annotations

import itertools
import json
import shutil
from copy import deepcopy
from datetime import date, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.dataset import Dataset
from features.encode.crosses import cross_of, with_crosses
from features.encode.fitted import Fitted
from features.encode.tables import Vocabulary
from features.errors import ConfigError, CtrError, DataError
from features.prepare import check
from features.raw import RawEncoder
from features.spec import parse_spec
from tests.features.small_log import RATINGS_SPEC, changed, prepared, rating_tables, write_tables

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
        (
            {"features__taste__max_values": 3, "tables__taste": {"encode": "log", "rows": 9}},
            "2 things .*drop max_values\n.*table 'taste' makes buckets of numbers .encode: log",
        ),
        (
            {"counters__item__by": ["cross.taste"]},
            r"counter 'item' reads 'cross.taste', but a .* read by: \[",
        ),
        ({"matches__genre__candidate": "cross.taste"}, "match 'genre' reads 'cross.taste', but a cross is a"),
        ({"pairs__p": {"candidate": "cross.taste", "column": "item.genres"}}, "pair 'p' reads 'cross.taste'"),
        ({"pages__p": {"column": "cross.taste"}}, "page 'p' reads 'cross.taste', but a cross is a category"),
        ({"features__year": {"columns": ["cross.taste"]}}, "dense feature 'year' reads 'cross.taste', but"),
        ({"features__year": {"columns": ["cro*e"]}}, "dense feature 'year' reads 'cross.taste', but"),
        ({"features__genres__weights": "cross.taste"}, "feature 'genres' under weights reads 'cross.taste'"),
        ({"crosses": {"taste": ["user.sex", "timestamp"]}}, "'timestamp', the time of the impressions"),
        ({"crosses": {"taste": ["user.sex", "item.clock"]}}, "an ID must be a number or a text, got Time"),
        ({"domains__ratings__side__x": {"column": "cross.taste", "table": "taste"}}, "'cross.taste'"),
    ],
)
def test_what_cannot_be_crossed_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    tables = rating_tables()
    more = {"lists": [[1, 2]] * 18, "half": [0.5] * 18, "clock": [time(1)] * 18}
    tables["movies"] = tables["movies"].with_columns(pl.Series(n, v) for n, v in more.items())
    spec = changed(RATINGS_SPEC, **deepcopy(CROSS | changes))
    write_tables(tmp_path / "raw", tables)
    with pytest.raises(CtrError, match=f"(?s){says}") as refused:
        check(parse_spec(spec), base=tmp_path / "raw")
        assert "item.half" in says  # which its values alone tell
        prepared(tmp_path, spec, tables)
    assert isinstance(refused.value, ConfigError | DataError)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> RawEncoder:
    """A hash table, which gives any text a row: what is written in another way would be another category."""
    tables, folder = rating_tables(), tmp_path_factory.mktemp("typed")
    own: dict[str, list[Any]] = {
        "num": [1.0, 2.0, None] * 4,
        "flag": [True, False, None] * 4,
        "big": [2**63, 1, None] * 4,
        "born": [date(2024, 1, day) for day in range(1, 13)],
        "none": [None] * 12,
    }
    types = {"big": pl.UInt64, "none": pl.Null}
    users = tables["users"].with_columns(pl.Series(n, v, dtype=types.get(n)) for n, v in own.items())
    changes = {
        "crosses": {"who": ["user.sex", *(f"user.{name}" for name in own)]},
        "tables__who": {"encode": "hash", "rows": 10**6},
        "features__who": {"column": "cross.who", "table": "who"},
        "tokens__more": ["who"],
    }
    data = prepared(folder, changed(RATINGS_SPEC, **changes), {**tables, "users": users})
    types_of = {"sex": "String", "num": "Int64", "flag": "Boolean", "big": "String", "born": "String"}
    assert Fitted(data).parts == {"who": {f"user.{n}": t for n, t in {**types_of, "none": "String"}.items()}}
    return RawEncoder(data)


WHO: dict[str, Any] = {"sex": "f", "num": 2, "flag": True, "big": 1, "born": "2024-01-02", "none": None}


def row_of(encoder: RawEncoder, **other: Any) -> int:
    given = {f"user.{name}": [value] for name, value in (WHO | other).items()}
    found = encoder.encode("request", given, only=["who"], what="request_columns")
    return int(found.ids["who"].values[0])


@pytest.mark.parametrize("other", [{"num": 2.0}, {"flag": "true"}, {"big": "1"}, {"none": float("nan")}])
def test_one_value_is_one_category_however_it_is_written(typed: RawEncoder, other: dict[str, Any]) -> None:
    assert row_of(typed, **other) == row_of(typed) != row_of(typed, sex="m")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"num": "2"}, r"request_columns.user.num must hold for each a whole number of 64 bits, .* got '2'"),
        ({"num": "2.0"}, "user.num must hold for each a whole number"),
        ({"num": 1.5}, "user.num must hold for each a whole number"),
        ({"num": True}, "user.num must hold for each a whole number"),
        ({"flag": "True"}, "user.flag must hold for each true or false, .* got 'True'"),
        ({"flag": "TRUE "}, "user.flag must hold for each true or false"),
        ({"flag": 1}, "user.flag must hold for each true or false"),
        ({"flag": [True]}, "user.flag must hold for each true or false"),
        ({"sex": ["f"]}, "user.sex must hold for each a text"),
    ],
)
def test_a_column_of_a_cross_has_its_own_type(typed: RawEncoder, other: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        row_of(typed, **other)


def test_a_data_set_that_does_not_tell_its_types_takes_texts(typed: RawEncoder, tmp_path: Path) -> None:
    """As those that were written before."""
    old = Dataset(shutil.copytree(typed.fitted.root.parent, tmp_path / "old"))
    path = old.root / "fitted" / "scalers.json"
    fitted = json.loads(path.read_text())
    path.write_text(json.dumps({name: part for name, part in fitted.items() if name != "crosses"}))
    assert row_of(RawEncoder(old), num="2") == row_of(typed)


def test_a_spec_without_crosses_keeps_its_digest() -> None:
    assert "crosses" not in parse_spec(RATINGS_SPEC).model_dump(mode="json")
