"""One file of a raw table, its schema read."""

from __future__ import annotations

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
    """

    file: TableFile
    schema: dict[str, pl.DataType]
    names: dict[str, str] = field(default_factory=dict)
    csv: CsvFile | None = None
    empty: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.file.path


def open_part(file: TableFile, raw: RawTable, separator: str, check_size: Callable[[int], None]) -> Part:
    """Read the schema of one file."""
    given = {raw.rename.get(name, name): pl.String() for name in file.partitions}
    if raw.format == "csv":
        csv = open_csv(file.path, raw, separator, check_size)
        return Part(file, {**given, **dict.fromkeys(csv.names, pl.String())}, csv=csv)
    stored, rows = parquet_schema(file.path, check_size)
    names = {raw.rename.get(name, name): name for name in stored}
    return Part(file, {**given, **{new: stored[old] for new, old in names.items()}}, names, empty=not rows)
