"""Rows sorted by two keys, with equal rows counted once.

Every ranking metric is a walk over rows in the order of their score, overall or within a user or request. A
record stands for all rows of equal keys: that makes ties exact, and keeps a million equal scores small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[Any]  # rows, int64; or, of rows with weights, what they weigh, float64


class Records(NamedTuple):
    """Counted rows, (n,) each, sorted by (major, minor) once they come out of `compress`.

    Args:
        major: score (float64), or user or request (int64); chunks are never cut inside one value of it.
        minor: cluster (int64) where major is the score, else the score (float64).
        cluster: index of the user (or request) that is resampled together, int64 ≥ 0.
        pos, neg: rows with label 1 and 0 that have these keys, int64; or, of rows with weights, what they
            weigh, float64.
    """

    major: NDArray[Any]
    minor: NDArray[Any]
    cluster: Ints
    pos: Counts
    neg: Counts


def run_starts(values: NDArray[np.generic]) -> NDArray[np.intp]:
    """Where each run of equal neighbours begins.

    Example:
        >>> run_starts(np.array([3, 3, 5, 7, 7])).tolist()
        [0, 2, 3]
    """
    first = np.ones(len(values), dtype=bool)
    first[1:] = values[1:] != values[:-1]
    return np.flatnonzero(first)


def compress(records: Records) -> Records:
    """Sort by (major, minor) and add up the counts of equal keys."""
    if len(records.major) == 0:
        return records
    order = np.lexsort((records.minor, records.major))
    major, minor, cluster, pos, neg = (column[order] for column in records)
    first = np.ones(len(major), dtype=bool)
    first[1:] = (major[1:] != major[:-1]) | (minor[1:] != minor[:-1])
    starts = np.flatnonzero(first)
    return Records(
        major[starts],
        minor[starts],
        cluster[starts],
        np.add.reduceat(pos, starts),
        np.add.reduceat(neg, starts),
    )
