"""One walk over rows: in the order of their scores, and in that of users and requests.

K: clusters. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.bootstrap import AucDraws, weighted_totals, with_interval
from ctr.metrics.computation import GroupMean, RowSums, Totals
from ctr.metrics.curves import CurveSums
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import RankSums, ties_of
from ctr.metrics.records import Floats, Records
from ctr.metrics.sums import GroupSums, RowColumn, RowTotals, rows
from ctr.metrics.value import MetricValue


class Walk:
    """Collects what the computations of metrics ask for.

    Args:
        metrics: that will be asked for.
        weights: (K, D) counts of `poisson_weights`; D = 0 for no bootstrap.
        rows, positives: how many will come.
        pos, neg: rows of each class that will come, or, as float, what they weigh.
        unit: what is resampled: "user" or "request"; "" for nothing.
    """

    def __init__(
        self,
        metrics: Collection[Metric],
        weights: NDArray[np.uint8],
        *,
        rows: int,
        positives: int,
        pos: float,
        neg: float,
        unit: str,
    ) -> None:
        self.weights, self.unit = weights, unit
        self.rows, self.positives = rows, positives
        self.ranks = RankSums()
        self.auc_draws = AucDraws(weights)
        self.curves = CurveSums(pos=pos, neg=neg)
        self.groups: dict[GroupMean, GroupSums] = {}
        self._computations = [metric.computation for metric in metrics]
        self._row_totals = RowTotals(len(weights), row_columns(metrics))

    def by_score(self, chunks: Iterable[Records]) -> None:
        """Take all rows in the order of their scores."""
        for records in chunks:
            ties = ties_of(records)
            self.ranks.add(ties)
            self.curves.add(ties)
            self._row_totals.add(records)
            if self.weights.shape[1]:
                self.auc_draws.add(records)

    def by_group(self, name: str, chunks: Iterable[Records]) -> None:
        """Take all rows in the order of ("user" or "request", score)."""
        wanted = [c for c in self._computations if isinstance(c, GroupMean) and c.group == name]
        self.groups |= {computation: computation.sums(len(self.weights)) for computation in wanted}
        for records in chunks:
            for computation in wanted:
                self.groups[computation].add(records)

    @cached_property
    def totals(self) -> Totals:
        """Sums over all rows, (1,) each; to be asked for once all rows have come."""
        return self._named(self._row_totals.sums.sum(axis=0)[None])

    @cached_property
    def drawn(self) -> Totals:
        """Sums over the rows of each draw, (D,) each."""
        return self._named(weighted_totals(self.weights, self._row_totals.sums))

    def _named(self, totals: Floats) -> Totals:
        return dict(zip(self._row_totals.columns, totals.T, strict=True))

    def interval(
        self, metric: Metric, value: MetricValue, drawn: Floats, *, clusters: int | None = None
    ) -> MetricValue:
        """A value with the interval that its draws and the metric's entry make; see `with_interval`.

        Args:
            metric: its entry.
            value: of all rows.
            drawn: (D,) of each draw.
            clusters: that have rows which count; None counts those that have rows at all.
        """
        if metric.interval is None:
            return value
        if clusters is None:
            clusters = int(np.count_nonzero(self._row_totals.of(rows)))
        return with_interval(
            value, drawn, clusters=clusters, unit=self.unit, bounded=metric.interval == "log-odds"
        )


def row_columns(metrics: Iterable[Metric]) -> list[RowColumn]:
    """The sums over rows that metrics are made of, each once."""
    found = [m.computation.columns for m in metrics if isinstance(m.computation, RowSums)]
    return list(dict.fromkeys(column for columns in found for column in columns))
