"""Sums over a range of positions, of the values that are not older than a time: a wavelet matrix in numpy.

Letters: P values, Q questions, K distinct times.
"""

from __future__ import annotations

import numpy as np

from features.past.keys import distinct


def sums_since(
    time: np.ndarray, values: np.ndarray, start: np.ndarray, end: np.ndarray, since: np.ndarray
) -> np.ndarray:
    """Sums (Q,) of values[start:end] whose time is at least `since`, for times in no particular order.

    Level by level, from the highest bit of the times' ranks, the values are split by that bit, those with 0
    first and otherwise in order, and every range is followed into the half in which its bound lies: where the
    bound's bit is 0, all values with 1 are added. O((P + Q) · log K), exact for integers.

    Args:
        time: int64 (P,).
        values: int64, bool or float64 (P,).
        start, end: int64 (Q,) positions.
        since: int64 (Q,).

    Source: Claude, Navarro: The Wavelet Matrix (SPIRE 2012).

    Example:
        >>> time, values = np.array([5, 9, 7, 6]), np.array([1, 10, 100, 1000])
        >>> sums_since(time, values, np.array([0, 1]), np.array([4, 3]), np.array([6, 8])).tolist()
        [1110, 10]
    """
    known = distinct(time)
    rank, bound = np.searchsorted(known, time), np.searchsorted(known, since)
    total = np.zeros(len(start), dtype=np.float64 if values.dtype.kind == "f" else np.int64)
    values = values.astype(total.dtype)
    for bit in reversed(range(len(known).bit_length())):
        is_one = (rank >> bit) & 1 == 1
        zeros, ones = _before(~is_one), _before(np.where(is_one, values, 0))
        up = (bound >> bit) & 1 == 1
        total += np.where(up, 0, ones[end] - ones[start])
        start, end = (np.where(up, zeros[-1] + at - zeros[at], zeros[at]) for at in (start, end))
        order = np.concatenate([np.flatnonzero(~is_one), np.flatnonzero(is_one)])
        rank, values = rank[order], values[order]
    equal = _before(values)
    return total + equal[end] - equal[start]


def _before(values: np.ndarray) -> np.ndarray:
    """Sums (P + 1,) of the values before each position."""
    dtype = np.float64 if values.dtype.kind == "f" else np.int64
    return np.concatenate([np.zeros(1, dtype=dtype), np.cumsum(values, dtype=dtype)])
