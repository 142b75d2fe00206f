"""Where in the raw files a row came from, for error messages."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.spec import Source

ROW, FILE = "__row", "__file"


def table_name(source: Source, table: str) -> str:
    """What a raw table is called in messages: its name, and its files if the spec names them.

    Example:
        >>> table_name(Source(tables={"clicks": {"path": "logs/*.csv"}}), "clicks")
        "table 'clicks' (logs/*.csv)"
    """
    raw = source.tables.get(table)
    return f"table {table!r} ({raw.path})" if raw is not None else f"table {table!r}"


def locate(frame: pl.DataFrame, wrong: pl.Series) -> str:
    """Say which rows are wrong: how many, the first five by number, and their files.

    Args:
        frame: rows with, if known, `__row` (number in the table, from 0) and `__file` (path).
        wrong: bool, missing counts as false.

    Example:
        >>> frame = pl.DataFrame({"__row": [0, 1, 2], "__file": ["logs/a.csv", "logs/a.csv", "logs/b.csv"]})
        >>> locate(frame, pl.Series([False, True, True]))
        '2 rows (rows 1, 2 in a.csv, b.csv)'
    """
    rows = frame.filter(wrong)
    parts = []
    if ROW in frame.columns:
        numbers = ", ".join(map(str, rows[ROW].head(5)))
        parts.append(f"rows {numbers}" + (", …" if rows.height > 5 else ""))
    if FILE in frame.columns:
        files = [Path(f).name for f in rows[FILE].unique(maintain_order=True).head(3)]
        parts.append(f"in {', '.join(files)}")
    return f"{rows.height} rows" + (f" ({' '.join(parts)})" if parts else "")
