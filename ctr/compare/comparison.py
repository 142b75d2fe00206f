"""Base and variants on the same rows, fed in pieces, reduced to sums per cluster in bounded memory.

All figures are exact. Rows beyond `chunk_rows` wait in files of a temporary directory (about 20 + 8 (V + 1)
bytes a row for V variants, three times at most) and come back in parts: by cluster for sums within users and
requests, and in the order of a model's score for the AUC. Only the rows of one user, and those of one score,
must fit into memory together.

K: clusters. M: models, the base first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ctr.compare.delong import DeLong, DeLongSums, Placer
from ctr.compare.model_sums import ModelSums, add_groups
from ctr.compare.spill import Parts, Rows, Spool
from ctr.compare.sums import ClusterSums
from ctr.metrics.records import Floats

# A prime: codes that are multiples of a power of two or ten still spread. Users beyond it share a cluster.
CLUSTERS = 65_521
CHUNK_ROWS = 2_000_000
_STEP = 1 << 20
_SAMPLE_EVERY = 256
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: no two small pairs meet


def row_type(models: int) -> np.dtype[Any]:
    """A row: its label, cluster, user, request, and the score of each model."""
    return np.dtype(
        [("label", "i1"), ("cluster", "u2"), ("user", "u8"), ("request", "u8"), ("score", "f8", (models,))]
    )


class Comparison:
    """Takes matched rows in any order and pieces, then gives the sums of every model.

    Args:
        models: how many, the base first.
        keys: which of "user" and "request" the rows have.
        chunk_rows: rows held in memory.
    """

    def __init__(self, *, models: int, keys: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> None:
        self._models, self._keys, self._chunk_rows = models, keys, chunk_rows
        self._directory = tempfile.TemporaryDirectory(prefix="ctr-compare-")
        self._stem = Path(self._directory.name) / "rows"
        self._spool = Spool(row_type(models), self._stem, limit=chunk_rows)
        self._samples: list[Floats] = []
        self._seen = np.zeros(CLUSTERS, dtype=bool)
        self._place = np.zeros(CLUSTERS, dtype=np.int64)  # of a cluster among those used; known in the end
        self.rows = self.positives = 0

    def __enter__(self) -> Comparison:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def add(self, rows: Rows) -> None:
        """Take rows of `row_type`, labels and scores checked."""
        self._seen[rows["cluster"]] = True
        self._samples.append(rows["score"][::_SAMPLE_EVERY].copy())
        self.rows, self.positives = self.rows + len(rows), self.positives + int(rows["label"].sum())
        self._spool.add(rows)

    def finish(self) -> tuple[list[ClusterSums], list[DeLong]]:
        """The sums of each model, and DeLong's figures of each variant beside the base."""
        used = np.flatnonzero(self._seen)
        self._place = np.cumsum(self._seen) - 1
        sums = [ModelSums(len(used), self.positives, self.rows - self.positives) for _ in range(self._models)]
        count = 1 if self.rows <= self._chunk_rows else -(-2 * self.rows // self._chunk_rows)
        cuts = self._cuts(count)
        by_cluster = Parts(row_type(self._models), self._name("cluster"), count=count)
        by_score = Parts(row_type(self._models), self._name("base"), count=count)
        for rows in self._spool.chunks(_STEP):
            by_cluster.add(rows, rows["cluster"] % count)
            by_score.add(rows, np.searchsorted(cuts[0], rows["score"][:, 0], side="right"))
        self._spool.close()
        for rows in by_cluster.take():
            self._add_groups(rows, sums)
        delongs = self._walk(by_score, cuts, sums)
        keys = used.astype(np.uint16)
        return [table.result(keys) for table in sums], delongs

    def _name(self, what: str) -> Path:
        return self._stem.with_name(what)

    def _cuts(self, count: int) -> list[Floats]:
        """For each model, scores that cut the rows into `count` parts of similar size."""
        if count == 1:
            return [np.zeros(0)] * self._models
        sample = np.concatenate(self._samples)
        shares = np.arange(1, count) / count
        return [np.unique(np.quantile(sample[:, m], shares)) for m in range(self._models)]

    def _add_groups(self, rows: Rows, sums: list[ModelSums]) -> None:
        if len(rows):
            codes = {key: np.ascontiguousarray(rows[key]) for key in self._keys}
            if "user" in codes and "request" in codes:
                # A request belongs to one user; one id under several users is several requests, in any part.
                codes["request"] = codes["request"] * _MIX + codes["user"]
            scores = [np.ascontiguousarray(rows["score"][:, m]) for m in range(self._models)]
            add_groups(sums, rows["label"].copy(), self._place[rows["cluster"]], scores, codes)

    def _walk(self, by_base: Parts, cuts: list[Floats], sums: list[ModelSums]) -> list[DeLong]:
        """All rows in the order of the base's score, and then, for each variant, in the order of its own.

        A row takes its place under the base along, so that both places meet in one row.
        """
        placed = np.dtype([("label", "i1"), ("cluster", "i4"), ("base", "i8"), ("score", "f8")])
        parts = [
            Parts(placed, self._name(f"variant-{m}"), count=len(cuts[m]) + 1) for m in range(1, self._models)
        ]
        placer = Placer()
        for rows in by_base.take():
            label, cluster = rows["label"].copy(), self._place[rows["cluster"]]
            base = placer.place(label, np.ascontiguousarray(rows["score"][:, 0]))
            sums[0].add_places(label, cluster, base)
            for m, part in enumerate(parts, start=1):
                out = np.empty(len(rows), dtype=placed)
                out["label"], out["cluster"], out["base"] = label, cluster, base
                out["score"] = rows["score"][:, m]
                part.add(out, np.searchsorted(cuts[m], out["score"], side="right"))
        return [self._walk_variant(part, table) for part, table in zip(parts, sums[1:], strict=True)]

    def _walk_variant(self, parts: Parts, sums: ModelSums) -> DeLong:
        placer = Placer()
        delong = DeLongSums(pos=self.positives, neg=self.rows - self.positives)
        for rows in parts.take():
            label = rows["label"].copy()
            places = placer.place(label, np.ascontiguousarray(rows["score"]))
            sums.add_places(label, rows["cluster"], places)
            delong.add(label, np.ascontiguousarray(rows["base"]), places)
        return delong.result()
