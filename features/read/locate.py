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
    """Say which rows of the table are wrong: how many, the first few by line or number, and their files.

    Several rows that were made of one row of the table are one. Of files that have one name the folder is
    told too.

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
    rows, place = frame.filter(wrong), [c for c in (ROW, FILE, LINE) if c in frame.columns]
    has_lines = LINE in place and FILE in place and rows[LINE].null_count() == 0
    if ROW in place or has_lines:
        rows = rows.unique(place, keep="first", maintain_order=True)
    files = list(map(str, frame[FILE].unique())) if FILE in place and rows.height else []
    if has_lines and files:
        told = rows.select(LINE, FILE).head(3).rows()
        first = [f"line {line} of {_name(file, files)}" for line, file in told]
        return f"{rows.height} rows ({', '.join(first)}{', …' if rows.height > 3 else ''})"
    parts = []
    if ROW in place:
        numbers = ", ".join(map(str, rows[ROW].head(5)))
        parts.append(f"rows {numbers}" + (", …" if rows.height > 5 else ""))
    if files:
        own = [_name(f, files) for f in rows[FILE].unique(maintain_order=True).head(3)]
        parts.append(f"in {', '.join(own)}")
    return f"{rows.height} rows" + (f" ({' '.join(parts)})" if parts else "")


def _name(file: str, files: list[str]) -> str:
    """The shortest end of a path that no other of the files has."""
    path = Path(file)
    others = [other.parts for other in map(Path, files) if other != path]
    for length in range(1, len(path.parts)):
        if all(other[-length:] != path.parts[-length:] for other in others):
            return "/".join(path.parts[-length:])
    return file
