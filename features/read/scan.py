"""Raw tables as lazy frames, checked before anything is computed from them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ConfigError, DataError
from features.read.locate import FILE
from features.spec import Needed, RawTable, Source

_OPTIONS = {
    "separator": ",",
    "check_pages": True,
    "max_bytes": 2**36,
    "max_ratio": 200,
    "on_error": "fail",  # or skip: files that cannot be opened are left out and counted
}
_SMALL = 2**28  # bytes: below this a high compression ratio is harmless
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # what Polars unpacks by itself
_log = logging.getLogger(__name__)


def open_files(
    source: Source, *, base: Path, needed: Needed, counters: dict[str, int] | None = None
) -> dict[str, pl.LazyFrame]:
    """Open the tables of a `files` source that are needed.

    Args:
        source: which files each table consists of, and how they are opened.
        base: the directory that `source.path` is relative to.
        needed: table → column → who reads it.
        counters: gets `files.<table>.skipped` where files are left out (option `on_error: skip`).

    Raises:
        ConfigError: an unknown table or option.
        DataError: a file that is missing, unreadable or different from the others; a missing column.
    """
    tables = _open_files(source, base / source.path, needed, {} if counters is None else counters)
    return check_tables(tables, needed, kind=source.kind)


def check_tables(tables: dict[str, pl.LazyFrame], needed: Needed, *, kind: str) -> dict[str, pl.LazyFrame]:
    """The needed ones of the tables of a source; refuses a table or a column that is not there."""
    if unknown := sorted(set(needed) - set(tables)):
        raise ConfigError(f"source {kind!r} has no table {unknown[0]!r}; its tables are {sorted(tables)}")
    for name, columns in needed.items():
        check_columns(tables[name].collect_schema().names(), columns, what=f"table {name!r}")
    return {name: tables[name] for name in needed}


def check_columns(present: list[str], columns: dict[str, str], *, what: str) -> None:
    """Refuse a table that lacks a column someone reads."""
    for column, reader in columns.items():
        if column not in present:
            raise DataError(
                f"{what} must have column {column!r}, which {reader} reads; it has {sorted(present)}; "
                "correct the spec, or name the column under rename or optional in source.tables"
            )


def collect(frame: pl.LazyFrame, *, what: str) -> pl.DataFrame:
    """Read a lazy frame in pieces, with errors that name the table."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{what} cannot be read: {error}; repair the file or correct the spec") from None


def _open_files(
    source: Source, root: Path, needed: Needed, counters: dict[str, int]
) -> dict[str, pl.LazyFrame]:
    if unknown := sorted(set(source.options) - set(_OPTIONS)):
        raise ConfigError(
            f"source.options of 'files' may hold {sorted(_OPTIONS)}, got {unknown}; delete them"
        )
    options = {**_OPTIONS, **source.options}
    if options["on_error"] not in ("fail", "skip"):
        raise ConfigError(f"source.options.on_error must be fail or skip, got {options['on_error']!r}")
    tables = {}
    for name in sorted(set(needed) & set(source.tables)):
        raw = source.tables[name]
        found = (root / p for p in glob(raw.path, root_dir=root, recursive=True))
        files = sorted(p for p in found if p.is_file())
        if not files:
            raise DataError(
                f"table {name!r}: no file matches {raw.path!r} in {root}; correct path in the spec"
            )
        frames = _opened_files(raw, files, options)
        if skipped := len(files) - len(frames):
            counters[f"files.{name}.skipped"] = skipped
        if not frames:
            raise DataError(f"table {name!r}: none of its {skipped} files can be read; the log names each")
        tables[name] = _table_of(name, raw, frames, needed[name])
    return tables


def _opened_files(raw: RawTable, files: list[Path], options: dict[str, Any]) -> dict[Path, pl.LazyFrame]:
    """Every file that can be opened; the others stop all, or are named and left out with `on_error: skip`."""
    scan = _scan_parquet if raw.format == "parquet" else _scan_csv
    frames = {}
    for file in files:
        try:
            frames[file] = _renamed(_opened(file, scan, options), raw)
        except DataError as error:
            if options["on_error"] == "fail":
                raise
            _log.warning("skipped: %s", error)
    return frames


def _table_of(
    name: str, raw: RawTable, frames: dict[Path, pl.LazyFrame], needed: dict[str, str]
) -> pl.LazyFrame:
    """All files of a table below one another, with the columns that all of them have."""
    schemas = {file: frame.collect_schema() for file, frame in frames.items()}
    types = _common_types(name, raw, schemas)
    for file, schema in schemas.items():
        check_columns([*schema, *raw.optional], needed, what=f"table {name!r}: {file}")
    every = dict.fromkeys([*types, *raw.optional])
    columns = [c for c in every if all(c in s or c in raw.optional for s in schemas.values())]
    if dropped := sorted(set(every) - set(columns)):
        _log.warning("table %r: columns %s are not in every file and are left out", name, dropped)
    shaped = [_shaped(f, schemas[file], raw, types, columns) for file, f in frames.items()]
    return pl.concat(
        [f.with_columns(pl.lit(str(file)).alias(FILE)) for f, file in zip(shaped, frames, strict=True)]
    )


def _opened(
    file: Path, scan: Callable[[Path, dict[str, Any]], pl.LazyFrame], options: dict[str, Any]
) -> pl.LazyFrame:
    """Open one file; whatever its reader raises becomes an error that names it."""
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes); write it again or delete it")
    try:
        frame = scan(file, options)
        frame.collect_schema()
        return frame
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} cannot be read: {error}; write it again, delete it, or correct format in the spec"
        ) from None


def _scan_parquet(file: Path, options: dict[str, Any]) -> pl.LazyFrame:
    """Check the sizes in the footer and the checksums of the pages, then scan."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        meta = parquet.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        _check_size(file, size, options)
        if options["check_pages"]:
            # Polars does not verify page checksums: a flipped bit would become a wrong value.
            for _ in parquet.iter_batches():
                pass
    return pl.scan_parquet(file, glob=False)


def _check_size(file: Path, size: int, options: dict[str, Any]) -> None:
    """Refuse a file that becomes much larger than it is."""
    ratio = size / file.stat().st_size
    if size > options["max_bytes"] or (size > _SMALL and ratio > options["max_ratio"]):
        raise DataError(
            f"{file} unpacks to at least {size:,} bytes, {ratio:.0f} times its size; if that is right, "
            "raise max_bytes or max_ratio under source.options"
        )


def _check_packed(file: Path, options: dict[str, Any]) -> None:
    """Unpack a compressed text piece by piece, only to count: Polars would do it at once, in memory."""
    with file.open("rb") as source:
        head = source.read(4)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed is None:
        return
    size = 0
    with pa.OSFile(str(file)) as source, pa.CompressedInputStream(source, packed) as stream:
        while piece := stream.read(2**22):
            size += len(piece)
            _check_size(file, size, options)


def _scan_csv(file: Path, options: dict[str, Any]) -> pl.LazyFrame:
    _check_packed(file, options)
    return pl.scan_csv(
        file, glob=False, separator=options["separator"], infer_schema_length=10_000, try_parse_dates=True
    )


def _renamed(frame: pl.LazyFrame, raw: RawTable) -> pl.LazyFrame:
    present = frame.collect_schema().names()
    return frame.rename({old: new for old, new in raw.rename.items() if old in present})


def _common_types(name: str, raw: RawTable, schemas: dict[Path, pl.Schema]) -> dict[str, pl.DataType]:
    """The type of every column; a type that differs between files is an error."""
    types: dict[str, tuple[pl.DataType, Path]] = {}
    for file, schema in schemas.items():
        for column, dtype in schema.items():
            known, first = types.setdefault(column, (dtype, file))
            if known == dtype:
                continue
            # Types of CSV columns are guesses: 1 and 1.5 are both numbers.
            if raw.format == "csv" and known.is_numeric() and dtype.is_numeric():
                types[column] = (pl.Float64(), file)
                continue
            raise DataError(
                f"table {name!r}: column {column!r} must have one type in all files, but is {known} in "
                f"{first} and {dtype} in {file}; write one of them again"
            )
    return {column: dtype for column, (dtype, _) in types.items()}


def _shaped(
    frame: pl.LazyFrame, schema: pl.Schema, raw: RawTable, types: dict[str, pl.DataType], columns: list[str]
) -> pl.LazyFrame:
    """One file with the common columns and types, optional ones filled in."""
    absent = {c: v for c, v in raw.optional.items() if c not in schema}
    frame = frame.with_columns(pl.lit(v, dtype=types.get(c)).alias(c) for c, v in absent.items())
    return frame.select(pl.col(c).cast(types[c]) if c in types else pl.col(c) for c in columns)
