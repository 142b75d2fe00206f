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
from ctr.metrics.clusters import pair_codes
from ctr.metrics.external_sort import NamedColumns, Order, RowBuffer
from ctr.metrics.table import compared

CHUNK_ROWS = 2_000_000
DRAWS = 500
_PREFIX = "ctr-compare-"


def score_column(model: int) -> str:
    """The column with the scores of a model."""
    return f"score{model}"


def _ascending(score: str) -> Order:
    """Rows in the order of a score, without the codes of users and requests."""

    def needed(rows: NamedColumns) -> NamedColumns:
        return {name: column for name, column in rows.items() if name not in ("user", "request")}

    def ordered(rows: NamedColumns) -> NamedColumns:
        at = np.argsort(rows[score])
        return {name: column[at] for name, column in rows.items()}

    return Order(key=score, columns=needed, reduce=ordered)


class Comparison:
    """Takes matched rows in any order and pieces, then gives the sums of every model.

    Args:
        models: how many, the base first.
        keys: which of "user" and "request" the rows have.
        chunk_rows: rows held in memory.
        draws, seed: of the bootstrap, in which all models have the same draws.
    """

    def __init__(
        self,
        *,
        models: int,
        keys: Sequence[str],
        chunk_rows: int = CHUNK_ROWS,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        self._models, self._keys, self._chunk_rows = models, keys, chunk_rows
        self._draws, self._seed = draws, seed
        orders = {"cluster": Order(key="cluster"), score_column(0): _ascending(score_column(0))}
        self._rows = RowBuffer(orders, limit=chunk_rows, prefix=_PREFIX)
        self._clusters = 1
        self.rows = self.positives = 0

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def add(self, rows: NamedColumns) -> None:
        """Take rows of `make_rows`, labels and scores checked, all with a column `weight` above 0 or none."""
        self._clusters = max(self._clusters, int(rows["cluster"].max(initial=0)) + 1)
        self.rows, self.positives = self.rows + len(rows["label"]), self.positives + int(rows["label"].sum())
        self._rows.add(rows)

    def finish(self) -> tuple[list[ClusterSums], list[DeLong | None]]:
        """The sums of each model, and DeLong's figures of each variant, if rows weigh alike."""
        options = {"clusters": self._clusters, "draws": self._draws, "seed": self._seed}
        sums = [ModelSums(compared(), **options) for _ in range(self._models)]
        for rows in self._sorted(self._rows, "cluster"):
            self._add_groups(rows, sums)
        with ExitStack() as stack:
            delongs = self._walk(stack, sums)
        return [table.result() for table in sums], delongs

    def _sorted(self, rows: RowBuffer, order: str) -> Iterator[NamedColumns]:
        return rows.chunks(order, max(1, self._chunk_rows // 2))

    def _add_groups(self, rows: NamedColumns, sums: list[ModelSums]) -> None:
        codes = {key: rows[key] for key in self._keys}
        if "user" in codes and "request" in codes:
            # A request belongs to one user; one id under several users is several requests.
            codes["request"] = pair_codes(codes["request"], codes["user"])
        scores = [rows[score_column(m)] for m in range(self._models)]
        cluster, weight = rows["cluster"].astype(np.int64), rows.get("weight")
        add_groups(sums, rows["label"], cluster, scores, codes, weight)

    def _walk(self, stack: ExitStack, sums: list[ModelSums]) -> list[DeLong | None]:
        """All rows in the order of the base's score, and then, for each variant, in the order of its own.

        A row takes its mid-rank under the base along, so that both mid-ranks meet in one row.
        """
        limit = 0 if self._rows.on_disk else self._chunk_rows
        variants = [
            stack.enter_context(RowBuffer({"score": _ascending("score")}, limit=limit, prefix=_PREFIX))
            for _ in range(1, self._models)
        ]
        ranks = MidRanks()
        for rows in self._sorted(self._rows, score_column(0)):
            label, cluster = rows["label"], rows["cluster"]
            base = ranks.twice(label, rows[score_column(0)])
            weight = {name: column for name, column in rows.items() if name == "weight"}
            sums[0].add_sorted(label, cluster, rows[score_column(0)], **weight)
            for m, variant in enumerate(variants, start=1):
                score = rows[score_column(m)]
                variant.add({"label": label, "cluster": cluster, "base": base, "score": score, **weight})
        return [self._walk_variant(rows, table) for rows, table in zip(variants, sums[1:], strict=True)]

    def _walk_variant(self, variant: RowBuffer, sums: ModelSums) -> DeLong | None:
        ranks, weighted = MidRanks(), False
        delong = DeLongSums(pos=self.positives, neg=self.rows - self.positives)
        for rows in self._sorted(variant, "score"):
            twice = ranks.twice(rows["label"], rows["score"])
            sums.add_sorted(rows["label"], rows["cluster"], rows["score"], rows.get("weight"))
            weighted = weighted or "weight" in rows
            delong.add(rows["label"], rows["base"], twice)
        variant.close()
        return None if weighted else delong.result()
