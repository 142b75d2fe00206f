"""Base and variants on the same rows, fed in pieces, reduced to sums per cluster in bounded memory.

All figures are exact. Rows beyond `chunk_rows` wait in files of a temporary directory (about 20 + 8 (V + 1)
bytes a row for V variants, three times at most) and come back sorted: by cluster for sums within users and
requests, and in the order of a model's score for the AUC. Only the rows of one cluster, and those of one
score, must fit into memory together.

K: clusters. M: models, the base first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from ctr.compare.delong import DeLong, DeLongSums, MidRanks
from ctr.compare.model_sums import ModelSums, add_groups
from ctr.compare.sums import ClusterSums
from ctr.metrics.clusters import CLUSTERS, pair_codes
from ctr.metrics.external_sort import Columns, Order, RowBuffer
from ctr.metrics.table import compared

CHUNK_ROWS = 2_000_000
_PREFIX = "ctr-compare-"


def score_column(model: int) -> str:
    """The column with the scores of a model."""
    return f"score{model}"


class Comparison:
    """Takes matched rows in any order and pieces, then gives the sums of every model.

    Args:
        models: how many, the base first.
        keys: which of "user" and "request" the rows have.
        chunk_rows: rows held in memory.
    """

    def __init__(self, *, models: int, keys: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> None:
        self._models, self._keys, self._chunk_rows = models, keys, chunk_rows
        orders = {name: Order(key=name) for name in ("cluster", score_column(0))}
        self._rows = RowBuffer(orders, limit=chunk_rows, prefix=_PREFIX)
        self._seen = np.zeros(CLUSTERS, dtype=bool)
        self._index = np.zeros(CLUSTERS, dtype=np.int64)  # of a cluster among those used; known in the end
        self.rows = self.positives = 0

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def add(self, rows: Columns) -> None:
        """Take rows of `make_rows`, labels and scores checked."""
        self._seen[rows["cluster"]] = True
        self.rows, self.positives = self.rows + len(rows["label"]), self.positives + int(rows["label"].sum())
        self._rows.add(rows)

    def finish(self) -> tuple[list[ClusterSums], list[DeLong]]:
        """The sums of each model, and DeLong's figures of each variant beside the base."""
        used = np.flatnonzero(self._seen)
        self._index = np.cumsum(self._seen) - 1
        pos, neg, metrics = self.positives, self.rows - self.positives, compared()
        sums = [ModelSums(metrics, clusters=len(used), pos=pos, neg=neg) for _ in range(self._models)]
        for rows in self._sorted(self._rows, "cluster"):
            self._add_groups(rows, sums)
        with ExitStack() as stack:
            delongs = self._walk(stack, sums)
        keys = used.astype(np.uint16)
        return [table.result(keys) for table in sums], delongs

    def _sorted(self, rows: RowBuffer, order: str) -> Iterator[Columns]:
        return rows.chunks(order, max(1, self._chunk_rows // 2))

    def _add_groups(self, rows: Columns, sums: list[ModelSums]) -> None:
        codes = {key: rows[key] for key in self._keys}
        if "user" in codes and "request" in codes:
            # A request belongs to one user; one id under several users is several requests.
            codes["request"] = pair_codes(codes["request"], codes["user"])
        scores = [rows[score_column(m)] for m in range(self._models)]
        add_groups(sums, rows["label"], self._index[rows["cluster"]], scores, codes)

    def _walk(self, stack: ExitStack, sums: list[ModelSums]) -> list[DeLong]:
        """All rows in the order of the base's score, and then, for each variant, in the order of its own.

        A row takes its mid-rank under the base along, so that both mid-ranks meet in one row.
        """
        limit = 0 if self._rows.on_disk else self._chunk_rows
        variants = [
            stack.enter_context(RowBuffer({"score": Order(key="score")}, limit=limit, prefix=_PREFIX))
            for _ in range(1, self._models)
        ]
        ranks = MidRanks()
        for rows in self._sorted(self._rows, score_column(0)):
            label, cluster = rows["label"], self._index[rows["cluster"]].astype(np.int32)
            base = ranks.twice(label, rows[score_column(0)])
            sums[0].add_midranks(label, cluster, base)
            for m, variant in enumerate(variants, start=1):
                score = rows[score_column(m)]
                variant.add({"label": label, "cluster": cluster, "base": base, "score": score})
        return [self._walk_variant(rows, table) for rows, table in zip(variants, sums[1:], strict=True)]

    def _walk_variant(self, variant: RowBuffer, sums: ModelSums) -> DeLong:
        ranks = MidRanks()
        delong = DeLongSums(pos=self.positives, neg=self.rows - self.positives)
        for rows in self._sorted(variant, "score"):
            twice = ranks.twice(rows["label"], rows["score"])
            sums.add_midranks(rows["label"], rows["cluster"], twice)
            delong.add(rows["label"], rows["base"], twice)
        variant.close()
        return delong.result()
