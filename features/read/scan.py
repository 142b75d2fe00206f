"""Raw tables as lazy frames, checked before anything is computed from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from features.errors import ConfigError, DataError, first_line
from features.read.decoded import decoded_bytes
from features.read.files import TableFile, table_root
from features.read.lake import files_of
from features.read.part import Part, open_part
from features.read.problems import Problems
from features.read.roles import TableRoles
from features.read.table import Table
from features.read.table_errors import missing_columns
from features.source import RawTable, Source, one_character
from features.spec import Needed

_OPTIONS = {
    "separator": ",",  # of tables that name none
    "check_pages": True,
    "max_bytes": 2**36,
    "max_ratio": 200,
    "on_error": "fail",  # or skip: files that cannot be opened are left out and counted
}
# A panic is no Exception; the header of a page that lies about its size makes Polars panic.
_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_CALLED = "\n\nThis error occurred"
_SMALL = 2**28  # bytes: below this a high ratio is harmless
_left_out: Collection[str] | None = None  # by a process that has proved the checksums of all other files
_noted: list[str] = []
_log = logging.getLogger(__name__)


@contextmanager
def already_verified(left_out: Collection[str] = ()) -> Iterator[None]:
    """Tables opened within the block are those that another process has read with their checksums.

    Args:
        left_out: the files that it left out; any other that cannot be read now is an error.
    """
    global _left_out
    before, _left_out = _left_out, left_out
    try:
        yield
    finally:
        _left_out = before


@contextmanager
def noting_left_out() -> Iterator[list[str]]:
    """The paths of the files that are left out (`on_error: skip`) of tables opened within the block."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


def open_files(
    source: Source,
    *,
    base: Path,
    needed: Needed,
    roles: Mapping[str, TableRoles] | None = None,
    counters: dict[str, int] | None = None,
    dry: bool = False,
) -> dict[str, pl.LazyFrame]:
    """Open the tables of a `files` source that are needed.

    Args:
        source: which files each table consists of, and how they are opened.
        base: the directory that `source.path` is relative to.
        needed: table → column → who reads it.
        roles: what the columns are, table by table; None: as they are stored.
        counters: gets `files.<table>.skipped` where files are left out (option `on_error: skip`).
        dry: read the beginning of every file alone.

    Raises:
        ConfigError: an unknown table or option.
        DataError: a file that is missing, unreadable or different from the others; a missing column. Of
            several tables all that is wrong is told at once.
    """
    options, problems, tables = _options(source), Problems(), {}
    if _left_out is not None:
        options["on_error"] = "fail"
    for name in sorted(set(needed) & set(source.tables)):
        with problems.collect():
            own = None if roles is None else roles.get(name, TableRoles())
            root = table_root(source, name, base)
            table = _open(name, source, root, needed[name], own, options, counters, dry=dry)
            tables[name] = table
    with problems.collect():
        _check_known(needed, source.tables, kind=source.kind)
    problems.raise_all()
    return check_tables(tables, needed, kind=source.kind)


def check_tables(tables: dict[str, pl.LazyFrame], needed: Needed, *, kind: str) -> dict[str, pl.LazyFrame]:
    """The needed ones of the tables of a source; refuses a table or a column that is not there."""
    _check_known(needed, tables, kind=kind)
    problems = Problems()
    for name, columns in needed.items():
        with problems.collect():
            check_columns(tables[name].collect_schema().names(), columns, what=f"table {name!r}")
    problems.raise_all()
    return {name: tables[name] for name in needed}


def check_columns(present: list[str], columns: dict[str, str], *, what: str) -> None:
    """Refuse a table that lacks a column someone reads."""
    if missing := {column: reader for column, reader in columns.items() if column not in present}:
        raise DataError(missing_columns(what, missing, present))


def collect(frame: pl.LazyFrame, *, what: str) -> pl.DataFrame:
    """Read a lazy frame in pieces, with errors that name the table."""
    try:
        return frame.collect(engine="streaming")
    except (ConfigError, DataError) as error:  # of our own readers; Polars adds where it called them
        raise type(error)(str(error).split(_CALLED, 1)[0]) from None
    except (*_POLARS, OSError) as error:
        raise DataError(
            f"{what} cannot be read: {first_line(error)}; repair the file or correct the spec"
        ) from None


def _check_known(needed: Needed, tables: Mapping[str, Any], *, kind: str) -> None:
    if unknown := sorted(set(needed) - set(tables)):
        raise ConfigError(f"source {kind!r} has no table {unknown[0]!r}; its tables are {sorted(tables)}")


def _options(source: Source) -> dict[str, Any]:
    if unknown := sorted(set(source.options) - set(_OPTIONS)):
        raise ConfigError(
            f"source.options of 'files' may hold {sorted(_OPTIONS)}, got {unknown}; delete them"
            f"{' or write them in the table' if set(unknown) & set(RawTable.model_fields) else ''}"
        )
    options = {**_OPTIONS, **source.options}
    if options["on_error"] not in ("fail", "skip"):
        raise ConfigError(f"source.options.on_error must be fail or skip, got {options['on_error']!r}")
    for name in ("max_bytes", "max_ratio"):
        if not isinstance(options[name], int | float) or not options[name] > 0:
            raise ConfigError(f"source.options.{name} must be a number above 0, got {options[name]!r:.40}")
    try:
        options["separator"] = one_character(str(options["separator"]), what="source.options.separator")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return options


def _open(
    name: str, source: Source, root: Path, needed: dict[str, str], roles: TableRoles | None,
    options: dict[str, Any], counters: dict[str, int] | None, *, dry: bool,
) -> pl.LazyFrame:  # fmt: skip
    raw, files = files_of(source.tables[name], root, what=f"table {name!r}")
    files = [file for file in files if str(file.path) not in (_left_out or ())]
    opened = (_attempt(f.path, options, partial(_part, f, raw, options)) for f in files)
    parts = [part for part in opened if part is not None]
    if not parts:
        raise DataError(f"table {name!r}: none of its {len(files)} files can be read; the log names each")
    problems = Problems()
    table = Table(name, raw, parts, needed, roles, problems)
    problems.raise_all()
    if dry:
        table.first_rows()
    if raw.format != "csv":
        _prove(table, options, lambda part: _check_decoded(part, table, options))
    if options["check_pages"] and raw.format != "csv" and not dry and _left_out is None:
        _prove(table, options, table.verify)
    if counters is not None and (skipped := len(files) - len(table.parts)):
        counters[f"files.{name}.skipped"] = skipped
    frame = table.frame()
    if dry:
        collect(frame.select([*table.read, *table.derived]).head(100), what=f"table {name!r}")
    return frame


def _prove(table: Table, options: dict[str, Any], action: Callable[[Part], Part]) -> None:
    """Keep the files of a table that an action finds nothing against."""
    proved = [_attempt(part.path, options, partial(action, part)) for part in table.parts]
    table.parts = [part for part in proved if part is not None]
    if not table.parts:
        raise DataError(
            f"table {table.name!r}: none of its {len(proved)} files can be read; the log names each"
        )


def _attempt(path: Path, options: dict[str, Any], action: Callable[[], Part]) -> Part | None:
    """What an action on a file gives; its errors stop all, or are named and leave the file out (`skip`)."""
    try:
        try:
            if path.stat().st_size == 0:
                raise DataError(f"{path} is empty (0 bytes); write it again or delete it")
            return action()
        except (*_POLARS, pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} cannot be read: {first_line(error)}; write it again, delete it, or correct format "
                "in the spec"
            ) from None
    except DataError as error:
        if options["on_error"] == "fail":
            raise
        _log.warning("skipped: %s", error)
        _noted.append(str(path))
        return None


def _part(file: TableFile, raw: RawTable, options: dict[str, Any]) -> Part:
    return open_part(file, raw, options["separator"], lambda size: _check_size(file.path, size, options))


def _check_size(file: Path, size: int, options: dict[str, Any]) -> None:
    """Refuse a file that becomes much larger than it is."""
    ratio = size / file.stat().st_size
    if size > options["max_bytes"] or (size > _SMALL and ratio > options["max_ratio"]):
        raise DataError(
            f"{file} unpacks to at least {size:,} bytes, {ratio:.0f} times its size; if that is right, "
            "raise max_bytes or max_ratio under source.options"
        )


def _check_decoded(part: Part, table: Table, options: dict[str, Any]) -> Part:
    """Refuse a file of which what is read becomes much larger than the file: footers state encoded sizes."""
    _check_size(part.path, decoded_bytes(part.path, table.columns_of(part)), options)
    return part
