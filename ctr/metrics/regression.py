"""Metrics of a regression, such as seconds watched: how far predictions are off, and whether they rank.

All rows are held in memory, some 40 bytes each. n: rows. K: clusters (users). D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ctr.metrics.bootstrap import draw_weights, with_interval
from ctr.metrics.clusters import clusters_of, codes_of
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import check_weights
from ctr.metrics.records import Floats, Ints, run_starts
from ctr.metrics.value import MetricValue
from features.errors import DataError

# (value, prediction, weight), (n,) each, to the figure; NaN where undefined.
ValueFigure: TypeAlias = Callable[[Floats, Floats, Floats], float]


def rmse(value: Floats, prediction: Floats, weight: Floats) -> float:
    """√ of the weighted mean of (prediction − value)²."""
    return float(np.sqrt(_mean(np.square(prediction - value), weight)))


def mae(value: Floats, prediction: Floats, weight: Floats) -> float:
    """Weighted mean of |prediction − value|."""
    return _mean(np.abs(prediction - value), weight)


def spearman(value: Floats, prediction: Floats, weight: Floats) -> float:
    """Pearson's correlation of the mid-ranks; a row of weight k has the ranks of k equal rows."""
    a, b = (_midranks(column, weight) for column in (value, prediction))
    a, b = a - _mean(a, weight), b - _mean(b, weight)
    spread = _mean(a * a, weight) * _mean(b * b, weight)
    return _mean(a * b, weight) / float(np.sqrt(spread)) if spread > 0 else np.nan


def value_auc(value: Floats, prediction: Floats, weight: Floats) -> float:
    """Area under the ROC curve of value > 0, where a positive counts as much as its value.

    Σ_i v_i w_i (Σ_{j below i} w_j + ½ Σ_{j tied} w_j) / (Σ_i v_i w_i · Σ_j w_j),  v_i > 0, v_j = 0
    """
    worth, negative = weight * np.maximum(value, 0.0), weight * (value <= 0)
    pairs = worth.sum() * negative.sum()
    below = _midranks(prediction, negative)
    return float((worth * below).sum() / pairs) if pairs > 0 else np.nan


def _mean(values: Floats, weight: Floats) -> float:
    total = weight.sum()
    return float(values @ weight / total) if total > 0 else np.nan


def _midranks(values: Floats, weight: Floats) -> Floats:
    """What the rows below each value weigh, and half of those that have the same, (n,)."""
    order = np.argsort(values, kind="stable")
    starts = run_starts(values[order])
    own = np.add.reduceat(weight[order], starts) if len(starts) else weight[:0]
    found = np.empty(len(values))
    found[order] = np.repeat(np.cumsum(own) - own / 2, np.diff(starts, append=len(values)))
    return found


@dataclass(frozen=True)
class OfValues:
    """A figure of the values and predictions of all rows."""

    figure: ValueFigure
    columns: tuple[()] = ()


def _entry(name: str, label: str, meaning: str, figure: ValueFigure, *, higher: bool) -> Metric:
    return Metric(
        name=name,
        label=label,
        meaning=meaning,
        better="higher" if higher else "lower",
        computation=OfValues(figure),  # type: ignore[arg-type]  # asked by `RegressionAccumulator` alone
        headline=True,
        not_compared="models of a regression are compared by their evaluations alone",
    )


REGRESSION_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _entry("rmse", "RMSE", "root of the mean squared error", rmse, higher=False),
        _entry("mae", "MAE", "mean absolute error", mae, higher=False),
        _entry(
            "spearman",
            "Spearman",
            "correlation of ranks",
            spearman,
            higher=True,
        ),
        _entry(
            "value_auc",
            "Value AUC",
            "AUC of value > 0, weighed by value",
            value_auc,
            higher=True,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class RegressionSummary:
    """The metrics of one set of rows, in the unit of the values.

    Args:
        rows: that have a value and a weight above 0.
        metrics: name → value, of every entry of `REGRESSION_METRICS`.
    """

    rows: int
    metrics: dict[str, MetricValue]


class RegressionAccumulator:
    """Takes rows in any pieces, then computes every metric of a regression.

    Args:
        draws: bootstrap draws by user (or request); 0 for no intervals.
        seed: of the bootstrap.

    Example:
        >>> accumulator = RegressionAccumulator(draws=0)
        >>> accumulator.update([0.0, 10.0, 30.0], [1.0, 12.0, 20.0])
        >>> {n: m.value for n, m in accumulator.compute().metrics.items()}["mae"]
        4.333...
    """

    def __init__(self, *, draws: int = 200, seed: int = 0) -> None:
        self._draws, self._seed = draws, seed
        self._parts: list[tuple[Floats, Floats, Floats, Ints]] = []
        self._unit: str | None = None

    def update(
        self,
        value: ArrayLike,
        prediction: ArrayLike,
        *,
        user: ArrayLike | None = None,
        request: ArrayLike | None = None,
        weight: ArrayLike | None = None,
    ) -> None:
        """Take more rows whose value is known.

        Args:
            value, prediction: (n,) in the unit of the log.
            user, request: (n,) integers; users are resampled, or requests where there are no users. Given in
                every call or in none.
            weight: (n,) ≥ 0; None: every row weighs 1.

        Raises:
            DataError: a number that is not finite, a negative weight, or lengths that differ.
        """
        values, predictions = (np.asarray(x, dtype=np.float64) for x in (value, prediction))
        for name, column in (("value", values), ("prediction", predictions)):
            if column.shape != values.shape or not np.isfinite(column).all():
                raise DataError(
                    f"{name} must be {len(values)} finite numbers, got {column.shape} with "
                    f"{int((~np.isfinite(column)).sum())} others; leave rows out whose value is not known"
                )
        weights = np.ones(len(values)) if weight is None else check_weights(weight, values)
        unit = "user" if user is not None else "request" if request is not None else ""
        if self._unit not in (None, unit):
            raise DataError(f"every update must bring the same keys, first {self._unit!r}, now {unit!r}")
        self._unit = unit
        ids = next((np.asarray(x) for x in (user, request) if x is not None), np.zeros(len(values), np.int64))
        counts = weights > 0
        columns = values, predictions, weights, clusters_of(codes_of(ids.astype(np.int64)))
        self._parts.append(tuple(column[counts] for column in columns))  # type: ignore[arg-type]

    def compute(self) -> RegressionSummary:
        """Every metric of the rows so far."""
        value, prediction, weight, cluster = (np.concatenate(c) for c in zip(*self._parts, strict=True))
        clusters = np.unique(cluster)
        draws = self._draws if self._unit else 0
        times = draw_weights(int(cluster.max(initial=0)) + 1, draws, self._seed)

        def evaluate(metric: Metric) -> MetricValue:
            figure: ValueFigure = metric.computation.figure  # type: ignore[attr-defined]
            found = figure(value, prediction, weight)
            if not np.isfinite(found):
                return MetricValue(value=None, reason=f"undefined for {len(value)} rows", n=len(value))
            drawn = [figure(value, prediction, weight * times[cluster, d]) for d in range(draws)]
            whole = MetricValue(value=found, n=len(value))
            return with_interval(
                whole, np.array(drawn), clusters=len(clusters), unit=self._unit or "", bounded=False
            )

        metrics = {name: evaluate(metric) for name, metric in REGRESSION_METRICS.items()}
        return RegressionSummary(rows=len(value), metrics=metrics)
