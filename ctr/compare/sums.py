"""What is kept of a model's predictions: sums per cluster of rows that are resampled together.

K: clusters. C: columns. D: bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.records import Floats

MetricName: TypeAlias = Literal["auc", "gauc", "query_auc", "log_loss", "ne"]
# Metric → +1 where larger is better, −1 where smaller is.
METRICS: dict[MetricName, int] = {"auc": 1, "gauc": 1, "query_auc": 1, "log_loss": -1, "ne": -1}


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """One model on one set of rows, as sums per cluster.

    Args:
        keys: (K,) uint64, sorted: the clusters; the same user has the same key in every table.
        values: (K, C) sums.
        auc: AUC of all rows; NaN where undefined.
    """

    keys: NDArray[np.uint64]
    values: Floats
    auc: float

    def figure(self, metric: MetricName) -> float:
        """A metric on all rows; NaN where it is undefined."""
        raise NotImplementedError

    def draws(self, metric: MetricName, weights: NDArray[np.uint8]) -> Floats:
        """A metric in every bootstrap draw, (D,), for weights (K, D)."""
        raise NotImplementedError
