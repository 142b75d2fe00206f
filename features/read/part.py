"""One file of a raw table, its schema read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from features.read.csv import CsvFile, open_csv
from features.read.files import TableFile
from features.read.parquet import parquet_schema
from features.source import RawTable


@dataclass
class Part:
    """One file of a table, its schema read.

    Attributes:
        file: where it lies, and what its path says.
        schema: column → type, under the names of the spec; of CSV all texts.
        names: of Parquet: name in the spec → name in the file.
        csv: of CSV.
        empty: a Parquet file without rows, whose types say nothing.
        in_path: of columns that the path gives: name in the spec → name in the path.
        twice: names that several of its columns have, in the file or by rename.
    """

    file: TableFile
    schema: dict[str, pl.DataType]
    names: dict[str, str] = field(default_factory=dict)
    csv: CsvFile | None = None
    empty: bool = False
    in_path: dict[str, str] = field(default_factory=dict)
    twice: frozenset[str] = frozenset()

    @property
    def in_both(self) -> dict[str, str]:
        """Those of `in_path` that the file has too."""
        own = set(self.names) if self.csv is None else set(self.csv.names)
        return {name: folder for name, folder in self.in_path.items() if name in own}

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.file.path


def open_part(file: TableFile, raw: RawTable, separator: str, check_size: Callable[[int], None]) -> Part:
    """Read the schema of one file."""
    in_path = {raw.rename.get(name, name): name for name in file.partitions}
    given: dict[str, pl.DataType] = dict.fromkeys(in_path, pl.String())
    if raw.format == "csv":
        csv = open_csv(file.path, raw, separator, check_size)
        schema = {**given, **dict.fromkeys(csv.names, pl.String())}
        return Part(file, schema, csv=csv, in_path=in_path, twice=_repeated(csv.names))
    stored, rows = parquet_schema(file.path, check_size)
    names = {raw.rename.get(name, name): name for name in stored}
    schema = {**given, **{new: stored[old] for new, old in names.items()}}
    twice = _repeated([raw.rename.get(name, name) for name in stored])
    return Part(file, schema, names, empty=not rows, in_path=in_path, twice=twice)


def _repeated(names: list[str]) -> frozenset[str]:
    return frozenset(name for name, count in Counter(names).items() if count > 1)
