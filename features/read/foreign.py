"""Parquet files that Polars cannot open, though what is read of them is plain: read through pyarrow.

Times with an offset such as +05:30 for a zone, as pandas writes them, decimals of more than 38 digits, and
two columns of one name stop Polars even if nobody reads those columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from features.read.io_source import served

_OFFSET = re.compile(r"[+-]\d\d:?\d\d")


def is_foreign(schema: pa.Schema) -> bool:
    """Whether Polars cannot open a file with this schema."""
    twice = len(set(schema.names)) < len(schema.names)
    return twice or any(_is_foreign(field.type) for field in schema)


def _is_foreign(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz is not None and _OFFSET.fullmatch(kind.tz) is not None
    if pa.types.is_decimal256(kind):
        return True
    return any(_is_foreign(kind.field(i).type) for i in range(kind.num_fields))


def foreign_schema(schema: pa.Schema) -> dict[str, pl.DataType]:
    """The columns that can be read: those of one name each, of types that Polars has, times in UTC."""
    found: dict[str, pl.DataType] = {}
    for field in schema:
        if schema.names.count(field.name) == 1:
            kind = _in_utc(field.type)
            if not _is_foreign(kind):
                empty = pl.from_arrow(pa.array([], type=kind))
                assert isinstance(empty, pl.Series)
                found[field.name] = empty.dtype
    return found


def scan_foreign(path: Path, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    """A lazy frame of the columns of `foreign_schema`."""

    def frames(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch: int | None
    ) -> Iterator[pl.DataFrame]:
        yield from served(
            _frames(path, list(schema) if columns is None else columns), columns, predicate, rows
        )

    return register_io_source(frames, schema=schema)


def _frames(path: Path, names: list[str]) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for piece in file.iter_batches(columns=names):
            table = pa.Table.from_batches([piece]).select(names)
            plain = table.cast(pa.schema([f.with_type(_in_utc(f.type)) for f in table.schema]))
            frame = pl.from_arrow(plain)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """A time with an offset for a zone holds UTC anyway: the zone is how it is shown."""
    foreign = pa.types.is_timestamp(kind) and _is_foreign(kind)
    return pa.timestamp(kind.unit, tz="UTC") if foreign else kind
