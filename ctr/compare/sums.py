"""What is kept of a model's predictions: sums per cluster of rows that are resampled together.

K: clusters. C: columns. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.bootstrap import weighted_totals
from ctr.metrics.computation import AUC, INFLUENCE, GroupMean
from ctr.metrics.metric import Metric
from ctr.metrics.records import Floats
from ctr.metrics.table import METRICS, compared


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """One model on one set of rows, as sums per cluster.

    Every metric but the AUC is a function of the sums' totals. The AUC is not; see
    `ctr.metrics.computation.RocArea`.

    Args:
        keys: (K,) sorted: the clusters; the same user has the same key in every table.
        columns: what is summed, as the metrics' computations name it.
        values: (K, C) sums.
        auc: AUC of all rows; NaN where undefined.
    """

    keys: NDArray[np.uint16]
    columns: tuple[Hashable, ...]
    values: Floats
    auc: float

    def figures(self) -> dict[str, float]:
        """Every metric on all rows; NaN where it is undefined."""
        totals = self.values.sum(axis=0)[None]
        totals[:, self.columns.index(INFLUENCE)] = 0.0  # they add up to 0 but for rounding
        return {name: float(values[0]) for name, values in self._figures(totals).items()}

    def draws(self, weights: NDArray[np.uint8]) -> dict[str, Floats]:
        """Every metric in every bootstrap draw, (D,) each, for the weights (K, D) of the clusters."""
        return self._figures(weighted_totals(weights, np.nan_to_num(self.values)))

    def _figures(self, totals: Floats) -> dict[str, Floats]:
        """The metrics of each row of totals (D, C)."""
        named = {**dict(zip(self.columns, totals.T, strict=True)), AUC: np.full(len(totals), self.auc)}
        return {metric.name: metric.computation.compare(named) for metric in self.metrics}

    @property
    def metrics(self) -> list[Metric]:
        """Those that these sums were made for."""
        return [m for m in compared() if set(m.computation.columns) <= set(self.columns)]

    def counted(self, metric: str) -> NDArray[np.uint16]:
        """The clusters that have rows which count in a metric."""
        computation = METRICS[metric].computation
        if not isinstance(computation, GroupMean):
            return self.keys
        _, weight = computation.columns
        return self.keys[self.values[:, self.columns.index(weight)] > 0]


def union_of_keys(tables: Sequence[ClusterSums]) -> NDArray[np.uint16]:
    """The clusters of several tables, sorted."""
    return np.unique(np.concatenate([table.keys for table in tables]))
