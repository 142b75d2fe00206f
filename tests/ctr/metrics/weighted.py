"""Rows as columns by name, one of them `weight`: in parts, and written as often as they weigh."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Rows = dict[str, np.ndarray]


def in_parts(rows: Rows, count: int = 3) -> Iterator[Rows]:
    """The rows in parts of about equal size, as an accumulator gets them."""
    number = len(next(iter(rows.values())))
    for part in np.array_split(np.arange(number), count):
        yield {name: values[part] for name, values in rows.items()}


def repeated(rows: Rows) -> Rows:
    """Each row as often as it weighs, without weights."""
    times = rows["weight"].astype(np.int64)
    return {name: np.repeat(values, times) for name, values in rows.items() if name != "weight"}
