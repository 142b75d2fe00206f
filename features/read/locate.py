"""Where in the raw files a row came from, for error messages."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.spec import Source

# The number of a row in its table from 0; its file; in a text file the line where its record begins, from 1.
ROW, FILE, LINE = "__row", "__file", "__line"


def table_name(source: Source, table: str) -> str:
    """What a raw table is called in messages: its name, and its files if the spec names them.

    Example:
        >>> table_name(Source(tables={"clicks": {"path": "logs/*.csv"}}), "clicks")
        "table 'clicks' (logs/*.csv)"
    """
    raw = source.tables.get(table)
    return f"table {table!r} ({raw.path})" if raw is not None else f"table {table!r}"


def locate(frame: pl.DataFrame, wrong: pl.Series) -> str:
    """Say which rows are wrong: how many, the first five by line or number, and their files.

    Args:
        frame: rows with, if known, `__row` (number in the table, from 0), `__file` (path), `__line`.
        wrong: bool, missing counts as false.

    Example:
        >>> frame = pl.DataFrame({"__row": [0, 1, 2], "__file": ["logs/a.csv", "logs/a.csv", "logs/b.csv"]})
        >>> locate(frame, pl.Series([False, True, True]))
        '2 rows (rows 1, 2 in a.csv, b.csv)'
        >>> locate(frame.with_columns(__line=pl.Series([2, 3, 2])), pl.Series([False, True, False]))
        '1 rows (line 3 of a.csv)'
    """
    rows = frame.filter(wrong)
    if LINE in frame.columns and FILE in frame.columns and rows.height and rows[LINE].null_count() == 0:
        first = [f"line {line} of {Path(file).name}" for line, file in rows.select(LINE, FILE).head(3).rows()]
        return f"{rows.height} rows ({', '.join(first)}{', …' if rows.height > 3 else ''})"
    parts = []
    if ROW in frame.columns:
        numbers = ", ".join(map(str, rows[ROW].head(5)))
        parts.append(f"rows {numbers}" + (", …" if rows.height > 5 else ""))
    if FILE in frame.columns:
        files = [Path(f).name for f in rows[FILE].unique(maintain_order=True).head(3)]
        parts.append(f"in {', '.join(files)}")
    return f"{rows.height} rows" + (f" ({' '.join(parts)})" if parts else "")
