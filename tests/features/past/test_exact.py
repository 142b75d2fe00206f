"""Sums that do not depend on the order, and what they round."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from features.errors import DataError
from features.past.exact import UNITS, number_of, parts_of


@pytest.mark.parametrize("seed", range(5))
def test_any_order_and_any_cut_gives_the_same_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=1000) * np.exp(rng.normal(size=1000) * 8)
    sums = {unit: part.sum() for unit, part in parts_of(values, what="x").items()}
    turned = parts_of(values[::-1].copy(), what="x")
    halves = [parts_of(half, what="x") for half in np.split(values, [137])]
    for unit, total in sums.items():
        assert turned[unit].sum() == total
        assert sum(int(half[unit].sum()) for half in halves if unit in half) == total
    exact = sum(map(Fraction, values.tolist()))
    assert abs(
        Fraction(float(number_of({u: np.array([s]) for u, s in sums.items()}, whole=False)[0])) - exact
    ) <= (abs(exact) * Fraction(1, 2**50) + Fraction(1000, 2**60))


def test_numbers_of_few_digits_keep_their_bits() -> None:
    values = np.array([0.0, -0.5, 3.0, 2.0**40 + 0.25, -(2.0**33), 1.5 * 2.0**-20, 4.0])
    assert np.array_equal(number_of(parts_of(values, what="x"), whole=False), values)


def test_whole_numbers_stay_whole() -> None:
    parts = parts_of(np.array([1, 0, 1], dtype=np.int8), what="x")
    assert list(parts) == [0]
    assert number_of(parts, whole=True).dtype == np.int64
    assert UNITS[0] > 0 > UNITS[-1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"counter 'x': numbers that are added up must be below 2\^60"):
        parts_of(np.array([1.0, 2.0**60]), what="counter 'x'")
