"""How the lists of a user follow one another: what a list repeats of the one before.

Letters: L lists, V values of all different lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlaps:
    """Of L lists, each against the one before of its user.

    Attributes:
        shared: int64 (L,), how many of the first values are the last of the list before; the most that are.
        changed: bool (L,), there is a list before, and it is another one.
        grows_new: bool (L,), changed, and at least half of the shorter one is shared.
        grows_old: bool (L,), the same if both are read from the other end.
    """

    shared: np.ndarray
    changed: np.ndarray
    grows_new: np.ndarray
    grows_old: np.ndarray


def find_overlaps(values: np.ndarray, low: np.ndarray, length: np.ndarray, user: np.ndarray) -> Overlaps:
    """Compare every list with the one before of its user.

    Args:
        values: int64 (V,).
        low: int64 (L,), where each list begins in the values.
        length: int64 (L,), at least 1.
        user: int64 (L,); the lists of a user follow one another.

    Example:
        >>> values, low, length = np.array([1, 2, 3, 2, 3, 4]), np.array([0, 3]), np.array([3, 3])
        >>> find_overlaps(values, low, length, np.array([7, 7])).shared.tolist()
        [0, 2]
    """
    shared, old = np.zeros_like(length), np.zeros_like(length)
    follows = np.concatenate([[False], user[1:] == user[:-1]])[: len(user)]
    same = follows & (np.roll(low, 1) == low) & (np.roll(length, 1) == length)
    shared[same] = length[same]
    rest = np.flatnonzero(follows & ~same)
    begins = _begins_with_previous(values, low, length, rest)
    shared[rest[begins]] = length[rest[begins] - 1]
    changed = follows & ~same
    changed[rest[begins & (length[rest] == length[rest - 1])]] = False
    for i in rest[~begins].tolist():
        before, own = (values[low[j] : low[j] + length[j]] for j in (i - 1, i))
        shared[i] = _overlap(before, own)
    for i in np.flatnonzero(changed).tolist():
        before, own = (values[low[j] : low[j] + length[j]] for j in (i - 1, i))
        old[i] = _overlap(before[::-1], own[::-1])
    shorter = np.minimum(length, np.roll(length, 1))
    return Overlaps(shared, changed, changed & (2 * shared >= shorter), changed & (2 * old >= shorter))


def of_ranges(low: np.ndarray, length: np.ndarray) -> np.ndarray:
    """All integers of the ranges [low, low + length), one range after the other.

    Example:
        >>> of_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    before = np.cumsum(length) - length
    return np.repeat(low - before, length) + np.arange(int(length.sum()))


def _begins_with_previous(
    values: np.ndarray, low: np.ndarray, length: np.ndarray, rest: np.ndarray
) -> np.ndarray:
    """Which of the lists at `rest` begin with the whole list before."""
    some = length[rest] >= length[rest - 1]
    at = rest[some]
    size = length[at - 1]
    equal = values[of_ranges(low[at], size)] == values[of_ranges(low[at - 1], size)]
    found = np.zeros(len(rest), dtype=bool)
    if len(at):
        found[some] = np.logical_and.reduceat(equal, np.cumsum(size) - size)
    return found


def _overlap(before: np.ndarray, own: np.ndarray) -> int:
    """The most last values of `before` that `own` begins with."""
    for at in np.flatnonzero(before == own[0]).tolist():
        size = len(before) - at
        if size <= len(own) and np.array_equal(before[at:], own[:size]):
            return size
    return 0
