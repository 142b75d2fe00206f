"""Log loss, NE, calibration and ECE, and the curves of a report, from one walk in the order of the score.

K: clusters. D: bootstrap draws. T: distinct scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.metrics.metric import Metric
from ctr.metrics.ranking import Ties
from ctr.metrics.records import Floats, Ints, Records

ECE_BINS = 20
ROC_POINTS = 1_000
HISTOGRAM_BINS = 1_000
_LOSS, _SCORE, _POS, _ROWS = range(4)


class ProbabilitySums:
    """Sums per cluster from which log loss, NE and calibration follow, overall and in each bootstrap draw.

    Args:
        clusters: K.
    """

    def __init__(self, clusters: int) -> None:
        self.sums = np.zeros((clusters, 4))

    def add(self, records: Records) -> None:
        """Take records whose major key is the score."""
        score = records.major.astype(np.float64)
        eps = np.finfo(np.float64).eps
        clipped = np.clip(score, eps, 1.0 - eps)
        rows = records.pos + records.neg
        loss = -(records.pos * np.log(clipped) + records.neg * np.log1p(-clipped))
        for column, values in enumerate((loss, rows * score, records.pos, rows)):
            self.sums[:, column] += np.bincount(records.cluster, values, minlength=len(self.sums))

    def metrics(self) -> dict[str, Metric]:
        """Log loss, NE and calibration without intervals.

        log_loss = −mean(y ln p + (1 − y) ln(1 − p)), with p kept one float64 epsilon inside (0, 1);
        ne = log_loss / entropy(mean y), so 1 is what the base rate alone gives;
        calibration = mean p / mean y, so 1 is right and above 1 is too high.

        Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook (2014), section 3.
        """
        totals = self.sums.sum(axis=0)
        rows, pos = round(totals[_ROWS]), round(totals[_POS])
        if rows == 0:
            return {name: Metric(value=None, reason="no rows") for name in ("log_loss", "ne", "calibration")}
        figures = {name: float(values[0]) for name, values in figures_of(totals[None]).items()}
        reasons = {
            "log_loss": None,
            "ne": None if 0 < pos < rows else f"only one class: {pos} of {rows} labels are 1",
            "calibration": None if pos else f"none of the {rows} labels is 1",
        }
        return {
            name: Metric(value=None if reason else figures[name], reason=reason, n=rows)
            for name, reason in reasons.items()
        }


def figures_of(totals: Floats) -> dict[str, Floats]:
    """Log loss, NE and calibration of each row of totals (D, 4); NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        loss, rate = totals[:, _LOSS] / totals[:, _ROWS], totals[:, _POS] / totals[:, _ROWS]
        entropy = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
        return {"log_loss": loss, "ne": loss / entropy, "calibration": totals[:, _SCORE] / totals[:, _POS]}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a report draws; every array is small whatever the number of rows.

    Args:
        fpr, tpr: at most 1,001 points of the ROC curve, ascending, from (0, 0) to (1, 1).
        bin_score, bin_label, bin_rows: mean score, mean label and rows of the filled equal-mass bins.
        hist_pos, hist_neg: (1000,) rows of each class by score, in equal steps of [0, 1].
    """

    fpr: Floats
    tpr: Floats
    bin_score: Floats
    bin_label: Floats
    bin_rows: Ints
    hist_pos: Ints
    hist_neg: Ints


class CurveSums:
    """Collects ROC points, reliability bins and score histograms.

    A row belongs to the bin of its mid-rank, so that equal scores share a bin whatever the order of rows.

    Args:
        pos, neg: rows of each class that will come.
    """

    def __init__(self, *, pos: int, neg: int) -> None:
        self._pos, self._neg = pos, neg
        self._seen = np.zeros(2, dtype=np.int64)
        self._roc = np.full((ROC_POINTS + 1, 2), -1, dtype=np.int64)
        self._bins = np.zeros((ECE_BINS, 3))
        self._histogram = np.zeros((2, HISTOGRAM_BINS), dtype=np.int64)

    def add(self, ties: Ties) -> None:
        """Take the next ties; all scores lie above those taken before."""
        rows = ties.pos + ties.neg
        through = np.cumsum(np.stack([ties.pos, ties.neg], axis=1), axis=0) + self._seen
        seen, total = through.sum(axis=1), self._pos + self._neg
        middle = ((2 * seen - rows) * ECE_BINS) // (2 * total)
        for column, values in enumerate((rows * ties.score, ties.pos, rows)):
            self._bins[:, column] += np.bincount(middle, values, minlength=ECE_BINS)
        self._roc[seen * ROC_POINTS // total] = through
        step = np.minimum((ties.score * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
        for row, counts in zip(self._histogram, (ties.pos, ties.neg), strict=True):
            np.add.at(row, step, counts)
        if len(rows):
            self._seen = through[-1]

    def ece(self) -> Metric:
        """Expected calibration error: Σ_b n_b |mean score_b − mean label_b| / n over 20 bins of equal mass.

        It has no interval: noise alone makes it positive, so an interval around it would mislead.
        """
        rows = round(self._bins[:, 2].sum())
        if rows == 0:
            return Metric(value=None, reason="no rows")
        return Metric(value=float(np.abs(self._bins[:, 0] - self._bins[:, 1]).sum() / rows), n=rows)

    def curves(self) -> Curves:
        """The collected curves."""
        kept = np.concatenate([[[0, 0]], self._roc[self._roc[:, 0] >= 0]])
        above = np.array([self._pos, self._neg]) - kept[::-1]
        rates = above / np.maximum([self._pos, self._neg], 1)
        filled = self._bins[self._bins[:, 2] > 0]
        return Curves(
            fpr=rates[:, 1],
            tpr=rates[:, 0],
            bin_score=filled[:, 0] / filled[:, 2],
            bin_label=filled[:, 1] / filled[:, 2],
            bin_rows=filled[:, 2].astype(np.int64),
            hist_pos=self._histogram[0],
            hist_neg=self._histogram[1],
        )
