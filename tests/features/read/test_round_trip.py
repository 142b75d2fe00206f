"""Random tables, as other programs write them, read back equal or are refused: never anything else."""

from __future__ import annotations

import string
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.read.clock import to_ticks
from features.read.ids import key_values
from features.read.roles import Role, TableRoles
from features.read.rows import read_columns
from features.read.scan import open_files
from features.read.time_column import TimeColumn
from features.source import RawTable, Source

Table = dict[str, list[Any]]
ROLES: dict[str, set[Role]] = {"key": {"category"}, "number": {"number"}, "at": {"time"}, "id": {"category"}}
_CHARACTERS = string.ascii_letters + string.digits + " ,;'\"\n\\|é中\t.-+"


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Text keys of any characters, numbers with gaps, whole numbers beyond floats, times in microseconds."""
    size = draw(st.integers(1, 8))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    moments = st.datetimes(datetime(1990, 1, 2), datetime(2027, 1, 1))
    return {
        "key": column(st.text(_CHARACTERS, min_size=1, max_size=8)),
        "number": column(st.none() | st.floats(-1e300, 1e300)),
        "id": column(st.integers(-(2**63), 2**63 - 1)),
        "at": column(moments),
    }


def arrow(table: Table) -> pa.Table:
    types = {"key": pa.string(), "number": pa.float64(), "id": pa.int64(), "at": pa.timestamp("us")}
    return pa.table({n: pa.array(v, type=types[n]) for n, v in table.items()})


def polars_csv(table: Table, path: Path) -> None:
    frame = pl.DataFrame(arrow(table))
    frame.write_csv(path, quote_style="necessary", datetime_format="%Y-%m-%dT%H:%M:%S%.6f")


def pandas_csv(table: Table, path: Path) -> None:
    pd.DataFrame(table).assign(number=pd.array(table["number"], dtype="Float64")).to_csv(path, index=False)


def arrow_csv(table: Table, path: Path) -> None:
    pc.write_csv(arrow(table), path)


def duckdb_csv(table: Table, path: Path) -> None:
    rows = arrow(table)
    duckdb.sql("SELECT * FROM rows").write_csv(str(path), header=True)
    assert rows.num_rows


def polars_parquet(table: Table, path: Path) -> None:
    pl.DataFrame(arrow(table)).write_parquet(path)


def pandas_parquet(table: Table, path: Path) -> None:
    """With the types that pandas has of its own accord: categories, and NaN for what is missing."""
    frame = pd.DataFrame(table)
    frame.assign(key=frame["key"].astype("category"), number=frame["number"].astype(float)).to_parquet(path)


def spark_parquet(table: Table, path: Path) -> None:
    """INT96 for times and text as plain bytes, as Spark and Hive wrote them."""
    rows = arrow(table)
    plain = rows.set_column(0, "key", rows["key"].cast(pa.binary()))
    pq.write_table(plain, path, use_deprecated_int96_timestamps=True)


def duckdb_parquet(table: Table, path: Path) -> None:
    rows = arrow(table)
    decimal = 'SELECT key, number, CAST(id AS DECIMAL(38, 0)) AS id, "at"::TIMESTAMPTZ AS "at" FROM rows'
    connection = duckdb.connect()
    connection.sql("SET TimeZone = 'UTC'")
    connection.register("rows", rows)
    connection.sql(decimal).write_parquet(str(path))


def read(path: Path, **options: Any) -> pl.DataFrame:
    source = Source(tables={"t": RawTable(path=path.name, format=path.suffix[1:], **options)})
    needed = {"t": dict.fromkeys(ROLES, "the test")}
    found = open_files(source, base=path.parent, needed=needed, roles={"t": TableRoles(dict(ROLES))})
    return read_columns(
        found["t"], list(ROLES), {}, keys=["key", "id"], times=["at"], name="t", what="table 't'"
    )


def expected(table: Table) -> list[tuple[Any, ...]]:
    number = [None if v is None else float(v) for v in table["number"]]
    at = [round(m.replace(tzinfo=UTC).timestamp() * 10**6) for m in table["at"]]
    return list(zip(table["key"], number, table["id"], at, strict=True))


def got(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    ticks = to_ticks(frame, TimeColumn("at", "t"), "auto")
    per_micro = {"s": 10**-6, "ms": 10**-3, "us": 1, "ns": 10**3}[ticks.unit]
    at = [round(v / per_micro) for v in ticks.values]
    keys = [key_values(frame[c], what=c).cast(pl.String).to_list() for c in ("key", "id")]
    return list(zip(keys[0], frame["number"].to_list(), map(int, keys[1]), at, strict=True))


@pytest.mark.parametrize("write", [polars_csv, pandas_csv, arrow_csv, duckdb_csv])
@settings(deadline=None, max_examples=60)
@given(table=tables())
def test_csv(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Table, Path], None], table: Table
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    write(table, path)
    try:
        found = got(read(path))
    except DataError as error:
        # Fields of several lines are asked about; declared, they are read.
        assert "are one quoted field, but each of them looks like a record" in str(error)
        found = got(read(path, quote='"'))
    assert found == expected(table)


@pytest.mark.parametrize("write", [polars_parquet, pandas_parquet, spark_parquet, duckdb_parquet])
@settings(deadline=None, max_examples=60)
@given(table=tables())
def test_parquet(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Table, Path], None], table: Table
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.parquet"
    write(table, path)
    assert got(read(path)) == expected(table)


@settings(deadline=None, max_examples=60)
@given(table=tables(), cuts=st.lists(st.integers(0, 8), max_size=3))
def test_parts_by_different_writers_are_one_table(
    tmp_path_factory: pytest.TempPathFactory, table: Table, cuts: list[int]
) -> None:
    """Categories beside texts, ns beside us: what differs is widened, and no value changes."""
    root, size = tmp_path_factory.mktemp("t"), len(table["key"])
    bounds = [0, *sorted(min(c, size) for c in cuts), size]
    writers = (polars_parquet, pandas_parquet, spark_parquet)
    (root / "parts").mkdir()
    for i, (low, high) in enumerate(pairwise(bounds)):
        writers[i % 3]({n: v[low:high] for n, v in table.items()}, root / "parts" / f"{i}.parquet")
    source = Source(tables={"t": RawTable(path="parts")})
    needed = {"t": dict.fromkeys(ROLES, "the test")}
    found = open_files(source, base=root, needed=needed, roles={"t": TableRoles(dict(ROLES))})
    frame = read_columns(found["t"], list(ROLES), {}, keys=["key", "id"], times=["at"], name="t", what="t")
    assert got(frame) == expected(table)


@settings(deadline=None, max_examples=100)
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6), gaps=st.booleans())
def test_ids_that_became_floats_are_the_same_or_refused(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], gaps: bool
) -> None:
    """As pandas does where one is missing: below 2^53 nothing is lost, above it two may have become one."""
    path = tmp_path_factory.mktemp("t") / "a.parquet"
    pl.DataFrame({"x": pl.Series([*map(float, ids), *([None] if gaps else [])])}).write_parquet(path)
    values = pl.read_parquet(path)["x"]
    if any(abs(float(i)) >= 2**53 for i in ids):
        with pytest.raises(DataError, match="cannot be told from its neighbours"):
            key_values(values, what="x")
    else:
        assert key_values(values, what="x").to_list() == [*ids, *([None] if gaps else [])]
