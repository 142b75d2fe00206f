"""The curves of a report, and ECE from its bins, from one walk in the order of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.metrics.ranking import Ties
from ctr.metrics.records import Counts, Floats, Ints
from ctr.metrics.value import MetricValue

ECE_BINS = 20
ROC_POINTS = 1_000
HISTOGRAM_BINS = 1_000


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a report draws; every array is small whatever the number of rows.

    Args:
        fpr, tpr: at most 1,001 points of the ROC curve, ascending, from (0, 0) to (1, 1).
        bin_score, bin_label, bin_rows: mean score, mean label and rows of the filled equal-mass bins.
        hist_pos, hist_neg: (1000,) rows of each class by score, in equal steps of [0, 1].

    Of rows with weights all of these count what rows weigh.
    """

    fpr: Floats
    tpr: Floats
    bin_score: Floats
    bin_label: Floats
    bin_rows: Ints
    hist_pos: Counts
    hist_neg: Counts


class CurveSums:
    """Collects ROC points, reliability bins and score histograms.

    A row belongs to the bin of its mid-rank, so that equal scores share a bin whatever the order of rows.

    Args:
        pos, neg: rows of each class that will come, or, as float, what they weigh.
    """

    def __init__(self, *, pos: float, neg: float) -> None:
        self._pos, self._neg = pos, neg
        counts = np.int64 if isinstance(pos, int) else np.float64
        self._seen: Counts = np.zeros(2, dtype=counts)
        self._roc: Counts = np.full((ROC_POINTS + 1, 2), -1, dtype=counts)
        self._bins = np.zeros((ECE_BINS, 3))
        self._histogram: Counts = np.zeros((2, HISTOGRAM_BINS), dtype=counts)

    def add(self, ties: Ties) -> None:
        """Take the next ties; all scores lie above those taken before."""
        rows = ties.pos + ties.neg
        through = np.cumsum(np.stack([ties.pos, ties.neg], axis=1), axis=0) + self._seen
        seen, total = through.sum(axis=1), self._pos + self._neg
        # Sums of weights may round up to the total, or beyond it.
        middle = _steps((2 * seen - rows) * ECE_BINS // (2 * total), below=ECE_BINS)
        for column, values in enumerate((rows * ties.score, ties.pos, rows)):
            self._bins[:, column] += np.bincount(middle, values, minlength=ECE_BINS)
        self._roc[_steps(seen * ROC_POINTS // total, below=ROC_POINTS + 1)] = through
        step = np.minimum((ties.score * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
        for row, counts in zip(self._histogram, (ties.pos, ties.neg), strict=True):
            np.add.at(row, step, counts)
        if len(rows):
            self._seen = through[-1]

    def ece(self) -> MetricValue:
        """Expected calibration error: Σ_b n_b |mean score_b − mean label_b| / n over 20 bins of equal mass.

        It has no interval: noise alone makes it positive, so an interval around it would mislead.
        """
        rows = self._bins[:, 2].sum()
        if rows == 0:
            return MetricValue(value=None, reason="no rows")
        gap = float(np.abs(self._bins[:, 0] - self._bins[:, 1]).sum() / rows)
        return MetricValue(value=gap, n=round(rows))

    def curves(self) -> Curves:
        """The collected curves."""
        kept = np.concatenate([[[0, 0]], self._roc[self._roc[:, 0] >= 0]])
        above = np.array([self._pos, self._neg]) - kept[::-1]
        rates = above / [n if n > 0 else 1 for n in (self._pos, self._neg)]
        filled = self._bins[self._bins[:, 2] > 0]
        return Curves(
            fpr=rates[:, 1],
            tpr=rates[:, 0],
            bin_score=filled[:, 0] / filled[:, 2],
            bin_label=filled[:, 1] / filled[:, 2],
            bin_rows=np.rint(filled[:, 2]).astype(np.int64),
            hist_pos=self._histogram[0],
            hist_neg=self._histogram[1],
        )


def _steps(values: Counts, *, below: int) -> Ints:
    """Whole numbers, the largest of which is below a bound."""
    found: Ints = np.minimum(values, below - 1).astype(np.int64)
    return found
