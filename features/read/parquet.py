"""Parquet files as lazy frames: sizes and checksums proved, columns of foreign types made plain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.read.convert import MUST, TYPES, convert, remedy
from features.read.foreign import foreign_schema, is_foreign, scan_foreign
from features.read.ids import key_values, texts_of
from features.read.roles import Kind


def parquet_schema(path: Path, check_size: Callable[[int], None]) -> tuple[dict[str, pl.DataType], int]:
    """The columns of a file, the fields of structs as `struct.field`, and the number of its rows.

    Raises:
        DataError: it unpacks to too much; what else is wrong is raised by pyarrow or Polars.
    """
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        check_size(sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)))
    schema = dict(_scan(path).collect_schema())
    for name, dtype in list(schema.items()):
        for inner, kind in _fields(name, dtype):
            schema.setdefault(inner, kind)
    return schema, meta.num_rows


def unreadable_hint(path: Path, columns: list[str]) -> str:
    """Why a file seems to lack columns that it has."""
    there = [c for c in columns if c in pq.read_schema(path).names]
    return f"; {there} are there, but twice or of a type that cannot be read" if there else ""


def _scan(path: Path) -> pl.LazyFrame:
    """All columns that can be read."""
    stored = pq.read_schema(path)
    return (
        scan_foreign(path, foreign_schema(stored))
        if is_foreign(stored)
        else pl.scan_parquet(path, glob=False)
    )


def _fields(name: str, dtype: pl.DataType) -> Iterable[tuple[str, pl.DataType]]:
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            inner = field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()
            yield f"{name}.{field.name}", inner
            yield from _fields(f"{name}.{field.name}", inner)


def verify_pages(path: Path, columns: Iterable[str]) -> None:
    """Read columns once with the checksums of their pages: Polars would take a flipped bit for a value.

    Vectors of which one is missing cannot be read by pyarrow; they are left to Polars.

    Raises:
        DataError: a page differs from its checksum, or cannot be read.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        tops = {c for column in columns for c in _prefixes(column)}
        fields = [f for f in file.schema_arrow if f.name in tops]
        plain = [f.name for f in fields if not _has_vectors(f.type)]
        for _ in file.iter_batches(columns=plain) if plain else ():
            pass
        for field in fields:
            if field.name not in plain:
                _verify_vectors(file, field.name)


def _prefixes(column: str) -> Iterable[str]:
    parts = column.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts) + 1))


def _has_vectors(kind: pa.DataType) -> bool:
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return pa.types.is_fixed_size_list(kind) or any(map(_has_vectors, inner))


def _verify_vectors(file: pq.ParquetFile, name: str) -> None:
    try:
        for _ in file.iter_batches(columns=[name]):
            pass
    except pa.ArrowInvalid as error:
        if "Expected all lists to be of size" not in str(error):
            raise


def scan_parquet(path: Path, columns: Mapping[str, str]) -> pl.LazyFrame:
    """A lazy frame of some columns under the names that the spec has for them.

    Args:
        path: the file.
        columns: name in the spec → name in the file.
    """
    frame = _scan(path)
    top = set(frame.collect_schema().names())
    return frame.select(_column(source, top).alias(name) for name, source in columns.items())


def _column(name: str, top: set[str]) -> pl.Expr:
    """A column, or a field of a struct by its dotted name."""
    if name in top:
        return pl.col(name)
    struct = max((p for p in _prefixes(name) if p in top), key=len)
    found = pl.col(struct)
    for field in name[len(struct) + 1 :].split("."):
        found = found.struct.field(field)
    return found


def cast_column(
    name: str, source: pl.DataType, target: pl.DataType, kind: Kind | None, *, what: str, zone: str | None
) -> pl.Expr:
    """A column of one file in the type that it has in the table.

    Args:
        name: of the column.
        source: its type in the file.
        target: its type in the table.
        kind: how texts are converted; None: the column stays as it is stored.
        what: file and column, for messages.
        zone: declared of datetimes that name none.
    """
    column = pl.col(name)
    if source == target:
        return column
    if source == pl.Null():
        return column.cast(target)
    if source == pl.Binary():
        return _each(column, lambda v: texts_of(v, what=what), target)
    if kind is not None and (isinstance(source, pl.String | pl.Categorical | pl.Enum)):
        return _each(column.cast(pl.String), lambda v: _converted(v, kind, what), target)
    if kind is not None or (target == pl.Int64() and not source.is_integer() and source.is_numeric()):
        return _each(column, lambda v: _stored(v, target, what), target)
    if isinstance(source, pl.Datetime) and isinstance(target, pl.Datetime):
        if target.time_zone is not None and source.time_zone is None:
            column = column.dt.replace_time_zone(zone).dt.convert_time_zone("UTC")
        elif source.time_zone is not None:
            column = column.dt.convert_time_zone("UTC")
    return column.cast(target)


def _each(column: pl.Expr, function: Callable[[pl.Series], pl.Series], target: pl.DataType) -> pl.Expr:
    return column.map_batches(function, return_dtype=target, is_elementwise=True)


def _converted(text: pl.Series, kind: Kind, what: str) -> pl.Series:
    values, wrong = convert(text, kind)
    if wrong.any():
        at = int(wrong.arg_max() or 0)
        raise DataError(
            f"{what} must hold {MUST[kind]} in every row, but {int(wrong.sum())} rows hold others, such as "
            f"{text[at]!r:.80}; {remedy(text.name, str(text[at]), kind)}"
        )
    return values.cast(TYPES[kind])


def _stored(values: pl.Series, target: pl.DataType, what: str) -> pl.Series:
    """Stored values as what the table declares, without loss."""
    if target == pl.Int64() or target == pl.String():
        keys = key_values(values, what=what)
        if target == pl.String():
            return keys.cast(pl.String)
        if keys.dtype != pl.Int64:
            raise DataError(f"{what}: integers must fit 64 bits here; declare the column as text under types")
        return keys
    try:
        return values.cast(target)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"{what} is {values.dtype} and cannot be {target}; correct types in the table"
        ) from None
