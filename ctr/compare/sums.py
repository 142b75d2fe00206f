"""What is kept of a model's predictions: sums per cluster of rows that are resampled together.

K: clusters. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.bootstrap import weighted_totals
from ctr.metrics.calibration import figures_of
from ctr.metrics.records import Floats

MetricName: TypeAlias = Literal["auc", "gauc", "query_auc", "log_loss", "ne"]
# Metric → +1 where larger is better, −1 where smaller is.
METRICS: dict[MetricName, int] = {"auc": 1, "gauc": 1, "query_auc": 1, "log_loss": -1, "ne": -1}
# Columns of a table of sums. PROBABILITY: loss, score, positives, rows. INFLUENCE: on the AUC. Then a
# weighted sum of group AUCs and their weight, for users and for requests.
PROBABILITY, INFLUENCE, USERS, REQUESTS, COLUMNS = slice(0, 4), 4, slice(5, 7), slice(7, 9), 9


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """One model on one set of rows, as sums per cluster.

    Every metric but the AUC is a function of the sums' totals. The AUC is not; its column holds each
    cluster's influence ψ_c, and in a draw that takes cluster c w_c times it is AUC + Σ w_c ψ_c to first
    order.

    Args:
        keys: (K,) sorted: the clusters; the same user has the same key in every table.
        values: (K, 9) sums.
        auc: AUC of all rows; NaN where undefined.

    Source: Obuchowski, Biometrics 53 (1997), section 2, for the AUC's placement values summed over clusters.
    """

    keys: NDArray[np.uint16]
    values: Floats
    auc: float

    def figures(self) -> dict[MetricName, float]:
        """Every metric on all rows; NaN where it is undefined."""
        drawn = _figures(self.values.sum(axis=0)[None], self.auc)
        return {name: float(values[0]) for name, values in drawn.items()} | {"auc": self.auc}

    def draws(self, weights: NDArray[np.uint8]) -> dict[MetricName, Floats]:
        """Every metric in every bootstrap draw, (D,) each, for the weights (K, D) of the clusters."""
        return _figures(weighted_totals(weights, np.nan_to_num(self.values)), self.auc)

    def counted(self, metric: MetricName) -> NDArray[np.uint16]:
        """The clusters that have rows which count in a metric."""
        columns = {"gauc": USERS, "query_auc": REQUESTS}.get(metric)
        return self.keys if columns is None else self.keys[self.values[:, columns.start + 1] > 0]


def _figures(totals: Floats, auc: float) -> dict[MetricName, Floats]:
    """The metrics of each row of totals (D, 9)."""
    probability = figures_of(totals[:, PROBABILITY])
    with np.errstate(divide="ignore", invalid="ignore"):
        gauc, query_auc = (totals[:, c.start] / totals[:, c.start + 1] for c in (USERS, REQUESTS))
    return {
        "auc": auc + totals[:, INFLUENCE],
        "gauc": gauc,
        "query_auc": query_auc,
        "log_loss": probability["log_loss"],
        "ne": probability["ne"],
    }


def union_of_keys(tables: Sequence[ClusterSums]) -> NDArray[np.uint16]:
    """The clusters of several tables, sorted."""
    return np.unique(np.concatenate([table.keys for table in tables]))
