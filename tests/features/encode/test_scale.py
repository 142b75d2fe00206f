from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.encode.scale import count_not_finite, fit_dense, fit_scaler
from features.spec import DenseFeature

odd = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.integers(-5, 5).map(float)


def feature(scale: str, clip: float = 5.0) -> DenseFeature:
    return DenseFeature(columns=["x"], scale=scale, clip=clip)


@example(train=[0.0, 1.0], test=[8.98846567431158e307])  # infinite once divided by the deviation
@given(train=st.lists(odd, max_size=30), test=st.lists(odd, max_size=10))
@pytest.mark.parametrize("scale", ["standard", "log", "quantile"])
def test_any_values_become_finite_and_clipped(scale: str, train: list[float], test: list[float]) -> None:
    """Fault 16: also the largest floats, NaN and infinity, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = fit_scaler(np.array(train), feature(scale, clip=2.0)).apply(np.array(test))
    assert scaled.dtype == np.float32 and (np.abs(scaled) <= 2.0).all()
    assert (scaled[~np.isfinite(np.array(test))] == 0).all()


@pytest.mark.parametrize("scale", ["standard", "log", "quantile"])
def test_training_values_have_mean_0_and_variance_1(scale: str) -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 5000)
    scaled = fit_scaler(values, feature(scale, clip=1e9)).apply(values)
    assert scaled.mean() == pytest.approx(0, abs=2e-3) and scaled.std() == pytest.approx(1, abs=5e-3)


def test_quantile_is_uniform_between_the_ends_and_flat_beyond() -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 5000)
    scaled = fit_scaler(values, feature("quantile")).apply(np.array([-9.0, np.median(values), 1e9]))
    assert scaled == pytest.approx([-np.sqrt(3), 0, np.sqrt(3)], abs=1e-2)


def test_ties_get_the_middle_of_their_levels() -> None:
    """Half zeros: they stand for the lower half, whose middle is at 1/4."""
    values = np.concatenate([np.zeros(5000), 1 + np.arange(5000)])
    scaled = fit_scaler(values, feature("quantile")).apply(np.array([0.0]))
    assert scaled[0] == pytest.approx(np.sqrt(3) * (2 * 0.25 - 1), abs=0.01)


def test_none_leaves_values_as_they_are() -> None:
    assert fit_scaler(np.array([1.0]), feature("none")).apply(np.array([100.0, np.nan])).tolist() == [
        100.0,
        0.0,
    ]


def test_constant_columns_become_0() -> None:
    scaled = fit_scaler(np.full(3, 0.1), feature("standard")).apply(np.array([0.1, 0.2]))
    assert scaled == pytest.approx([0.0, 0.1])


def test_indicator_only_if_training_rows_have_missing_values() -> None:
    train = pl.DataFrame({"a": [1.0, None, np.inf], "b": [1, 2, 3]})
    fitted = fit_dense(train, DenseFeature(columns=["a", "b"]), what="feature")
    assert fitted.fields == ["a", "b", "a.missing"]
    later = pl.DataFrame({"a": [1.0, None], "b": [2, None]})
    assert fitted.apply(later, what="feature").tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert count_not_finite(train, DenseFeature(columns=["a", "b"])) == 1


def test_an_array_column_is_scaled_place_by_place() -> None:
    train = pl.DataFrame({"v": pl.Series([[1.0, 5.0], [3.0, None]], dtype=pl.Array(pl.Float32, 2))})
    dense = DenseFeature(columns=["v"])
    fitted = fit_dense(train, dense, what="feature")
    assert fitted.fields == ["v.0", "v.1", "v.1.missing"]
    assert fitted.apply(train, what="feature").tolist() == [[-1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    assert count_not_finite(train, dense) == 0
