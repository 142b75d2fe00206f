"""Prediction files of any size, matched row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctr.compare.paired import Paired

CHUNK_ROWS = 4_000_000


def compare_files(
    base: Path,
    variants: Mapping[str, Path],
    *,
    where: tuple[str, str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> dict[str, Paired]:
    """Compare prediction files, matched by id, in memory bounded by `chunk_rows`.

    Args:
        base: run directory (its test predictions), or a Parquet or CSV file. Columns: row_id or id; label;
            score (probability) or logit; user_id or group, and request_id, where known.
        variants: name → path, with the same rows in any order.
        where: (slice name without `slice_`, its value as text): only these rows of the base count.
        chunk_rows: rows held in memory.

    Returns:
        Variant name → `Paired`.

    Raises:
        DataError: unreadable file, missing column, or rows that do not match: ids that are missing, extra or
            repeated, or labels that differ; says how many, and the first.
    """
    raise NotImplementedError
