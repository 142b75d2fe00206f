"""Three ways to unique IDs on the CPU; which is fastest depends on the numbers of table rows and of values.

U unique IDs; V values. Cost of each, in passes over memory:

    marks     V scattered writes and reads, and one pass over the rows in between
    stamps    V scattered writes, 2 V scattered reads, a sort of the U unique IDs: no pass over the rows
    sorting   a sort of V: for values too large to index an array
"""

from __future__ import annotations

import threading

import numpy as np

# A pass over so many rows costs what a value costs in the sort of the stamped IDs.
_ROWS_PER_VALUE = 16
# Entries of the scratch array kept per thread: 256 MiB of int32 at most, of which only touched pages exist.
_MOST_ROWS = 1 << 26

_kept = threading.local()


def make_unique(values: np.ndarray, *, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The unique values, ascending, and the index of each value among them, both int64.

    Args:
        values: (V,) integers, at least one.
        low: the smallest.
        high: the largest.
    """
    if low < 0 or high >= _MOST_ROWS:
        return _by_sorting(values)
    scratch = _scratch(high + 1)
    if high < _ROWS_PER_VALUE * len(values):
        return _by_marks(values, scratch, high + 1)
    return _by_stamps(values, scratch)


def _by_marks(values: np.ndarray, scratch: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    marked = np.zeros(rows, dtype=bool)
    marked[values] = True
    unique = np.flatnonzero(marked)
    return unique, _look_up(values, unique, scratch)


def _by_stamps(values: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stamps = np.arange(len(values), dtype=np.int32)
    scratch[values] = stamps  # of the equal values one stamp remains
    unique = values[scratch[values] == stamps].astype(np.int64)
    unique.sort()
    return unique, _look_up(values, unique, scratch)


def _by_sorting(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, inverse = np.unique(values, return_inverse=True)
    return unique.astype(np.int64), inverse.astype(np.int64)


def _look_up(values: np.ndarray, unique: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    scratch[unique] = np.arange(len(unique), dtype=np.int32)
    inverse: np.ndarray = scratch.take(values).astype(np.int64)
    return inverse


def _scratch(rows: int) -> np.ndarray:
    """This thread's array of at least `rows` entries, for any table: a call reads only what it wrote itself.

    A fresh array would cost a page fault for nearly every value of a large table.
    """
    kept: np.ndarray | None = getattr(_kept, "scratch", None)
    if kept is None or len(kept) < rows:
        kept = _kept.scratch = np.empty(rows, dtype=np.int32)
    return kept
