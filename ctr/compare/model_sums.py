"""The sums per cluster of one model, collected part by part.

K: clusters. n: rows of a part.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.compare.sums import COLUMNS, INFLUENCE, PROBABILITY, REQUESTS, USERS, ClusterSums
from ctr.metrics.calibration import ProbabilitySums
from ctr.metrics.ranking import GroupedAuc
from ctr.metrics.records import Floats, Ints, Records, run_starts

_THREADED_ROWS = 100_000
_RANK_BITS = 31  # a part has fewer rows: a group's code, a rank and a label fit into 63 bits


class ModelSums:
    """Collects one model's sums.

    Args:
        clusters: K.
        pos, neg: rows of each class that will come.
    """

    def __init__(self, clusters: int, pos: int, neg: int) -> None:
        self._clusters, self._pos, self._neg = clusters, pos, neg
        self._probability = ProbabilitySums(clusters)
        self.grouped = {
            "user": GroupedAuc(by_rows=True, clusters=clusters),
            "request": GroupedAuc(by_rows=False, clusters=clusters),
        }
        self._places = np.zeros((2, clusters))

    def add_scores(self, label: NDArray[np.int8], cluster: Ints, score: Floats) -> None:
        """Take rows for log loss and NE."""
        pos = label.astype(np.int64)
        self._probability.add(Records(score, cluster, cluster, pos, 1 - pos))

    def add_places(self, label: NDArray[np.int8], cluster: NDArray[Any], twice: Ints) -> None:
        """Take rows for the AUC, with their places from `Placer`."""
        for kind in (0, 1):
            rows = label == kind
            self._places[kind] += np.bincount(cluster[rows], twice[rows], minlength=self._clusters)

    def _influence(self) -> tuple[float, Floats]:
        """The AUC, and what each cluster adds to it: Σ_i (a_i − AUC) / P + Σ_j (1 − b_j − AUC) / N over its
        rows.

        Sums of places are whole numbers below 2 P N, exact in float64 for 100 million rows.
        """
        if not self._pos or not self._neg:
            return math.nan, np.zeros(self._clusters)
        pos = self._probability.sums[:, 2]
        neg = self._probability.sums[:, 3] - pos
        auc = float(self._places[1].sum() / (2.0 * self._pos * self._neg))
        from_pos = self._places[1] / (2.0 * self._neg) - auc * pos
        from_neg = (1.0 - auc) * neg - self._places[0] / (2.0 * self._pos)
        return auc, from_pos / self._pos + from_neg / self._neg

    def result(self, keys: NDArray[np.uint16]) -> ClusterSums:
        """Everything so far; `keys` are the clusters, (K,)."""
        values = np.zeros((self._clusters, COLUMNS))
        values[:, PROBABILITY] = self._probability.sums
        auc, values[:, INFLUENCE] = self._influence()
        for columns, key in ((USERS, "user"), (REQUESTS, "request")):
            values[:, columns] = np.stack([self.grouped[key].weighted, self.grouped[key].weight], axis=1)
        return ClusterSums(keys=keys, values=values, auc=auc)


def add_groups(
    sums: Sequence[ModelSums],
    label: NDArray[np.int8],
    cluster: Ints,
    scores: Sequence[Floats],
    codes: Mapping[str, NDArray[np.uint64]],
) -> None:
    """Give every model the rows of whole clusters, for all that needs no order over all rows.

    Args:
        sums: of each model.
        label, cluster: (n,).
        scores: (n,) for each model.
        codes: "user" and "request" where known → (n,) codes.
    """
    groups = {}
    for key, values in codes.items():
        distinct, code = np.unique(values, return_inverse=True)
        cluster_of = np.zeros(len(distinct), dtype=np.int64)
        cluster_of[code] = cluster
        groups[key] = (code.astype(np.int64) << (_RANK_BITS + 1), cluster_of)

    def add(model: ModelSums, score: Floats) -> None:
        model.add_scores(label, cluster, score)
        below = (_ranks(score) << 1) | label
        for key, (code, cluster_of) in groups.items():
            model.grouped[key].add(_sorted_records(code | below, cluster_of))

    # NumPy's sorts let go of the interpreter's lock: as many models at a time as there are cores.
    threads = min(len(sums), os.cpu_count() or 1) if len(label) >= _THREADED_ROWS else 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, sums, scores))


def _ranks(score: Floats) -> Ints:
    """The place of each score among the distinct scores, (n,)."""
    order = np.argsort(score)
    ordered = score[order]
    ranks = np.empty(len(score), dtype=np.int64)
    ranks[order] = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
    return ranks


def _sorted_records(packed: Ints, cluster_of: Ints) -> Records:
    """Rows sorted by (group, score), equal ones counted once; a number holds group, rank and label."""
    packed.sort()
    key = packed >> 1
    starts = run_starts(key)
    pos = np.add.reduceat(packed & 1, starts)
    group = key[starts] >> _RANK_BITS
    rows = np.diff(starts, append=len(key))
    return Records(group, key[starts], cluster_of[group], pos, rows - pos)
