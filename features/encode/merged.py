"""Quantiles, means and deviations of numbers that lie in parts, to the bit those of NumPy over all of them.

Letters: N numbers in all parts together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

ReadSlice = Callable[[int, int], np.ndarray]  # numbers [low, high) of all, in order
_WHOLE = 2**20  # numbers that are added up in one go


def merged_quantiles(parts: Sequence[np.ndarray], levels: np.ndarray) -> np.ndarray:
    """`np.quantile` of all parts together, linear between the two numbers beside each level.

    Args:
        parts: float64, each sorted; at least one number in all.
        levels: in [0, 1], rising.

    Example:
        >>> merged_quantiles([np.array([1.0, 3.0]), np.array([2.0])], np.array([0.5, 0.75])).tolist()
        [2.0, 2.5]
    """
    count = sum(len(part) for part in parts)
    at = (count - 1) * levels
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    ranks, inverse = np.unique(np.concatenate([below, above]), return_inverse=True)
    low, high = np.split(_of_ranks(parts, ranks)[inverse], 2)
    weight, step = at - below, high - low
    # As NumPy interpolates: from the nearer end.
    return np.where(weight >= 0.5, high - step * (1 - weight), low + step * weight)


def merged_moments(read: ReadSlice, count: int) -> tuple[float, float]:
    """Mean and standard deviation of N numbers, added up pairwise in the order of NumPy.

    Args:
        read: gives float64 numbers [low, high).
        count: N, at least 1.
    """
    mean = np.float64(_pairwise(read, 0, count) / count)

    def squares(low: int, high: int) -> np.ndarray:
        off = read(low, high) - mean
        return off * off

    return float(mean), float(np.sqrt(_pairwise(squares, 0, count) / count))


def _pairwise(read: ReadSlice, low: int, count: int) -> np.float64:
    """The sum as `np.add.reduce` over one array gives it: halves, the first a multiple of 8."""
    if count <= _WHOLE:
        return np.float64(np.add.reduce(np.ascontiguousarray(read(low, low + count))))
    half = count // 2
    half -= half % 8
    return _pairwise(read, low, half) + _pairwise(read, low + half, count - half)


def _of_ranks(parts: Sequence[np.ndarray], ranks: np.ndarray) -> np.ndarray:
    """The numbers at ranks (from 0) of all, by bisection over the integers that order floats."""
    low = np.full(len(ranks), _ordered(np.array([-np.inf]))[0])
    high = np.full(len(ranks), _ordered(np.array([np.inf]))[0])
    while (low < high).any():
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # high − low may not fit
        value = _number(middle)
        upto = sum(
            (np.searchsorted(part, value, side="right") for part in parts),
            np.zeros(len(ranks), dtype=np.int64),
        )
        low, high = np.where(upto > ranks, low, middle + 1), np.where(upto > ranks, middle, high)
    return _number(low)


def _ordered(values: np.ndarray) -> np.ndarray:
    """int64 that are in the order of float64 values."""
    bits = values.view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _number(ordered: np.ndarray) -> np.ndarray:
    """The float64 of each integer of `_ordered`."""
    return np.where(ordered < 0, np.int64(-(2**63)) - ordered, ordered).view(np.float64)
