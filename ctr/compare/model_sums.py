"""The sums per cluster of one model, collected part by part.

K: clusters. n: rows of a part.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ctr.compare.sums import ClusterSums
from ctr.metrics.bootstrap import AucDraws, draw_weights
from ctr.metrics.computation import GroupMean
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import RankSums, ties_of
from ctr.metrics.records import Counts, Floats, Ints, Records, run_starts
from ctr.metrics.sums import RowTotals
from ctr.metrics.walk import row_columns

_THREADED_ROWS = 100_000
_RANK_BITS = 31  # a part has fewer rows: a group's code, a rank and a label fit into 63 bits


class ModelSums:
    """Collects one model's sums.

    Args:
        metrics: that will be compared.
        clusters: above every number of a cluster.
        draws, seed: of the bootstrap.
    """

    def __init__(self, metrics: Collection[Metric], *, clusters: int, draws: int, seed: int) -> None:
        weights = draw_weights(clusters, draws, seed)
        self._seed = seed
        self._rows = RowTotals(len(weights), row_columns(metrics))
        computations = [m.computation for m in metrics]
        self._groups = {c: c.sums(len(weights)) for c in computations if isinstance(c, GroupMean)}
        self._ranks, self._auc_draws = RankSums(), AucDraws(weights)

    def add_scores(
        self, label: NDArray[np.int8], cluster: Ints, score: Floats, weight: Floats | None = None
    ) -> None:
        """Take rows for what is summed over rows."""
        self._rows.add(Records(score, cluster, cluster, *_classes(label, weight)))

    def add_groups(self, group: str, records: Records) -> None:
        """Take whole users or requests, sorted by (group, score)."""
        for computation, sums in self._groups.items():
            if computation.group == group:
                sums.add(records)

    def add_sorted(
        self,
        label: NDArray[np.int8],
        cluster: NDArray[np.uint16],
        score: Floats,
        weight: Floats | None = None,
    ) -> None:
        """Take rows for the AUC, sorted by score; all scores lie above those taken before."""
        of = cluster.astype(np.int64)
        records = Records(score, of, of, *_classes(label, weight))
        self._ranks.add(ties_of(records))
        self._auc_draws.add(records)

    def result(self) -> ClusterSums:
        """Everything so far."""
        found: dict[Hashable, Floats] = dict(zip(self._rows.columns, self._rows.sums.T, strict=True))
        for computation, sums in self._groups.items():
            found |= dict(zip(computation.columns, (sums.weighted, sums.weight), strict=True))
        values = np.stack(list(found.values()), axis=1)
        auc = self._ranks.auc().value
        return ClusterSums(
            columns=tuple(found),
            values=values,
            auc=math.nan if auc is None else auc,
            auc_draws=self._auc_draws.values(),
            seed=self._seed,
        )


def add_groups(
    sums: Sequence[ModelSums],
    label: NDArray[np.int8],
    cluster: Ints,
    scores: Sequence[Floats],
    codes: Mapping[str, NDArray[np.uint64]],
    weight: Floats | None = None,
) -> None:
    """Give every model the rows of whole clusters, for all that needs no order over all rows.

    Args:
        sums: of each model.
        label, cluster: (n,).
        scores: (n,) for each model.
        codes: "user" and "request" where known → (n,) codes.
        weight: (n,) where rows have them.
    """
    groups = {}
    for key, values in codes.items():
        distinct, code = np.unique(values, return_inverse=True)
        cluster_of = np.zeros(len(distinct), dtype=np.int64)
        cluster_of[code] = cluster
        groups[key] = (code.astype(np.int64) << (_RANK_BITS + 1), cluster_of)

    def add(model: ModelSums, score: Floats) -> None:
        model.add_scores(label, cluster, score, weight)
        below = (_ranks(score) << 1) | label
        for key, (code, cluster_of) in groups.items():
            model.add_groups(key, _sorted_records(code | below, cluster_of, weight))

    # NumPy's sorts let go of the interpreter's lock: as many models at a time as there are cores.
    threads = min(len(sums), os.cpu_count() or 1) if len(label) >= _THREADED_ROWS else 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(add, sums, scores))


def _ranks(score: Floats) -> Ints:
    """The rank of each score among the distinct scores, (n,)."""
    order = np.argsort(score)
    ordered = score[order]
    ranks = np.empty(len(score), dtype=np.int64)
    ranks[order] = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
    return ranks


def _classes(label: NDArray[np.int8], weight: Floats | None) -> tuple[Counts, Counts]:
    """What each row counts as one of label 1, and as one of label 0."""
    pos = label.astype(np.int64)
    return (pos, 1 - pos) if weight is None else (weight * pos, weight * (1 - pos))


def _sorted_records(packed: Ints, cluster_of: Ints, weight: Floats | None) -> Records:
    """Rows sorted by (group, score), equal ones together; a number holds group, rank and label."""
    if weight is None:
        packed.sort()
    else:
        order = np.argsort(packed)
        packed, weight = packed[order], weight[order]
    key = packed >> 1
    starts = run_starts(key)
    group = key[starts] >> _RANK_BITS
    if weight is not None:
        pos, neg = (np.add.reduceat(own, starts) for own in _classes(packed & 1, weight))
        return Records(group, key[starts], cluster_of[group], pos, neg)
    ones, rows = np.add.reduceat(packed & 1, starts), np.diff(starts, append=len(key))
    return Records(group, key[starts], cluster_of[group], ones, rows - ones)
