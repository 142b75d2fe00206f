"""AUC with DeLong's variance, and AUC within users or requests, from sorted records.

P, N: rows with label 1 and 0. G: groups. n: records.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.metrics.records import Counts, Floats, Ints, Records, compress, run_starts
from ctr.metrics.value import MetricValue, logit_interval
from features.errors import DataError

SINGLE_CLASS = "only one class: {pos} rows with label 1 and {neg} with label 0; AUC needs both"


class Ties(NamedTuple):
    """Distinct scores in ascending order with the rows of each class that have them, (T,) each."""

    score: Floats
    pos: Counts
    neg: Counts


def ties_of(records: Records) -> Ties:
    """Add up the clusters of each score; `records` is sorted by score."""
    if len(records.major) == 0:
        return Ties(records.major.astype(np.float64), records.pos, records.neg)
    starts = run_starts(records.major)
    score = records.major[starts].astype(np.float64)
    return Ties(score, np.add.reduceat(records.pos, starts), np.add.reduceat(records.neg, starts))


def twice_midrank(others: Counts, below: float) -> Counts:
    """Twice the mid-rank of each score among rows of the other class: 2 · (those below) + (those tied), (T,).

    Args:
        others: (T,) rows of the other class with each score, ascending.
        below: those with a score below all of these.
    """
    return 2 * (below + np.cumsum(others) - others) + others


class RankSums:
    """AUC and its DeLong variance from one walk over the ties, in O(1) memory.

    With a_i = negatives below positive i plus half of those tied with it, and b_j the same for a negative j
    among the positives: AUC = Σ a_i / (P N), Var = var(a / N) / P + var(b / P) / N. Sums of a, a² and b²
    suffice.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988), section 2; Sun and Xu, IEEE Signal
    Processing Letters 21 (2014), for O(n log n) by mid-ranks.
    """

    def __init__(self) -> None:
        self.pos: float = 0
        self.neg: float = 0
        self._twice_wins: float = 0
        self._pos_squares = 0.0
        self._neg_squares = 0.0

    def add(self, ties: Ties) -> None:
        """Take the next ties; all scores lie above those taken before."""
        twice_a, twice_b = twice_midrank(ties.neg, self.neg), twice_midrank(ties.pos, self.pos)
        self._twice_wins += (ties.pos @ twice_a).item()
        self._pos_squares += float(ties.pos @ np.square(0.5 * twice_a))
        self._neg_squares += float(ties.neg @ np.square(0.5 * twice_b))
        self.pos += ties.pos.sum().item()
        self.neg += ties.neg.sum().item()

    def auc(self) -> MetricValue:
        """The AUC without interval."""
        rows = round(self.pos + self.neg)
        if self.pos == 0 or self.neg == 0:
            return MetricValue(value=None, reason=SINGLE_CLASS.format(pos=self.pos, neg=self.neg), n=rows)
        return MetricValue(value=self._twice_wins / (2 * self.pos * self.neg), n=rows)

    def delong(self) -> MetricValue:
        """The AUC with DeLong's interval, which takes rows as independent and of equal weight."""
        metric = self.auc()
        if metric.value is None:
            return metric
        if isinstance(self.pos, float):
            return replace(metric, reason="no interval: DeLong takes rows of equal weight")
        if min(self.pos, self.neg) < 2:
            return replace(metric, reason="no interval: DeLong needs two rows of each class")
        var_pos = self._pos_squares / (self.pos * self.neg**2) - metric.value**2
        var_neg = self._neg_squares / (self.neg * self.pos**2) - (1.0 - metric.value) ** 2
        variance = max(var_pos, 0.0) / (self.pos - 1) + max(var_neg, 0.0) / (self.neg - 1)
        return logit_interval(metric, math.sqrt(variance), "DeLong")


def auc(label: ArrayLike, score: ArrayLike) -> MetricValue:
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


def auc_in_groups(starts: NDArray[np.intp], pos: Counts, neg: Counts) -> Floats:
    """The AUC within each group, (G,); NaN for a group of one class.

    Args:
        starts: (G,) first record of each group.
        pos, neg: (n,) rows of each class with equal scores, in ascending order of the score within a group.
    """
    below = np.cumsum(neg) - neg
    below -= np.repeat(below[starts], np.diff(starts, append=len(below)))
    pairs = np.add.reduceat(pos, starts) * np.add.reduceat(neg, starts)
    twice_wins = np.add.reduceat(pos * (2 * below + neg), starts)
    return np.divide(twice_wins, 2 * pairs, out=np.full(len(starts), np.nan), where=pairs > 0)


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


def check_weights(weight: ArrayLike, label: Floats, *, row_id: Ints | None = None, offset: int = 0) -> Floats:
    """The weights of rows as float64.

    Raises:
        DataError: not one for each row, or one that is negative or not finite.
    """
    weights = np.asarray(weight, dtype=np.float64)
    if weights.shape != label.shape:
        raise DataError(f"weight must have the {len(label)} rows of label, got {weights.shape}")
    ids = np.arange(offset, offset + len(label)) if row_id is None else row_id
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    name = "position" if row_id is None else "row_id"
    _refuse(weights, wrong, "weight must be a finite number ≥ 0", ids, name, "mend or drop these rows")
    return weights


def _refuse(values: Floats, wrong: np.ndarray, must: str, ids: np.ndarray, name: str, hint: str) -> None:
    if not wrong.any():
        return
    at = np.flatnonzero(wrong)
    first = ", ".join(f"{values[i]:g} at {name} {ids[i]}" for i in at[:5])
    raise DataError(f"{must}, got {len(at)} other values of {len(values)}, first {first}; {hint}")
