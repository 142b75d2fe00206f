"""Three ways to unique IDs on the CPU; which one is fastest follows from the table's rows and the uses.

U unique IDs; V uses. Cost of each, in passes over memory:

    marks     V scattered writes and reads, and one pass over the rows in between
    stamps    V scattered writes, 2 V scattered reads, a sort of the U unique IDs: no pass over the rows
    sorting   a sort of V: for values too large to be places of an array
"""

from __future__ import annotations

import threading

import numpy as np

# A pass over so many rows costs what a use costs in the sort of the stamped IDs.
_ROWS_PER_USE = 16
# Places kept per thread, 256 MiB of int32 at most, of which only the touched pages exist.
_MOST_ROWS = 1 << 26

_kept = threading.local()


def make_unique(uses: np.ndarray, *, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The unique values, ascending, and the place of each use among them, both int64.

    Args:
        uses: (V,) integers, at least one.
        low: the smallest.
        high: the largest.
    """
    if low < 0 or high >= _MOST_ROWS:
        return _by_sorting(uses)
    places = _places(high + 1)
    if high < _ROWS_PER_USE * len(uses):
        return _by_marks(uses, places, high + 1)
    return _by_stamps(uses, places)


def _by_marks(uses: np.ndarray, places: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    marked = np.zeros(rows, dtype=bool)
    marked[uses] = True
    unique = np.flatnonzero(marked)
    return unique, _look_up(uses, unique, places)


def _by_stamps(uses: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stamps = np.arange(len(uses), dtype=np.int32)
    places[uses] = stamps  # of the uses of one ID, one remains
    unique = uses[places[uses] == stamps].astype(np.int64)
    unique.sort()
    return unique, _look_up(uses, unique, places)


def _by_sorting(uses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, inverse = np.unique(uses, return_inverse=True)
    return unique.astype(np.int64), inverse.astype(np.int64)


def _look_up(uses: np.ndarray, unique: np.ndarray, places: np.ndarray) -> np.ndarray:
    places[unique] = np.arange(len(unique), dtype=np.int32)
    inverse: np.ndarray = places.take(uses).astype(np.int64)
    return inverse


def _places(rows: int) -> np.ndarray:
    """This thread's array of at least so many places, for any table: only what a call has written is read.

    A fresh array would cost a page fault for nearly every use of a large table.
    """
    kept: np.ndarray | None = getattr(_kept, "places", None)
    if kept is None or len(kept) < rows:
        kept = _kept.places = np.empty(rows, dtype=np.int32)
    return kept
