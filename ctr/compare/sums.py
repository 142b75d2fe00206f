"""What is kept of a model's predictions: sums per cluster of rows that are resampled together, and AUCs.

K: clusters. C: columns. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctr.metrics.bootstrap import poisson_weights, weighted_totals
from ctr.metrics.computation import AUC, GroupMean
from ctr.metrics.metric import Metric
from ctr.metrics.records import Floats, Ints
from ctr.metrics.sums import rows
from ctr.metrics.table import METRICS, compared


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """One model on one set of rows, as sums per cluster.

    Every metric but the AUC is a function of the sums' totals. The AUC is drawn while the rows pass by, with
    the same weights; see `ctr.metrics.computation.RocArea`.

    Args:
        columns: what is summed, as the metrics' computations name it.
        values: (K, C) sums of clusters 0 to K − 1; the same user has the same cluster in every table.
        auc: AUC of all rows; NaN where undefined.
        auc_draws: (D,) the AUC in each bootstrap draw; NaN where undefined.
        seed: of the draws.
    """

    columns: tuple[Hashable, ...]
    values: Floats
    auc: float
    auc_draws: Floats
    seed: int

    @cached_property
    def figures(self) -> dict[str, float]:
        """Every metric on all rows; NaN where it is undefined."""
        figures = self._figures(self.values.sum(axis=0)[None], np.array([self.auc]))
        return {name: float(values[0]) for name, values in figures.items()}

    @cached_property
    def drawn(self) -> dict[str, Floats]:
        """Every metric in every bootstrap draw, (D,) each."""
        weights = poisson_weights(len(self.values), len(self.auc_draws), self.seed)
        return self._figures(weighted_totals(weights, np.nan_to_num(self.values)), self.auc_draws)

    def _figures(self, totals: Floats, auc: Floats) -> dict[str, Floats]:
        """The metrics of each row of totals (D, C), with the AUC of each (D,)."""
        named = {**dict(zip(self.columns, totals.T, strict=True)), AUC: auc}
        return {metric.name: metric.computation.compare(named) for metric in self.metrics}

    @property
    def metrics(self) -> list[Metric]:
        """Those that these sums were made for."""
        return [m for m in compared() if set(m.computation.columns) <= set(self.columns)]

    def counted(self, metric: str) -> Ints:
        """The clusters that have rows which count in a metric."""
        computation = METRICS[metric].computation
        if isinstance(computation, GroupMean):
            _, weight = computation.columns
            return self._having(weight)
        return self.clusters

    @property
    def clusters(self) -> Ints:
        """Those that have rows."""
        return self._having(rows)

    def _having(self, column: Hashable) -> Ints:
        return np.flatnonzero(self.values[:, self.columns.index(column)] > 0)
