"""Prediction tables of a whole day: the parts below one another, other models' scores on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctr.predictions.write import write_rows
from features.errors import DataError

_SCORES = ("score", "logit")
_SAME = ("label", "time", "user_key", "item_key")  # what tells that two rows are one, whatever their numbers


def join_parts(parts: Sequence[Path], out: Path) -> int:
    """Write prediction tables below one another, in their order; returns the number of rows."""
    return write_rows(out, (table for part in parts for table in _groups(part)), point="roll.predictions")


def with_scores_of(day: Path, other: Path, out: Path) -> int:
    """Write the rows of a day with the scores of a model whose data set numbers them otherwise.

    Args:
        day: the day's predictions of some model.
        other: predictions of the same rows, in the same order.
        out: the Parquet file.

    Raises:
        DataError: other rows.
    """
    rows, scores = (pq.read_table(path, page_checksum_verification=True) for path in (day, other))
    for name in _SAME:
        if rows.num_rows != scores.num_rows or not pc.all(pc.equal(rows[name], scores[name])).as_py():
            raise DataError(
                f"{other} must hold the rows of {day}, but has {scores.num_rows:,} instead of "
                f"{rows.num_rows:,}, or others by {name}; delete it and run again"
            )
    for name in _SCORES:
        rows = rows.set_column(rows.column_names.index(name), name, scores[name])
    return write_rows(out, [rows], point="roll.rows")


def day_facts(day: Path, *, users: int, items: int) -> dict[str, float]:
    """What a day is like: its rows, and the shares of those whose user or item the days before never had.

    Args:
        day: its predictions.
        users, items: how many there were before; later ones have larger codes.
    """
    table = pq.read_table(day, columns=["user_id", "item_id", "label"])
    label, user, item = (table[name].to_numpy() for name in ("label", "user_id", "item_id"))
    return {
        "rows": len(label),
        "label_mean": float(np.mean(label)),
        "new_users": float(np.mean(user >= users)),
        "new_items": float(np.mean(item >= items)),
    }


def _groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
