"""The covariance of two correlated AUCs, rows taken as independent.

P, N: rows with label 1 and 0. T: distinct scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.metrics.ranking import check_rows, twice_midrank
from ctr.metrics.records import Floats, Ints, run_starts


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """Two AUCs on the same rows and what DeLong says of their errors; NaN where undefined.

    Args:
        auc: of base and variant.
        variance: of each.
        covariance: between them.
        se: standard error of the difference.
    """

    auc: tuple[float, float]
    variance: tuple[float, float]
    covariance: float
    se: float


class MidRanks:
    """Mid-ranks of rows among the rows of the other class, for scores that arrive in ascending parts."""

    def __init__(self) -> None:
        self.pos = self.neg = 0

    def twice(self, label: NDArray[np.int8], score: Floats) -> Ints:
        """Twice the mid-rank of each row among the other class: 2 · (rows below) + (rows tied with it).

        Args:
            label: (n,) 0 or 1.
            score: (n,) in any order; all lie above the scores of earlier calls.
        """
        if len(score) == 0:
            return np.zeros(0, dtype=np.int64)
        order = np.argsort(score)
        labels = label[order].astype(np.int64)
        starts = run_starts(score[order])
        rows = np.diff(starts, append=len(order))
        pos = np.add.reduceat(labels, starts)
        neg = rows - pos
        among_neg, among_pos = twice_midrank(neg, self.neg), twice_midrank(pos, self.pos)
        twice = np.empty(len(order), dtype=np.int64)
        twice[order] = np.where(labels == 1, np.repeat(among_neg, rows), np.repeat(among_pos, rows))
        self.pos, self.neg = self.pos + int(pos.sum()), self.neg + int(neg.sum())
        return twice


class DeLongSums:
    """Sums over rows from which the covariance of two AUCs follows.

    With a_i the share of negatives below positive i in the base (ties count half) and a'_i in the variant,
    and b_j, b'_j the shares of positives below negative j:
    Cov = cov(a, a') / P + cov(b, b') / N, Var(AUC' − AUC) = var(a' − a) / P + var(b' − b) / N.

    The squares of the differences are summed themselves: two near models differ by less than their variances
    round off.

    Args:
        pos, neg: P and N of all rows that will come.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988), section 2; Sun and Xu, IEEE Signal
    Processing Letters 21 (2014), for O(n log n) by mid-ranks.
    """

    def __init__(self, *, pos: int, neg: int) -> None:
        self._rows, self._others = np.array([neg, pos]), np.array([pos, neg])
        self._sums = np.zeros((2, 2, 3))  # class, power − 1, (base, variant, variant − base)

    def add(self, label: NDArray[np.int8], base: Ints, variant: Ints) -> None:
        """Take rows with their mid-ranks from `MidRanks`, (n,) each."""
        for kind in (0, 1):
            rows = label == kind
            scale = 1.0 / (2.0 * max(1, self._others[kind]))
            a, b = base[rows] * scale, variant[rows] * scale
            for column, values in enumerate((a, b, (variant[rows] - base[rows]) * scale)):
                self._sums[kind, :, column] += values.sum(), values @ values

    def result(self) -> DeLong:
        """AUCs, variances and covariance; NaN where a class has no rows (AUC) or one (variance)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self._sums[:, 0] / self._rows[:, None]
            spread = np.maximum(self._sums[:, 1] - mean * self._sums[:, 0], 0.0)
            base, variant, difference = (spread / (self._rows * (self._rows - 1.0))[:, None]).sum(axis=0)
        auc = mean[1] if self._rows[0] else np.full(3, math.nan)
        return DeLong(
            auc=(float(auc[0]), float(auc[1])),
            variance=(float(base), float(variant)),
            covariance=float((base + variant - difference) / 2.0),
            se=float(np.sqrt(difference)),
        )


def delong(label: ArrayLike, base: ArrayLike, variant: ArrayLike) -> DeLong:
    """Compare the AUCs of two scores of the same rows; see `DeLongSums`.

    Args:
        label: (n,) 0 or 1.
        base, variant: (n,) any finite numbers.

    Raises:
        DataError: a label other than 0 and 1, a score that is not finite, or lengths that differ.

    Example:
        >>> result = delong([0, 0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8, 0.9], [0.3, 0.2, 0.5, 0.1, 0.6])
        >>> [round(x, 3) for x in (*result.auc, result.covariance, result.se)]
        [0.833, 0.667, -0.028, 0.471]
    """
    labels = np.asarray(label, dtype=np.float64)
    scores = [np.asarray(score, dtype=np.float64) for score in (base, variant)]
    for score in scores:
        check_rows(labels, score)
    kinds = labels.astype(np.int8)
    pos = int(kinds.sum())
    sums = DeLongSums(pos=pos, neg=len(kinds) - pos)
    sums.add(kinds, *(MidRanks().twice(kinds, score) for score in scores))
    return sums.result()
