"""Sums per cluster from which metrics follow, overall and in each bootstrap draw.

Rows of equal score in one cluster come as one record, with how many of them have label 1 and 0, or, of rows
with weights, what those weigh.

K: clusters. D: bootstrap draws. C: columns. G: groups. n: records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.records import Counts, Floats, Records, run_starts

# (score, rows with label 1, rows with label 0), (n,) each, to what these rows add together, (n,).
RowColumn: TypeAlias = Callable[[Floats, Counts, Counts], NDArray[Any]]
# (first record of each group (G,), rows with label 1, rows with label 0 (n,)) to (G,), NaN where undefined.
GroupFigure: TypeAlias = Callable[[NDArray[np.intp], Counts, Counts], Floats]


def loss(score: Floats, pos: Counts, neg: Counts) -> NDArray[Any]:
    """Binary cross-entropy: −(y ln p + (1 − y) ln(1 − p)), with p kept one float64 epsilon inside (0, 1)."""
    eps = np.finfo(np.float64).eps
    clipped = np.clip(score, eps, 1.0 - eps)
    return -(pos * np.log(clipped) + neg * np.log1p(-clipped))


def prediction(score: Floats, pos: Counts, neg: Counts) -> NDArray[Any]:
    """The predicted probabilities."""
    return (pos + neg) * score


def positives(score: Floats, pos: Counts, neg: Counts) -> Counts:
    """Rows with label 1."""
    return pos


def rows(score: Floats, pos: Counts, neg: Counts) -> Counts:
    """Rows."""
    return pos + neg


SHARED: tuple[RowColumn, ...] = (loss, prediction, positives, rows)  # summed whatever the metrics


class RowTotals:
    """Sums over the rows of each cluster.

    Args:
        clusters: K.
        columns: what is summed; those of `SHARED` always are, and come first.
    """

    def __init__(self, clusters: int, columns: Sequence[RowColumn] = ()) -> None:
        self.columns = tuple(dict.fromkeys([*SHARED, *columns]))
        self.sums = np.zeros((clusters, len(self.columns)))

    def add(self, records: Records) -> None:
        """Take records whose major key is the score."""
        score = records.major.astype(np.float64)
        for at, column in enumerate(self.columns):
            values = column(score, records.pos, records.neg)
            self.sums[:, at] += np.bincount(records.cluster, values, minlength=len(self.sums))

    def of(self, column: RowColumn) -> Floats:
        """The sums of one column, (K,)."""
        return self.sums[:, self.columns.index(column)]


class GroupSums:
    """A figure of each group, averaged over the groups that have it: Σ_g w_g v_g and Σ_g w_g of each cluster.

    Args:
        figure: of a group.
        by_rows: w_g is the number of a group's rows; else each group counts once.
        clusters: K.
    """

    def __init__(self, figure: GroupFigure, *, by_rows: bool, clusters: int) -> None:
        self._figure, self._by_rows = figure, by_rows
        self.groups = self.groups_total = 0
        self.rows: float = 0
        self.weighted = np.zeros(clusters)
        self.weight = np.zeros(clusters)

    def add(self, records: Records) -> None:
        """Take whole groups: records sorted by (group, score), of which only the order and ties are used."""
        if len(records.major) == 0:
            return
        starts = run_starts(records.major)
        value = self._figure(starts, records.pos, records.neg)
        known = ~np.isnan(value)
        size = (np.add.reduceat(records.pos, starts) + np.add.reduceat(records.neg, starts))[known]
        cluster = records.cluster[starts][known]
        weight = size.astype(np.float64) if self._by_rows else np.ones(len(size))
        self.weighted += np.bincount(cluster, weight * value[known], minlength=len(self.weighted))
        self.weight += np.bincount(cluster, weight, minlength=len(self.weight))
        self.groups, self.groups_total = self.groups + int(known.sum()), self.groups_total + len(starts)
        self.rows += size.sum().item()
