"""Intervals that respect that rows of one user belong together: users are resampled, not rows.

K: clusters (users). D: bootstrap draws.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array

from ctr.metrics.records import Floats, Records, run_starts
from ctr.metrics.value import MetricValue, logit_interval, normal_interval

MIN_CLUSTERS = 10
_BLOCK = 2_048
_RANKED = 1_280  # rows whose ranks are drawn together


def draw_weights(clusters: int, draws: int, seed: int) -> NDArray[np.uint8]:
    """`poisson_weights` for this many clusters or some more: tables of like size share one that is kept."""
    return poisson_weights(1 << max(0, clusters - 1).bit_length(), draws, seed)


@lru_cache(maxsize=2)
def poisson_weights(clusters: int, draws: int, seed: int) -> NDArray[np.uint8]:
    """How often each cluster is drawn in each bootstrap sample: independent Poisson(1) counts, (K, D).

    Poisson counts instead of multinomial ones need no pass to count the users, and give a user the same
    weights in the whole table, in each slice and for another model, whatever the number of clusters.
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((clusters, draws), dtype=np.uint8)
    for start in range(0, clusters, _BLOCK):
        block = weights[start : start + _BLOCK]
        block[:] = rng.poisson(1.0, size=block.shape)
    weights.flags.writeable = False
    return weights


def weighted_totals(weights: NDArray[np.uint8], sums: Floats) -> Floats:
    """Totals of per-cluster sums in every draw: (K, D) and (K, C) to (D, C)."""
    used = np.flatnonzero(np.any(sums != 0, axis=1))
    totals = np.zeros((weights.shape[1], sums.shape[1]))
    for start in range(0, len(used), _BLOCK):
        rows = used[start : start + _BLOCK]
        totals += weights[rows].T.astype(np.float64) @ sums[rows]
    return totals


class AucDraws:
    """The AUC of every bootstrap draw from one walk over the records, exact, in O(K D) memory.

    With p_t the positives that a draw has at score t, and r_t twice their mid-rank among its negatives, twice
    the won pairs are Σ_t p_t r_t over the scores that have positives. From one such score to the next r grows
    by the negatives at either and by twice those between. So p and the growth of r are sums over few rows of
    whole numbers times weights: a sparse matrix of the rows' counts times the draws' weights, for a block of
    rows at a time.

    Args:
        weights: (K, D) counts of `poisson_weights`.
    """

    def __init__(self, weights: NDArray[np.uint8]) -> None:
        self._weights, self._most = weights, int(weights.max(initial=0))
        self._pos, self._neg, self._twice_wins = np.zeros((3, weights.shape[1]))

    def add(self, records: Records) -> None:
        """Take the next records, sorted by score; all scores lie above those taken before."""
        starts = run_starts(records.major)
        ends = np.append(starts[1:], len(records.major))
        first = 0
        while first < len(starts):
            last = max(first + 1, int(np.searchsorted(ends, starts[first] + _RANKED, side="right")))
            rows = slice(starts[first], ends[last - 1])
            block = Records(*(column[rows] for column in records))
            if len(block.major) > _RANKED:
                self._add_score(block)
            else:
                self._add_block(block, starts[first:last] - starts[first])
            first = last

    def _add_score(self, records: Records) -> None:
        """Take the records of one score, however many."""
        count = len(self._weights)
        counts = [np.bincount(records.cluster, rows, minlength=count) for rows in (records.pos, records.neg)]
        pos, neg = weighted_totals(self._weights, np.stack(counts, axis=1)).T
        self._count(pos, neg, pos * neg)

    def _add_block(self, records: Records, starts: NDArray[np.intp]) -> None:
        """Take the records of several scores, each of which begins at one of `starts`."""
        exact = self._exact(records)
        counts, scores = _pos_and_growth(records, starts, exact)
        p, r = np.split(counts @ self._weights[records.cluster].astype(exact), [scores])
        for below, at in pairwise(r):
            at += below
        twice_wins = np.einsum("td,td->d", p, r[:-1], dtype=np.float64)
        self._count(p.sum(axis=0, dtype=np.float64), r[-1] / 2.0, twice_wins)

    def _exact(self, records: Records) -> type[np.number[Any]]:
        """Two bytes hold every sum of a block, but where a record stands for many rows, or for weights."""
        if records.pos.dtype.kind == "f":
            return np.float64
        rows = int(records.pos.sum() + records.neg.sum())
        return np.int16 if 2 * rows * self._most < 2**15 else np.int64

    def _count(self, pos: Floats, neg: Floats, twice_wins: Floats) -> None:
        """Rows of each draw above all that were counted before, and twice the pairs won among them."""
        self._twice_wins += twice_wins + 2.0 * self._neg * pos
        self._pos += pos
        self._neg += neg

    def values(self) -> Floats:
        """The AUC of each draw, (D,); NaN where a draw has one class only."""
        pairs = self._pos * self._neg
        return np.divide(self._twice_wins / 2.0, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def _pos_and_growth(records: Records, starts: NDArray[np.intp], dtype: DTypeLike) -> tuple[csr_array, int]:
    """What each record adds, per drawn row, to the T scores with positives.

    Returns:
        The matrix (2 T + 1, n) to the positives at each of them, and then to the growth of twice the mid-rank
        up to each of them and up to the end; and T.
    """
    has_pos = np.add.reduceat(records.pos, starts) > 0
    score = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(records.major)))
    reached = np.cumsum(has_pos)  # scores with positives up to each score
    scores = int(reached[-1])
    pos, neg = np.flatnonzero(records.pos), np.flatnonzero(records.neg)
    # A negative counts once on the way to its own score and once beyond it, or twice between two scores.
    up_to, beyond = scores + (reached - has_pos)[score[neg]], scores + reached[score[neg]]
    row = np.concatenate([reached[score[pos]] - 1, up_to, beyond])
    order = np.argsort(row, kind="stable")
    ends = np.cumsum(np.bincount(row, minlength=2 * scores + 1))
    columns = np.concatenate([pos, neg, neg])[order]
    values = np.concatenate([records.pos[pos], records.neg[neg], records.neg[neg]])[order].astype(dtype)
    shape = (2 * scores + 1, len(records.major))
    return csr_array((values, columns, np.append(0, ends)), shape=shape), scores


def with_interval(
    metric: MetricValue, values: Floats, *, clusters: int, unit: str, bounded: bool
) -> MetricValue:
    """`metric` with the 95 % interval from the spread of its draws.

    The standard error over the draws is used, not their percentiles: 200 draws fix it to 5 %, while a 2.5 %
    percentile would rest on five of them.

    Args:
        metric: the figure on all rows.
        values: (D,) its draws; those that are not finite are left out, at most half may be.
        clusters: users that have rows here; fewer than 10 give no interval.
        unit: "user" or "request".
        bounded: the figure lies in [0, 1], so that the interval is made in log-odds.
    """
    if metric.value is None or len(values) == 0:
        return metric
    finite = values[np.isfinite(values)]
    if clusters < MIN_CLUSTERS:
        reason = f"no interval: {clusters} {unit}s are too few to resample (at least {MIN_CLUSTERS})"
        return replace(metric, reason=reason)
    if 2 * len(finite) < len(values) or len(finite) < 2:
        reason = f"no interval: the figure is undefined in {len(values) - len(finite)} of {len(values)} draws"
        return replace(metric, reason=reason)
    make = logit_interval if bounded else normal_interval
    return make(metric, float(np.std(finite, ddof=1)), f"{unit} bootstrap")
