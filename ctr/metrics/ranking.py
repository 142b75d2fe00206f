"""AUC with DeLong's variance, and AUC within users or requests, from sorted records.

P, N: rows with label 1 and 0. K: clusters that are resampled together.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctr.metrics.metric import Metric, logit_interval
from ctr.metrics.records import Floats, Ints, Records, compress, run_starts
from features.errors import DataError

SINGLE_CLASS = "only one class: {pos} rows with label 1 and {neg} with label 0; AUC needs both"


class Ties(NamedTuple):
    """Distinct scores in ascending order with the rows of each class that have them, (T,) each."""

    score: Floats
    pos: Ints
    neg: Ints


def ties_of(records: Records) -> Ties:
    """Add up the clusters of each score; `records` is sorted by score."""
    if len(records.major) == 0:
        return Ties(records.major.astype(np.float64), records.pos, records.neg)
    starts = run_starts(records.major)
    score = records.major[starts].astype(np.float64)
    return Ties(score, np.add.reduceat(records.pos, starts), np.add.reduceat(records.neg, starts))


class RankSums:
    """AUC and its DeLong variance from one walk over the ties, in O(1) memory.

    With a_i = negatives below positive i plus half of those tied with it, and b_j the same for a negative j
    among the positives: AUC = Σ a_i / (P N), Var = var(a / N) / P + var(b / P) / N. Sums of a, a² and b²
    suffice.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988), section 2; Sun and Xu, IEEE Signal
    Processing
    Letters 21 (2014), for O(n log n) by mid-ranks.
    """

    def __init__(self) -> None:
        self.pos = 0
        self.neg = 0
        self._twice_wins = 0
        self._pos_squares = 0.0
        self._neg_squares = 0.0

    def add(self, ties: Ties) -> None:
        """Take the next ties; all scores lie above those taken before."""
        twice_a = 2 * (self.neg + np.cumsum(ties.neg) - ties.neg) + ties.neg
        twice_b = 2 * (self.pos + np.cumsum(ties.pos) - ties.pos) + ties.pos
        self._twice_wins += int(ties.pos @ twice_a)
        self._pos_squares += float(ties.pos @ np.square(0.5 * twice_a))
        self._neg_squares += float(ties.neg @ np.square(0.5 * twice_b))
        self.pos += int(ties.pos.sum())
        self.neg += int(ties.neg.sum())

    def auc(self) -> Metric:
        """The AUC without interval."""
        rows = self.pos + self.neg
        if self.pos == 0 or self.neg == 0:
            return Metric(value=None, reason=SINGLE_CLASS.format(pos=self.pos, neg=self.neg), n=rows)
        return Metric(value=self._twice_wins / (2 * self.pos * self.neg), n=rows)

    def delong(self) -> Metric:
        """The AUC with DeLong's interval, which takes rows as independent."""
        metric = self.auc()
        if metric.value is None:
            return metric
        if min(self.pos, self.neg) < 2:
            return replace(metric, reason="no interval: DeLong needs two rows of each class")
        var_pos = self._pos_squares / (self.pos * self.neg**2) - metric.value**2
        var_neg = self._neg_squares / (self.neg * self.pos**2) - (1.0 - metric.value) ** 2
        variance = max(var_pos, 0.0) / (self.pos - 1) + max(var_neg, 0.0) / (self.neg - 1)
        return logit_interval(metric, math.sqrt(variance), "DeLong")


def auc(label: ArrayLike, score: ArrayLike) -> Metric:
    """Area under the ROC curve, P(positive above negative) + ½ P(equal score), with DeLong's interval.

    Args:
        label: (n,) 0 or 1.
        score: (n,) any finite number; larger means more likely 1.

    Raises:
        DataError: a label other than 0 and 1, or a score that is not finite.

    Example:
        >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8]).value
        0.875
        >>> auc([1, 1], [0.1, 0.2]).reason
        'only one class: 2 rows with label 1 and 0 with label 0; AUC needs both'
    """
    labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    check_rows(labels, scores)
    zeros = np.zeros(len(labels), dtype=np.int64)
    pos = labels.astype(np.int64)
    sums = RankSums()
    sums.add(ties_of(compress(Records(scores, zeros, zeros, pos, 1 - pos))))
    return sums.delong()


class GroupedAuc:
    """AUC within each group, averaged over the groups that have both classes.

    GAUC = Σ_g n_g AUC_g / Σ_g n_g over users g with n_g impressions; query AUC = mean_r AUC_r over requests
    r. Sums are kept per cluster, so that whole users can be resampled.

    Args:
        by_rows: weight a group by its impressions (GAUC); else each group counts once (query AUC).
        clusters: K.
    """

    def __init__(self, *, by_rows: bool, clusters: int) -> None:
        self._by_rows = by_rows
        self.groups = self.groups_total = self.rows = 0
        self.weighted = np.zeros(clusters)
        self.weight = np.zeros(clusters)

    def add(self, records: Records) -> None:
        """Take whole groups: records sorted by (group, score)."""
        if len(records.major) == 0:
            return
        starts = run_starts(records.major)
        below = np.cumsum(records.neg) - records.neg
        below -= np.repeat(below[starts], np.diff(starts, append=len(below)))
        pos, neg = np.add.reduceat(records.pos, starts), np.add.reduceat(records.neg, starts)
        twice_wins = np.add.reduceat(records.pos * (2 * below + records.neg), starts)
        both = (pos > 0) & (neg > 0)
        rows, cluster = (pos + neg)[both], records.cluster[starts][both]
        weight = rows.astype(np.float64) if self._by_rows else np.ones(len(rows))
        value = twice_wins[both] / (2 * pos[both] * neg[both])
        self.weighted += np.bincount(cluster, weight * value, minlength=len(self.weighted))
        self.weight += np.bincount(cluster, weight, minlength=len(self.weight))
        self.groups, self.groups_total = self.groups + int(both.sum()), self.groups_total + len(starts)
        self.rows += int(rows.sum())

    def metric(self, what: str) -> Metric:
        """The average without interval; `what` names the groups in the reason."""
        counted = Metric(value=None, n=self.rows, groups=self.groups, groups_total=self.groups_total)
        if not self.groups:
            reason = f"none of the {self.groups_total} {what} has rows of both classes"
            return replace(counted, reason=reason)
        return replace(counted, value=float(self.weighted.sum() / self.weight.sum()))


def check_rows(
    label: Floats, score: Floats, *, row_id: Ints | None = None, offset: int = 0, probability: bool = False
) -> None:
    """Refuse labels other than 0 and 1 and scores that are not finite (or no probabilities).

    Raises:
        DataError: with the count, the first five row ids (or positions) and their values.
    """
    if label.ndim != 1 or label.shape != score.shape:
        raise DataError(f"label and score must be vectors of one length, got {label.shape} and {score.shape}")
    ids = np.arange(offset, offset + len(label)) if row_id is None else row_id
    name = "position" if row_id is None else "row_id"
    _refuse(label, (label != 0) & (label != 1), "label must be 0 or 1", ids, name, "mend or drop these rows")
    hint = "look for non-finite features or a diverged model"
    _refuse(score, ~np.isfinite(score), "score must be finite", ids, name, hint)
    if probability:
        outside = (score < 0) | (score > 1)
        _refuse(
            score, outside, "score must be a probability in [0, 1]", ids, name, "apply the sigmoid to logits"
        )


def _refuse(values: Floats, wrong: np.ndarray, must: str, ids: np.ndarray, name: str, hint: str) -> None:
    if not wrong.any():
        return
    at = np.flatnonzero(wrong)
    first = ", ".join(f"{values[i]:g} at {name} {ids[i]}" for i in at[:5])
    raise DataError(f"{must}, got {len(at)} other values of {len(values)}, first {first}; {hint}")
