"""Quantiles and moments of numbers in parts are those of NumPy over all of them, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from features.encode import merged
from features.encode.merged import merged_moments, merged_quantiles

LEVELS = np.linspace(0, 1, 257)


def numbers(seed: int) -> np.ndarray:
    """Numbers of many sizes, of both signs, or with many ties."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5000))
    found = rng.normal(size=size) * np.exp(rng.normal(size=size) * 5)
    return np.round(found) + 0.0 if seed % 3 == 0 else found


@pytest.mark.parametrize("seed", range(12))
def test_quantiles(seed: int) -> None:
    values = numbers(seed)
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(values) + 1, 4))
    parts = [np.sort(part) for part in np.split(values, cuts)]
    for levels in (LEVELS, np.arange(1, 20) / 20):
        assert np.array_equal(merged_quantiles(parts, levels), np.quantile(values, levels))


@pytest.mark.parametrize("size", [1, 7, 1000, 1001, 12_345])
def test_moments(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged, "_WHOLE", 1000)
    values = np.random.default_rng(size).normal(size=size)
    found = merged_moments(lambda low, high: values[low:high], size)
    assert found == (values.mean(), values.std())
