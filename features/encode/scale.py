"""Dense columns → float32 values around 0, with scales fitted on the training period.

A missing value (null, NaN or infinite) becomes 0, the middle of the scaled values; a column with missing
values in training also gets an indicator, so that 0 and missing differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from features.read.numbers import numeric
from features.spec import DenseFeature

_KNOTS = 257
LEVELS = np.linspace(0, 1, _KNOTS)  # of the quantiles that a scaler keeps
_HUGE = 1e100  # beyond it a number stands for a missing one, and its square would overflow


@dataclass(frozen=True)
class Scaler:
    """How one column is scaled.

    none: x     standard: (x − mean) / std     log: the same of sign(x) · log(1 + |x|)
    quantile: √3 · (2 F(x) − 1), F the training distribution, linear between 257 quantiles: uniform with
    mean 0 and variance 1
    """

    kind: str
    clip: float
    mean: float = 0.0
    std: float = 1.0
    knots: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # x, and F(x)
    missing: bool = False  # the training rows have missing values: there is an indicator

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale float64 values; missing ones give 0. Not clipped with `none`."""
        if self.kind == "quantile":
            x, level = (np.asarray(k) for k in self.knots)
            scaled = np.sqrt(3.0) * (2 * np.interp(values, x, level) - 1) if len(x) else np.zeros(len(values))
        else:
            with np.errstate(over="ignore"):  # what becomes infinite is clipped
                scaled = ((_log(values) if self.kind == "log" else values) - self.mean) / self.std
        scaled = scaled if self.kind == "none" else np.clip(scaled, -self.clip, self.clip)
        return np.where(are_known(values), scaled, 0.0).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What was fitted, as plain data."""
        fitted = {"x": list(self.knots[0]), "level": list(self.knots[1])} if self.kind == "quantile" else {}
        return {
            "kind": self.kind,
            "clip": self.clip,
            "mean": self.mean,
            "std": self.std,
            "missing": self.missing,
            **fitted,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Scaler:
        """The scaler with that `state`."""
        kind, clip, mean, std, missing = (state[name] for name in ("kind", "clip", "mean", "std", "missing"))
        knots = (tuple(state.get("x", ())), tuple(state.get("level", ())))
        return cls(kind, clip, mean, std, knots, missing)


def fit_scaler(values: np.ndarray, feature: DenseFeature) -> Scaler:
    """Fit one column on the float64 values (N,) of the training period, NaN = missing.

    Example:
        >>> scaler = fit_scaler(np.array([1.0, 3.0]), DenseFeature(columns=["price"]))
        >>> scaler.apply(np.array([2.0, 3.0, np.nan])).tolist()
        [0.0, 1.0, 0.0]
    """
    known = fitted_on(values, feature)
    missing = len(known) < len(values)
    if feature.scale == "none" or not len(known):
        return Scaler(feature.scale, feature.clip, missing=missing)
    if feature.scale == "quantile":
        return quantile_scaler(np.quantile(known, LEVELS), feature, missing=missing)
    return moment_scaler(float(known.mean()), float(known.std()), feature, missing=missing)


def fitted_on(values: np.ndarray, feature: DenseFeature) -> np.ndarray:
    """The known ones of float64 values (N,), as they are scaled: logarithms with `log`."""
    known = values[are_known(values)]
    return _log(known) if feature.scale == "log" else known


def moment_scaler(mean: float, std: float, feature: DenseFeature, *, missing: bool) -> Scaler:
    """The scaler of values with that mean and standard deviation."""
    # A constant column has a rounding error for its standard deviation.
    std = std if std > 1e-12 * max(abs(mean), 1.0) else 1.0
    return Scaler(feature.scale, feature.clip, mean, std, missing=missing)


def quantile_scaler(quantiles: np.ndarray, feature: DenseFeature, *, missing: bool) -> Scaler:
    """The scaler of values with those quantiles at `LEVELS`."""
    return Scaler("quantile", feature.clip, knots=_knots_of(quantiles), missing=missing)


@dataclass(frozen=True)
class FittedDense:
    """All columns of a dense feature: first the values, then the missing indicators."""

    scalers: dict[str, Scaler]  # an array column of width d has d of them: column.0 … column.(d − 1)

    @property
    def fields(self) -> list[str]:
        """The name of each value."""
        return [*self.scalers, *(f"{c}.missing" for c, s in self.scalers.items() if s.missing)]

    def apply(self, frame: pl.DataFrame, *, what: str) -> np.ndarray:
        """float32 (rows, dim) of a frame of the feature's columns."""
        return self.scale(numbers_of(frame, frame.columns, what))

    def scale(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 (rows, dim) of float64 columns, NaN = missing."""
        scaled = [s.apply(numbers[c]) for c, s in self.scalers.items()]
        flags = [~are_known(numbers[c]) for c, s in self.scalers.items() if s.missing]
        return np.stack([*scaled, *flags], axis=1).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What was fitted, as plain data."""
        return {c: s.state() for c, s in self.scalers.items()}


def fit_dense(
    frame: pl.DataFrame, feature: DenseFeature, *, what: str, may_be_missing: bool = False
) -> FittedDense:
    """Fit every column of a feature on the rows of the training period.

    With `may_be_missing` every column has an indicator, also where no training row misses it.
    """
    numbers = numbers_of(frame, feature.columns, what)
    return of_scalers({c: fit_scaler(x, feature) for c, x in numbers.items()}, may_be_missing=may_be_missing)


def of_scalers(scalers: dict[str, Scaler], *, may_be_missing: bool) -> FittedDense:
    """The columns of a feature; with `may_be_missing` every one has an indicator."""
    if may_be_missing:
        scalers = {c: replace(s, missing=True) for c, s in scalers.items()}
    return FittedDense(scalers)


def missing_in(frame: pl.DataFrame, feature: DenseFeature, *, what: str) -> np.ndarray:
    """Which rows lack a value in any column of a feature, bool (rows,)."""
    numbers = numbers_of(frame, feature.columns, what)
    return np.logical_or.reduce([~are_known(values) for values in numbers.values()])


def count_not_finite(frame: pl.DataFrame, feature: DenseFeature) -> int:
    """How many values are NaN, infinite or absurdly large, rather than missing."""
    every = [s for c in feature.columns for s in _scalars(frame[c])]
    floats = [s.drop_nulls().cast(pl.Float64) for s in every if s.dtype.is_float()]
    return sum(int((~are_known(c.to_numpy())).sum()) for c in floats)


def _scalars(column: pl.Series) -> list[pl.Series]:
    """An array column as one column per element, any other as it is."""
    if not isinstance(column.dtype, pl.Array):
        return [column]
    return [column.arr.get(i).alias(f"{column.name}.{i}") for i in range(column.dtype.size)]


def numbers_of(frame: pl.DataFrame, columns: list[str], what: str) -> dict[str, np.ndarray]:
    """Every scalar of the columns as float64 (rows,), missing ones as NaN."""
    every = [s for c in columns for s in _scalars(frame[c])]
    return {s.name: numeric(s, what=f"{what}: column {s.name!r}") for s in every}


def are_known(values: np.ndarray) -> np.ndarray:
    """Which values are numbers and not missing, NaN, infinite or absurdly large; NaN compares false."""
    return np.abs(values) < _HUGE


def _log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def _knots_of(quantiles: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Distinct quantiles and the middle of the levels that each of them spans."""
    unique, inverse = np.unique(quantiles, return_inverse=True)
    levels = np.bincount(inverse, weights=LEVELS) / np.bincount(inverse)
    return tuple(unique.tolist()), tuple(levels.tolist())
