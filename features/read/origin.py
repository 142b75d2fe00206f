"""Where each row of the log stood in the raw impressions table, so that a prediction leads back to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.read.locate import FILE, LINE, ROW


@dataclass(frozen=True)
class Origin:
    """The places of N rows of the log, in its order.

    Attributes:
        row: int64 (N,), number in the impressions table from 0, its files one after the other.
        line: int64 (N,), line of a text file where the record begins, from 1; None where it is not known.
        files: first row that was read of each file, and its path, ascending; empty where it is not known.
    """

    row: np.ndarray
    line: np.ndarray | None
    files: list[tuple[int, str]]

    @classmethod
    def of(cls, rows: pl.DataFrame, files: list[tuple[int, str]]) -> Origin:
        """From the reserved columns of rows."""
        line = rows[LINE].cast(pl.Int64).to_numpy() if LINE in rows.columns else None
        return cls(rows[ROW].cast(pl.Int64).to_numpy(), line, files)

    def rows(self) -> pl.DataFrame:
        """The reserved columns again, for `locate`."""
        files = pl.Series([path for _, path in self.files], dtype=pl.String)
        known = {LINE: self.line, FILE: files.gather(self._file()) if self.files else None}
        return pl.DataFrame({ROW: self.row} | {name: v for name, v in known.items() if v is not None})

    def table(self, root: Path) -> pa.Table:
        """Columns log_row, and log_line and log_file (path from `root` on) where they are known."""
        columns: dict[str, pa.Array] = {"log_row": pa.array(self.row)}
        if self.line is not None:
            columns["log_line"] = pa.array(self.line)
        if self.files:
            names = pa.array([os.path.relpath(path, root) for _, path in self.files], pa.string())
            columns["log_file"] = pa.DictionaryArray.from_arrays(pa.array(self._file(), pa.int32()), names)
        return pa.table(columns)

    def _file(self) -> np.ndarray:
        """Which of the files each row is in."""
        return np.searchsorted(np.array([start for start, _ in self.files]), self.row, side="right") - 1


def file_starts(rows: pl.DataFrame) -> list[tuple[int, str]]:
    """The first of the rows of each file and its path; none where files do not follow one another.

    Args:
        rows: with `__row`, and `__file` if it is known.

    Example:
        >>> file_starts(pl.DataFrame({"__row": [4, 6, 9], "__file": ["a", "a", "b"]}))
        [(4, 'a'), (9, 'b')]
        >>> file_starts(pl.DataFrame({"__row": [4, 6, 9], "__file": ["a", "b", "a"]}))
        []
    """
    if FILE not in rows.columns or not rows.height or rows[FILE].null_count():
        return []
    spans = rows.group_by(FILE).agg(pl.col(ROW).min().alias("first"), pl.col(ROW).max().alias("last"))
    spans = spans.sort("first")
    if (spans["first"].shift(-1) <= spans["last"]).any():
        return []
    return list(spans.select("first", FILE).iter_rows())
