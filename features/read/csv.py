"""CSV files as lazy frames: read as text, converted by what columns are for, every record accounted for."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
from polars.io.plugins import register_io_source

from features.errors import DataError
from features.read.convert import MUST, TYPES, convert, remedy
from features.read.escapes import NULL, without_nulls
from features.read.io_source import served
from features.read.locate import LINE
from features.read.records import Block, Dialect, read_blocks
from features.read.roles import Kind
from features.source import RawTable

_OTHERS = ";\t|,"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CsvFile:
    """One CSV file, its header read.

    Attributes:
        path: the file.
        dialect: how it is written.
        names: its columns as they are called in the spec.
        header: whether the first record is the header.
        nulls: texts that mean missing.
        time_format: of the table.
        check_size: refuses a file that unpacks to too much.
    """

    path: Path
    dialect: Dialect
    names: list[str]
    header: bool
    nulls: list[str]
    time_format: str | None
    check_size: Callable[[int], None]

    def scan(self, kinds: Mapping[str, Kind]) -> pl.LazyFrame:
        """A lazy frame of some columns, each of its kind, and `__line`; collecting it reads the file."""
        schema: dict[str, pl.DataType] = {name: TYPES[kind] for name, kind in kinds.items()}

        def frames(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch: int | None
        ) -> Iterator[pl.DataFrame]:
            wanted = {n: k for n, k in kinds.items() if columns is None or n in columns}
            yield from served(self._frames(wanted), columns, predicate, rows)

        return register_io_source(frames, schema={**schema, LINE: pl.Int64()})

    def first_rows(self, kinds: Mapping[str, Kind]) -> None:
        """Read and convert the beginning of the file alone.

        Raises:
            DataError: as reading it whole would.
        """
        next(self._frames(kinds, size=2**16), None)

    def _frames(self, kinds: Mapping[str, Kind], *, size: int = 2**24) -> Iterator[pl.DataFrame]:
        skip = self.header
        told = self.dialect.escape is not None or self.dialect.quote is None
        for block in read_blocks(self.path, self.dialect, size=size, check_size=self.check_size):
            told = told or self._tell_of_escapes(block)
            yield self._frame(block, kinds, skip=skip)
            skip = False

    def _tell_of_escapes(self, block: Block) -> bool:
        """Say that a quote with a backslash before it is read as it stands, once; whether there is one."""
        at = block.data.find(f"\\{self.dialect.quote}".encode())
        if at >= 0:
            line = block.lines[np.searchsorted(block.ends, at, side="right")]
            _log.warning(
                "%s: line %d holds \\%s, which is read as it stands; if the backslash says that the quote is "
                "part of the field, set escape: '\\' in the table",
                self.path,
                line,
                self.dialect.quote,
            )
        return at >= 0

    def _frame(self, block: Block, kinds: Mapping[str, Kind], *, skip: bool) -> pl.DataFrame:
        texts = self._texts(block, list(kinds), skip=skip)
        lines = pl.Series(LINE, block.lines[1:] if skip else block.lines)
        columns = []
        for name, kind in kinds.items():
            text = texts[name]
            if self.nulls:
                text = text.set(text.is_in(self.nulls).fill_null(False), None)
            values, wrong = convert(text, kind, time_format=self.time_format)
            if wrong.any():
                raise self._wrong(text, wrong, lines, kind)
            columns.append(values.alias(name))
        return pl.DataFrame([*columns, lines])

    def _texts(self, block: Block, names: list[str], *, skip: bool) -> pl.DataFrame:
        """The columns of a block as texts, an empty field as null; the number of its records is proved."""
        positions = [str(self.names.index(name)) for name in names]
        data, escape = block.data, self.dialect.escape
        if escape is not None and self.dialect.null:
            data = without_nulls(data, self.dialect.separator, escape)
        try:
            table = pc.read_csv(
                pa.BufferReader(data),
                read_options=pc.ReadOptions(
                    column_names=[str(i) for i in range(len(self.names))],
                    skip_rows_after_names=1 if skip else 0,
                    use_threads=False,
                    block_size=len(data) + 1,
                ),
                parse_options=pc.ParseOptions(
                    delimiter=self.dialect.separator,
                    quote_char=self.dialect.quote if block.quoted and self.dialect.quote else False,
                    escape_char=self.dialect.escape or False,
                    newlines_in_values=block.quoted or self.dialect.escape is not None,
                ),
                convert_options=pc.ConvertOptions(
                    include_columns=positions,
                    column_types=dict.fromkeys(positions, pa.large_string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            raise self._unreadable(block, error) from None
        records = len(block.ends) - int(skip)
        if table.num_rows != records:
            raise DataError(
                f"{self.path}: {records:,} records must become as many rows, but were read as "
                f"{table.num_rows:,} (lines {block.lines[0]:,} to {block.lines[-1]:,}); write the file "
                "again, or as Parquet"
            )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame.rename(dict(zip(positions, names, strict=True)))

    def _unreadable(self, block: Block, error: Exception) -> DataError:
        for index in range(len(block.ends)):
            text = block.record(index)
            if (fields := self._fields(text)) != len(self.names):
                return DataError(
                    f"{self.path}: every record must have {len(self.names)} fields, as its header has, but "
                    f"line {block.lines[index]} has {fields}: {text.strip()!r:.120}; correct it, quote "
                    f"fields that hold {self.dialect.separator!r}, or correct separator or quote in the table"
                    f"{self._hint_of_escapes(text)}"
                )
        try:
            block.data.decode()
        except UnicodeDecodeError as wrong:
            line = int(block.lines[0]) + block.data.count(b"\n", 0, wrong.start)
            return DataError(
                f"{self.path}: byte 0x{block.data[wrong.start]:02x} in line {line} is no UTF-8; set encoding "
                "in the table, such as latin-1 or cp1252"
            )
        return DataError(f"{self.path} cannot be read as CSV: {error}; write it again")

    def _hint_of_escapes(self, record: str) -> str:
        escaped = self.dialect.escape is None and f"\\{self.dialect.separator}" in record
        return (
            "; if a backslash stands before separators that are no separators, set escape: '\\'"
            if escaped
            else ""
        )

    def _fields(self, record: str) -> int:
        """How many fields a record has."""
        if self.dialect.quote is None:
            return record.count(self.dialect.separator) + 1
        lines = io.StringIO(record, newline="")
        try:
            reader = csv.reader(
                lines,
                delimiter=self.dialect.separator,
                quotechar=self.dialect.quote,
                escapechar=self.dialect.escape,
            )
            return len(next(reader, []))
        except csv.Error:  # a field beyond the limit of that reader
            return len(self.names)

    def _wrong(self, text: pl.Series, wrong: pl.Series, lines: pl.Series, kind: Kind) -> DataError:
        """The error for texts that do not convert."""
        at = int(wrong.arg_max() or 0)
        value, name = text[at], text.name
        more = int(wrong.sum()) - 1
        return DataError(
            f"{self.path}: column {name!r} must hold {MUST[kind]} in every row, but line {lines[at]} holds "
            f"{value!r:.80}{f' (and {more} more)' if more else ''}; {remedy(name, str(value), kind)}"
        )


def open_csv(path: Path, raw: RawTable, separator: str, check_size: Callable[[int], None]) -> CsvFile:
    """Read the header of a CSV file.

    Args:
        path: the file.
        raw: its table.
        separator: where the table names none.
        check_size: told the number of bytes while the file is read.

    Raises:
        DataError: no header, or names that differ in number from the fields.
    """
    dialect = Dialect(
        raw.separator or separator,
        raw.quote,
        raw.encoding,
        sure="quote" in raw.model_fields_set,
        escape=raw.escape,
        null=f"{raw.escape}{NULL}" in raw.nulls,
    )
    names = raw.columns or _header(path, dialect, check_size)
    names = [raw.rename.get(n, n) for n in names]
    return CsvFile(path, dialect, names, raw.header, raw.nulls, raw.time_format, check_size)


def _header(path: Path, dialect: Dialect, check_size: Callable[[int], None]) -> list[str]:
    block = next(read_blocks(path, dialect, size=2**16, check_size=check_size), None)
    if block is None:
        raise DataError(f"{path} must have a header line, but holds none; write it again or delete it")
    options = pc.ParseOptions(
        delimiter=dialect.separator,
        quote_char=dialect.quote or False,
        escape_char=dialect.escape or False,
        newlines_in_values=True,
    )
    first = pa.BufferReader(block.data[: int(block.ends[0])])
    try:
        read = pc.ReadOptions(autogenerate_column_names=True)
        texts = pc.read_csv(
            first,
            read_options=read,
            parse_options=options,
            convert_options=pc.ConvertOptions(column_types={}, strings_can_be_null=False, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: the header cannot be read: {error}; correct line 1") from None
    return [str(column[0].as_py()) for column in texts.columns]


def header_hint(file: CsvFile) -> str:
    """What may be wrong with a header that lacks a column."""
    if not file.header:
        return ""
    first = file.names[0]
    if any("\0" in name for name in file.names):
        return "; it holds zero bytes: if it is UTF-16, set encoding: utf-16"
    if first.startswith("{"):
        return "; it looks like JSON lines: convert it to Parquet or CSV"
    if first.startswith("#"):
        return "; its first line is a comment: delete it"
    if len(file.names) == 1:
        found = [c for c in _OTHERS if c in first and c != file.dialect.separator]
        return f"; its one column {first!r:.60} suggests separator: {found[0]!r}" if found else ""
    if all(any(c.isdigit() for c in n) for n in file.names):
        return "; its first line looks like data: if there is no header, set header: false and columns"
    return ""
