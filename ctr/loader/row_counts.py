"""How many rows the requests of a split have, and the windows of requests that batches are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa

RequestCounts: TypeAlias = np.ndarray | pa.ChunkedArray  # rows of each request, in memory or mapped


@dataclass(frozen=True)
class WindowTotals:
    """What the rows of a window come to: requests that have some, rows, and those of the longest request."""

    requests: int
    rows: int
    longest: int

    @classmethod
    def of(cls, rows: np.ndarray) -> WindowTotals:
        """Of the rows of each request."""
        return cls(int((rows > 0).sum()), int(rows.sum()), int(rows.max(initial=0)))


@dataclass(frozen=True)
class Window:
    """The requests `start` … `stop − 1` of one split.

    Attributes:
        first_row: their first row among those of the split.
        totals: with all their rows.
    """

    split: int
    start: int
    stop: int
    first_row: int = 0
    totals: WindowTotals = WindowTotals(0, 0, 0)


def rows_of(counts: RequestCounts, start: int, stop: int) -> np.ndarray:
    """The rows of requests `start` … `stop − 1`, int64; nothing else is read."""
    part = counts[start:stop] if isinstance(counts, np.ndarray) else counts.slice(start, stop - start)
    return (part if isinstance(part, np.ndarray) else part.to_numpy()).astype(np.int64, copy=False)


def find_windows(counts: Sequence[RequestCounts], size: int) -> list[Window]:
    """Windows of near-equal size, none larger than `size`, over the splits one after the other.

    Args:
        counts: per split, the number of rows of each request; read window by window.
        size: requests.

    Example:
        >>> [(w.start, w.stop, w.first_row) for w in find_windows([np.array([1, 2, 3, 4, 5])], 3)]
        [(0, 2, 0), (2, 5, 3)]
    """
    found = []
    for split, own in enumerate(counts):
        edges = np.linspace(0, len(own), math.ceil(len(own) / size) + 1).astype(np.int64).tolist()
        first = 0
        for start, stop in pairwise(edges):
            totals = WindowTotals.of(rows_of(own, start, stop))
            found.append(Window(split, start, stop, first, totals))
            first += totals.rows
    return found
