"""One raw table: its files below one another, each column in one type."""

from __future__ import annotations

import logging
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl

from features.errors import ConfigError, DataError, first_line
from features.read.convert import TYPES, convert
from features.read.csv import header_hint
from features.read.derive import operands, parse
from features.read.locate import FILE, LINE
from features.read.missing import with_declared_nulls
from features.read.parquet import cast_column, scan_parquet, unreadable_hint, verify_pages
from features.read.part import Part
from features.read.problems import Problems
from features.read.roles import Kind, TableRoles, kind_of
from features.read.table_errors import differing_types, missing_columns
from features.read.types import common_type
from features.source import RawTable

_TEXT = (pl.String, pl.Categorical, pl.Enum)
_log = logging.getLogger(__name__)


class Table:
    """A table of one or more files.

    Args:
        name: of the spec.
        raw: its description.
        parts: its files, at least one.
        needed: column → who reads it.
        roles: of its columns; None: they are read as they are stored, and all of them are checked.
        problems: gets what is missing or does not fit.
    """

    def __init__(
        self,
        name: str,
        raw: RawTable,
        parts: list[Part],
        needed: dict[str, str],
        roles: TableRoles | None,
        problems: Problems,
    ) -> None:
        self.name, self.raw, self.parts = name, raw, parts
        self.roles = TableRoles() if roles is None else deepcopy(roles)  # operands of derived columns come in
        self.derived: dict[str, pl.Expr] = {}
        for column, text in raw.derive.items():
            with problems.collect():
                self.derived[column] = parse(text, what=f"table {name!r}, derived column {column!r}")
        self.needed = self._with_operands(needed)
        if roles is not None:
            with problems.collect():
                self._check_names()
        self.read = self._columns_read(every=roles is None)
        for part in parts:
            with problems.collect():
                self._check_columns(part)
        self.kinds: dict[str, Kind] = {}
        self.types: dict[str, pl.DataType] = {}
        for column in self.read:
            with problems.collect():
                self.types[column] = self._type(column)

    def columns_of(self, part: Part) -> list[str]:
        """What is read of a Parquet file, under its own names."""
        return [part.names[column] for column in self.read if column in part.names]

    def verify(self, part: Part) -> Part:
        """Prove the checksums of what is read of a Parquet file."""
        verify_pages(part.path, self.columns_of(part))
        return part

    def first_rows(self) -> None:
        """Read the beginning of every CSV file."""
        for part in self.parts:
            if part.csv is not None:
                part.csv.first_rows(self._csv_kinds(part))

    def frame(self) -> pl.LazyFrame:
        """All rows, with the derived columns, and file and line of each row."""
        unread = self._agreeing()
        columns = [*self.read, *unread]
        if gone := sorted(c for c in self.read if not all(self._has(p, c) for p in self.parts)):
            _log.warning("table %r: columns %s are not in every file and are left out", self.name, gone)
            columns = [c for c in columns if c not in gone]
        every = dict.fromkeys([*(c for p in self.parts for c in p.schema), *self.raw.optional])
        ordered = [c for c in every if c in columns]
        table = pl.concat([self._of_part(part, ordered) for part in self.parts])
        if (number := self.raw.number) is not None:
            table = table.with_row_index(number).with_columns(pl.col(number).cast(pl.Int64))
        return self._with_derived(table) if self.derived else table

    def _with_derived(self, table: pl.LazyFrame) -> pl.LazyFrame:
        place = [c for c in (FILE, LINE) if c in table.collect_schema()]
        own = [c for c in table.collect_schema() if c not in place]
        for name, expression in self.derived.items():
            try:
                table.select(expression).collect_schema()
            except pl.exceptions.PolarsError as error:
                raise ConfigError(
                    f"table {self.name!r}, derived column {name!r} cannot be computed: {first_line(error)}; "
                    "correct the expression, or the types of its columns"
                ) from None
        derived = [e.alias(n) for n, e in self.derived.items()]
        return table.with_columns(derived).select([*own, *self.derived, *place])

    def _check_names(self) -> None:
        """Every name under `types` is a column, and none that is made has the name of a column."""
        there = {c for part in self.parts for c in part.schema} | set(self.raw.optional)
        if unknown := sorted(set(self.raw.types) - there):
            raise ConfigError(
                f"table {self.name!r}: types names {unknown}, but it has {sorted(there)}; correct it"
            )
        number = {} if self.raw.number is None else {self.raw.number: None}
        for key, made in (("derive", self.raw.derive), ("number", number)):
            if taken := sorted(made.keys() & there):
                raise ConfigError(
                    f"table {self.name!r}: {key} gives {taken}, which are columns already; rename them"
                )

    def _with_operands(self, needed: dict[str, str]) -> dict[str, str]:
        """The columns of files that are needed: what derived ones are made of in their place."""
        made = {*self.raw.derive, self.raw.number}
        found = {c: who for c, who in needed.items() if c not in made}
        for name, expression in self.derived.items():
            for column, roles in operands(expression).items():
                own = self.roles.columns.setdefault(column, set())
                if not roles and not own and column not in self.raw.types and self.raw.format == "csv":
                    raise ConfigError(
                        f"table {self.name!r}, derived column {name!r}: nothing says whether {column!r} is a "
                        f"number or a text; add it under types in the table, as in types: {{{column}: float}}"
                    )
                own |= roles
                found.setdefault(column, f"derived column {name!r}")
        return found

    def _columns_read(self, *, every: bool) -> list[str]:
        there = dict.fromkeys([*(c for p in self.parts for c in p.schema), *self.raw.optional])
        read = {**self.needed, **self.roles.columns}
        return [c for c in there if every or c in read or self.roles.matches(c)]

    def _has(self, part: Part, column: str) -> bool:
        return column in part.schema or column in self.raw.optional

    def _check_columns(self, part: Part) -> None:
        """Refuse a file that lacks a column someone reads, or has it twice."""
        present = sorted([*part.schema, *self.raw.optional])
        missing = {c: who for c, who in self.needed.items() if not self._has(part, c)}
        if missing:
            hint = (
                header_hint(part.csv) if part.csv is not None else unreadable_hint(part.path, list(missing))
            )
            raise DataError(missing_columns(f"table {self.name!r}: {part.path}", missing, present) + hint)
        for column in sorted(part.twice):
            if column in self.needed or self.roles.matches(column):
                reader = self.needed.get(column, "a pattern of a feature")
                raise DataError(
                    f"table {self.name!r}: {part.path} has column {column!r} twice, and {reader} reads it; "
                    "rename one of them in the file or under rename"
                )

    def _type(self, column: str) -> pl.DataType:
        """The type of a column in all files; keeps how its texts are converted."""
        declared, what = self.raw.types.get(column), f"table {self.name!r}, column {column!r}"
        roles = self.roles.of(column)
        having = [p for p in self.parts if column in p.schema]
        sources = {p.path: p.schema[column] for p in [p for p in having if not p.empty] or having[:1]}
        if not sources:
            return pl.Null()
        if declared is not None or any(isinstance(t, _TEXT) for t in sources.values()):
            # A text that is stored as text is one; only in CSV are texts all there is.
            stays = self.raw.format != "csv" and declared is None and "json" not in roles
            stays = stays and bool(roles & {"category", "order"})
            self.kinds[column] = "text" if stays else kind_of(roles, declared, what=what)
        is_id = bool(roles & {"category", "order"}) or not roles
        is_moment = "time" in roles and declared is None
        found: list[tuple[Path, pl.DataType]] = [
            (p, self._source_type(column, t)) for p, t in sources.items()
        ]

        def widen(one: tuple[Path, pl.DataType], other: tuple[Path, pl.DataType]) -> tuple[Path, pl.DataType]:
            both = common_type(one[1], other[1], is_id=is_id, zone=self.raw.time_zone)
            days = is_moment and {one[1].base_type(), other[1].base_type()} == {pl.Date, pl.Datetime}
            if both is None or days:
                raise DataError(differing_types(self.name, column, one, other))
            return one[0] if both == one[1] else other[0], both

        return reduce(widen, found)[1]

    def _source_type(self, column: str, stored: pl.DataType) -> pl.DataType:
        """The type of a column of one file once its texts are converted."""
        declared, kind = self.raw.types.get(column), self.kinds.get(column)
        if isinstance(stored, _TEXT):
            return TYPES[kind] if kind is not None else pl.String()
        if stored == pl.Binary():
            return pl.String()
        if declared is None or declared in ("time", "json") or stored == pl.Null():
            return stored
        return TYPES[declared]

    def _agreeing(self) -> list[str]:
        """Columns that nobody is known to read, where all files agree on them."""
        first, *others = (p.schema for p in self.parts)
        return [c for c, t in first.items() if c not in self.read and all(o.get(c) == t for o in others)]

    def _unread_type(self, column: str) -> pl.DataType:
        return next((p.schema[column] for p in self.parts if column in p.schema), pl.Null())

    def _csv_kinds(self, part: Part) -> dict[str, Kind]:
        assert part.csv is not None
        return {c: self.kinds[c] for c in self.read if c in part.csv.names and c in self.kinds}

    def _of_part(self, part: Part, columns: list[str]) -> pl.LazyFrame:
        if part.empty:
            types = {c: self.types.get(c, self._unread_type(c)) for c in columns}
            return pl.LazyFrame(schema={**types, FILE: pl.String()})
        frame = self._scan(part, columns)
        absent = []
        for column in columns:
            target = self.types.get(column, pl.String())
            if column in part.in_path and column not in part.in_both:
                absent.append(self._literal(part.file.partitions[part.in_path[column]], column, target, part))
            elif column not in part.schema:
                absent.append(_optional(self.raw.optional[column], target).alias(column))
        frame = frame.with_columns(absent) if absent else frame
        frame = frame.with_columns(self._as_in_path(c, part) for c in self.types if c in part.in_both)
        line = [LINE] if part.csv is not None else []
        return frame.select([*columns, *line]).with_columns(pl.lit(str(part.path)).alias(FILE))

    def _as_in_path(self, column: str, part: Part) -> pl.Expr:
        """A column that the file and its path have: both must say the same."""
        told = pl.Series([part.file.partitions[part.in_both[column]]], dtype=pl.String)

        def same(values: pl.Series) -> pl.Series:
            number = values.dtype.is_numeric()
            path = told.cast(values.dtype, strict=False)[0] if number else told[0]
            wrong = (values if number else values.cast(pl.String)).ne_missing(path)
            if wrong.any():
                raise DataError(
                    f"{part.path}: column {column!r} is {told[0]!r} in the path, but holds "
                    f"{values.filter(wrong)[0]!r} in the file; rename the folders or the column"
                )
            return values

        return pl.col(column).map_batches(same, is_elementwise=True, return_dtype=self.types[column])

    def _scan(self, part: Part, columns: list[str]) -> pl.LazyFrame:
        if part.csv is not None:
            kinds: dict[str, Kind] = {c: self.kinds.get(c, "text") for c in columns if c in part.csv.names}
            return part.csv.scan(kinds)
        names = {c: part.names[c] for c in columns if c in part.names}
        frame = scan_parquet(part.path, names)
        sources = {c: part.schema[c] for c in names}
        frame = frame.with_columns(list(with_declared_nulls(sources, self.raw.nulls)))
        return frame.with_columns(
            cast_column(
                c, sources[c], self.types[c], self._cast_kind(c, sources[c]),
                what=f"{part.path}: column {c!r}", zone=self.raw.time_zone,
            )
            for c in names if c in self.types and sources[c] != self.types[c]
        )  # fmt: skip

    def _cast_kind(self, column: str, source: pl.DataType) -> Kind | None:
        return self.kinds.get(column) if isinstance(source, _TEXT) else self.raw.types.get(column)

    def _literal(self, text: str | None, column: str, target: pl.DataType, part: Part) -> pl.Expr:
        """A value of the path, in the kind of its column."""
        values, wrong = convert(pl.Series([text], dtype=pl.String), self.kinds.get(column, "text"))
        if wrong.any():
            raise DataError(
                f"{part.path}: column {column!r} of the path holds {text!r}, which is no {target}; declare "
                "its type under types in the table"
            )
        return pl.lit(values[0], dtype=target).alias(column)


def _optional(value: Any, target: pl.DataType) -> pl.Expr:
    if target == pl.Null():
        return pl.lit(value)
    return pl.lit(str(value) if value is not None and target == pl.String() else value, dtype=target)
