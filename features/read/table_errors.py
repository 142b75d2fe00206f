"""What is said of the files of a table that lack a column, or have it in different types."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def missing_columns(what: str, missing: dict[str, str], present: list[str]) -> str:
    """The message for columns that are not there.

    Args:
        what: table and file.
        missing: column → who reads it.
        present: the columns that are there.

    Example:
        >>> missing_columns("t", {"user": "the spec"}, ["User"]).split(";")[0]
        "t must have column 'user', which the spec reads"
    """
    plain = {p.strip().lower(): p for p in present}
    near = [plain[k] for c in missing if (k := c.strip().lower()) in plain]
    meant = f" ({', '.join(map(repr, near))} differ in case or blanks)" if near else ""
    reads = ", ".join(f"{column!r}, which {reader} reads" for column, reader in missing.items())
    return (
        f"{what} must have column{'s' if len(missing) > 1 else ''} {reads}; it has {sorted(present)}{meant}; "
        "correct the spec, or name what is missing under rename or optional in source.tables"
    )


def differing_types(
    table: str, column: str, one: tuple[Path, pl.DataType], other: tuple[Path, pl.DataType]
) -> str:
    """The message for a column whose files differ in type; of each, a file and its type."""
    zones = [t.time_zone for _, t in (one, other) if isinstance(t, pl.Datetime)]
    remedy = "declare one under types in the table, or write one of them again"
    if {one[1].base_type(), other[1].base_type()} == {pl.Date, pl.Datetime}:
        remedy = (
            "an event of a day may lie anywhere in it: write one of them again, or set types: "
            f"{{{column}: time}} in the table, and tick: 1d where it is read"
        )
    if len(zones) == 2 and (zones[0] is None) != (zones[1] is None):
        remedy = "set time_zone in the table: the zone of the times that name none, such as UTC"
    return (
        f"table {table!r}: column {column!r} must have one type in all files, but is {one[1]} in {one[0]} "
        f"and {other[1]} in {other[0]}; {remedy}"
    )
