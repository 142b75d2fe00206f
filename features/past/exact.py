"""Sums that do not depend on the order of what is added: numbers as whole multiples of fixed units.

The rows of a key may be added up in one go or piece by piece, on one machine or on several: integers add up
to the same bits in any order, floating-point numbers do not.

    x = p₃₀ · 2³⁰ + p₀ + p₋₃₀ · 2⁻³⁰ + p₋₆₀ · 2⁻⁶⁰,   the parts p int64

Letters: N numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.errors import DataError

SumParts = dict[int, np.ndarray]  # power of two of the unit → int64, how many of it
_STEP = 30
UNITS = (_STEP, 0, -_STEP, -2 * _STEP)
_LARGEST = 2.0**60  # 2³³ such numbers fit into the sums


def parts_of(values: np.ndarray, *, what: str) -> SumParts:
    """Numbers (N,) in parts; those that are zero throughout are left out, but for the units themselves.

    Args:
        values: integers, or finite float64, which are rounded to multiples of 2⁻⁶⁰.
        what: whose they are, for the error message.

    Raises:
        DataError: a number of 2⁶⁰ or more.

    Example:
        >>> parts = parts_of(np.array([2.5, 0.25]), what="example")
        >>> {unit: part.tolist() for unit, part in parts.items()}
        {0: [2, 0], -30: [536870912, 268435456]}
    """
    if values.dtype.kind != "f":
        return {0: values.astype(np.int64)}
    if len(values) and np.abs(values).max() >= _LARGEST:
        raise DataError(
            f"{what}: numbers that are added up must be below 2^60, got {values.max()}; scale them"
        )
    found, rest = {}, values
    for unit in UNITS:
        scaled = np.ldexp(rest, -unit)
        part = np.floor(scaled) if unit > UNITS[-1] else np.rint(scaled)
        rest = rest - np.ldexp(part, unit)
        if unit == 0 or part.any():
            found[unit] = part.astype(np.int64)
    return found


def number_of(parts: Mapping[int, np.ndarray], *, whole: bool) -> np.ndarray:
    """The numbers (N,) that parts add up to: int64 if they are whole, else float64.

    Example:
        >>> number_of(parts_of(np.array([2.5, -0.25]), what="example"), whole=False).tolist()
        [2.5, -0.25]
    """
    if whole:
        return parts[0]
    total = np.zeros(len(parts[0]))
    for unit in UNITS:
        if unit in parts:
            total = total + np.ldexp(parts[unit].astype(np.float64), unit)
    return total
