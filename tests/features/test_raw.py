"""Raw columns of logged rows are encoded to what the preparation wrote for these rows, to the bit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.dataset import SPLITS, Dataset, IdValues, dense_values, id_values
from features.errors import DataError
from features.raw import RawEncoder
from features.read.clock import TIME
from pipelines.cli import main
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    Tables,
    changed,
    logged_rows,
    prepared,
    rating_tables,
    shop_tables,
)

# Every kind of table and scale, a hashed number beside a hashed text, a column of vectors.
RATINGS = changed(
    RATINGS_SPEC,
    tables__year={"encode": "log", "rows": 8},
    tables__hashed={"encode": "hash", "rows": 7},
    features__year={"columns": ["item.year", "user.age"], "scale": "quantile"},
    features__decade={"column": "item.year", "table": "year"},
    features__hashed={"column": "movie_id", "table": "hashed"},
    features__mood={"column": "item.genres", "table": "hashed"},
    features__vector={"columns": ["user.ag*", "item.vector"], "scale": "standard"},
    ages={"movie": "item.added", "account": "user.joined"},
    features__ages={"columns": ["age.*"], "scale": "quantile"},
    features__account={"column": "age.account", "table": "year"},
    crosses={"taste": ["user.sex", "item.genres"], "group": ["user.sex", "user.age"]},
    tables__taste={},
    features__taste={"column": "cross.taste", "table": "taste"},
    features__group={"column": "cross.group", "table": "hashed"},
    tokens__more=["decade", "hashed", "mood", "vector", "ages", "account", "taste", "group"],
)


def with_vectors() -> Tables:
    tables = rating_tables()
    vectors = [[float(i), None if i % 3 else 1.5] for i in range(tables["movies"].height)]
    column = pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, 2))
    return {**tables, "movies": tables["movies"].with_columns(column)}


CASES = {"ratings": (RATINGS, with_vectors()), "shop": (SHOP_SPEC, shop_tables())}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return prepared(folder, *CASES[request.param]), folder / "raw"


def test_rows_of_the_log_are_encoded_as_prepared(case: tuple[Dataset, Path]) -> None:
    dataset, base = case
    encoder = RawEncoder(dataset)
    rows = logged_rows(encoder.spec, base)
    own, shared = encoder.readable("candidate"), encoder.readable("request")
    first = 0
    for split in SPLITS:
        data = dataset.split(split)
        part = rows.slice(first, data.impressions.num_rows)
        first += part.height
        raw = {name: part[name].to_list() for name in (*own, *shared) if name in part}
        given = {name: values for name, values in raw.items() if name in own}
        found = encoder.encode("candidate", given, beside=raw, what="columns")
        assert_equal(found, data.impressions, dataset, "candidate")
        heads = part[data.row_offsets[:-1]]
        asked = {name: heads[name].to_list() for name in encoder.readable("request")}
        wanted = encoder.encode("request", asked, what="request_columns")
        for name, values in zip(*_calendars(encoder, heads[TIME].to_list()), strict=True):
            wanted.ids[name] = values
        assert_equal(wanted, data.requests, dataset, "request")
    assert first == rows.height


def _calendars(encoder: RawEncoder, times: list[int]) -> tuple[list[str], list[IdValues]]:
    found = [encoder.calendar(time) for time in times]
    names = list(found[0])
    return names, [IdValues(np.array([f[name] for f in found])) for name in names]


def assert_equal(found: Any, table: Any, dataset: Dataset, level: str) -> None:
    columns = [c for c in dataset.manifest.features if c.level == level]
    assert {c.name for c in columns} == found.ids.keys() | found.dense.keys()
    for column in columns:
        if column.kind == "dense":
            np.testing.assert_array_equal(found.dense[column.name], dense_values(table, column))
            continue
        want, got = id_values(table, column), found.ids[column.name]
        for side in ("values", "offsets", "weights"):
            np.testing.assert_array_equal(getattr(got, side), getattr(want, side), err_msg=column.name)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> RawEncoder:
    return RawEncoder(prepared(tmp_path_factory.mktemp("one"), *CASES["ratings"]))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> RawEncoder:
    return RawEncoder(prepared(tmp_path_factory.mktemp("two"), *CASES["shop"]))


def test_new_and_missing_values(ratings: RawEncoder, shop: RawEncoder) -> None:
    found = ratings.encode("candidate", {"movie_id": [None, 999, float("nan")]}, what="columns")
    item = found.ids["item"].values.tolist()
    assert item[0] == item[2] == 0 and 1 <= item[1] <= 3  # one of three unknown rows
    several, users = {"item.genres": ["a|new|b", None, ""]}, {"user.sex": ["f", None, "new"]}
    found = ratings.encode("candidate", several, beside=users, what="columns")
    genres, taste = found.ids["genres"], found.ids["taste"].values.tolist()
    assert genres.offsets is not None and genres.offsets.tolist() == [0, 2, 2, 2]
    assert taste == [1, 0, 1]  # combinations that training has not seen; nothing at all is missing
    tags = shop.encode("candidate", {"tags": [["new"], None], "weights": [[2.0], None]}, what="columns")
    assert tags.ids["tags"].values.tolist() == [1] and tags.ids["tags"].weights.tolist() == [2.0]  # type: ignore[union-attr]
    price = shop.encode("candidate", {"price": [None, float("nan"), float("inf")]}, what="columns")
    assert (price.dense["price"] == [[0.0, 1.0]] * 3).all()  # 0 and the indicator


@pytest.mark.parametrize(
    ("which", "level", "given", "says"),
    [
        (
            "ratings",
            "candidate",
            {"rating": [5]},
            r"columns must name columns of .*'movie_id'.*got \['rating'",
        ),
        ("ratings", "request", {"movie_id": [5]}, r"must name columns of \[.*'user.age'.*got \['movie_id'\]"),
        ("ratings", "candidate", {"item.year": [1990]}, r"all columns of feature 'year', \['user.age'\] are"),
        ("ratings", "candidate", {"movie_id": ["5"]}, "columns.movie_id must hold for each a whole number"),
        ("ratings", "candidate", {"movie_id": [1.5]}, "a whole number of 64 bits, .* got 1.5"),
        ("ratings", "candidate", {"movie_id": [2**63]}, "a whole number of 64 bits"),
        ("ratings", "candidate", {"movie_id": [True]}, "a whole number of 64 bits, .* got True"),
        ("ratings", "candidate", {"item.genres": [["a"]]}, "columns.item.genres must hold for each a text"),
        ("ratings", "candidate", {"item.genres": [1.5]}, "a text, or null where it is missing, got 1.5"),
        ("ratings", "request", {"user.age": ["old"]}, "request_columns.user.age must hold for each a number"),
        (
            "ratings",
            "candidate",
            {"user.age": [3]},
            r"must not name \['user.age'\], which belong to the request",
        ),
        (
            "ratings",
            "candidate",
            {"cross.taste": ["f|a"]},
            r"a cross by its columns, \['user.sex', 'item.gen",
        ),
        (
            "ratings",
            "request",
            {"cross.group": ["f|3"]},
            r"a cross by its columns, \['user.sex', 'user.age'\]",
        ),
        ("shop", "candidate", {"price": [10**400]}, "columns.price must hold for each a number"),
        ("shop", "candidate", {"tags": ["x"], "weights": [[1]]}, "columns.tags must hold for each a list"),
        ("shop", "candidate", {"tags": [["x"]], "weights": [[1, 2]]}, "must be as long as 'tags'"),
        ("shop", "candidate", {"tags": [["x"]]}, r"feature 'tags', \['weights'\] are missing"),
    ],
)
def test_what_does_not_fit_is_refused(
    which: str, level: Any, given: dict[str, Any], says: str, request: pytest.FixtureRequest
) -> None:
    encoder: RawEncoder = request.getfixturevalue(which)
    what = "columns" if level == "candidate" else "request_columns"
    with pytest.raises(DataError, match=f"(?s){says}"):
        encoder.encode(level, given, what=what)


def test_a_vector_has_its_width(ratings: RawEncoder) -> None:
    given = {"item.vector": [[1.0]], "item.year": [1]}
    with pytest.raises(DataError, match=r"columns.item.vector must hold for each a list of 2 numbers"):
        ratings.encode("candidate", given, beside={"user.age": [3]}, what="columns")
    both = {"item.vector": [[1.0, 2.0]], "item.vector.0": [3.0], "item.year": [1]}
    with pytest.raises(DataError, match=r"must give \['item.vector.0'\] once, either so or in 'item.vector'"):
        ratings.encode("candidate", both, beside={"user.age": [3]}, what="columns")


def test_the_numbers_of_a_vector_of_the_request_belong_to_it(tmp_path: Path) -> None:
    tables = shop_tables(20)
    vector = pl.col("request").str.slice(1).cast(pl.Float64)
    tables["shown"] = tables["shown"].with_columns(vec=pl.concat_list(vector, vector * 2))
    spec = changed(
        SHOP_SPEC,
        impressions__context=["device", "vec"],
        features__alone={"columns": ["vec"]},
        features__price={"columns": ["price", "vec"]},
        tokens__all=["item", "device", "tags", "price", "alone"],
    )
    encoder = RawEncoder(prepared(tmp_path, spec, tables))
    assert encoder.readable("request") == ["device", "vec", "vec.0", "vec.1"]
    assert encoder.readable("candidate") == ["item", "price", "tags", "weights"]
    assert encoder.columns_of(["alone", "price"]) == ["price", "vec"]


def test_a_view_encodes_what_it_has(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, *CASES["shop"])
    encoder = RawEncoder(dataset.without(["price"]))
    assert "price" not in encoder.readable("candidate") and "tags" in encoder.readable("candidate")


@pytest.fixture
def damaged(shop: RawEncoder, tmp_path: Path) -> Dataset:
    """A data set of its own, to be damaged."""
    return Dataset(shutil.copytree(shop.fitted.root.parent, tmp_path / "shop"))


VOCABULARIES: dict[str, pa.Table | bytes | None] = {
    "gone": None,
    "no Parquet": b"x",
    "other columns": pa.table({"word": ["a"]}),
    "other IDs": pa.table({"value": ["a"], "id": [7], "count": [1]}),
    "IDs of text": pa.table({"value": ["a"], "id": ["1"], "count": [1]}),
    "empty": pa.table({"value": [], "id": [], "count": []}),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_damaged_vocabulary_is_named(name: str, damaged: Dataset) -> None:
    path, damage = damaged.root / "fitted" / "item.parquet", VOCABULARIES[name]
    path.unlink()
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage is not None:
        pq.write_table(damage, path)
    with pytest.raises(DataError, match=r"item\.parquet must be there as ctr prepare wrote it, got"):
        RawEncoder(damaged).encode("candidate", {"item": ["i1"]}, what="columns")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"tables": [], "scalers": {}}', "[" * 100_000])
def test_damaged_scalers_are_named_by_all_who_read_them(
    text: str, damaged: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged.root / "fitted" / "scalers.json").write_text(text)
    with pytest.raises(DataError, match=r"scalers\.json must be there as ctr prepare wrote it, got"):
        RawEncoder(damaged).encode("candidate", {"price": [1.0]}, what="columns")
    assert main(["doctor", str(damaged.root)]) == 3
    assert "scalers.json" in capsys.readouterr().err


def test_a_doctor_who_cannot_read_a_changed_file_says_so(
    damaged: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(damaged.root / "fitted" / "item.parquet", 20)
    assert main(["doctor", str(damaged.root)]) == 3
    assert "changed since: ['fitted/item.parquet'], and cannot be read" in capsys.readouterr().err
