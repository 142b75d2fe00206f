"""What the readers share: known files of a directory, opened and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs

from features.errors import DataError
from features.read.locate import FILE
from features.read.scan import open_files
from features.source import RawTable, Source

KEEP_FILE = cs.by_name(FILE, require_all=False)  # where a row came from, for error messages


def open_known(
    root: Path, tables: Mapping[str, RawTable], columns: Mapping[str, Sequence[str]]
) -> dict[str, pl.LazyFrame]:
    """Open tables of a known layout, as `kind: files` would.

    Args:
        root: the directory.
        tables: name → file or glob, and how its columns are renamed.
        columns: name → columns, after renaming, that must be there.

    Raises:
        DataError: a file is missing, unreadable or lacks a column; names both.
    """
    source = Source(path=str(root.absolute()), tables=dict(tables))
    needed = {name: dict.fromkeys(wanted, "the reader") for name, wanted in columns.items()}
    return open_files(source, base=root, needed=needed)


def read_fields(path: Path, separator: str, columns: Sequence[str]) -> pl.DataFrame:
    """Read a text file whose fields stand between a separator of any length, without quotes, in Latin-1.

    Args:
        path: the file.
        separator: as in `1::1193::5`.
        columns: names of the fields of a line.

    Returns:
        One string column per name.

    Raises:
        DataError: the file cannot be read or is empty, or a line has another number of fields.
    """
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); fetch it again") from None
    lines = pl.Series("line", [line for line in text.split("\n") if line], dtype=pl.String)
    wrong = lines.str.count_matches(separator, literal=True) != len(columns) - 1
    if not len(lines) or wrong.any():
        at = int(wrong.arg_max() or 0)
        came = "an empty file" if not len(lines) else f"{lines[at]!r:.80} in line {at + 1}"
        raise DataError(
            f"{path} must have {len(columns)} fields {list(columns)} between {separator!r} in every line, "
            f"got {came}; fetch it again"
        )
    fields = lines.str.strip_chars_end("\r").str.split_exact(separator, len(columns) - 1)
    return fields.struct.rename_fields(list(columns)).struct.unnest()


def cast_numbers(
    frame: pl.DataFrame, types: Mapping[str, pl.DataType | type[pl.DataType]], path: Path
) -> pl.DataFrame:
    """Turn string columns into numbers.

    Raises:
        DataError: a value is no number of that type; names file, line and column.
    """
    cast = frame.with_columns(pl.col(name).cast(dtype, strict=False) for name, dtype in types.items())
    for name in types:
        if (wrong := cast[name].is_null() & frame[name].is_not_null()).any():
            at = int(wrong.arg_max() or 0)
            raise DataError(
                f"{path}: {name} must be a number, got {frame[name][at]!r:.40} in line {at + 1}; "
                "fetch it again"
            )
    return cast
