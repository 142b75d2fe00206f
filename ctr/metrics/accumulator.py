"""All metrics of one set of rows, fed in pieces, in bounded memory.

Peak memory: about 160 bytes for each of `chunk_rows` rows (the buffer and one sort), 13 MB of bootstrap
weights at most and some 30 MB of working space, whatever the number of rows, users and requests. Beyond
`chunk_rows` rows sorted runs go to a temporary directory (40 bytes a row for each of at most three orders)
and are merged from there. The figures do not depend on `chunk_rows`. Only the rows of one user or request
must fit into memory together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.metrics.bootstrap import draw_weights
from ctr.metrics.clusters import clusters_of, codes_of
from ctr.metrics.curves import Curves
from ctr.metrics.external_sort import NamedColumns, Order, RowBuffer
from ctr.metrics.ranking import check_rows, check_weights
from ctr.metrics.records import Floats, Ints, Records, compress
from ctr.metrics.table import METRICS
from ctr.metrics.value import MetricValue
from ctr.metrics.walk import Walk
from features.errors import DataError

CHUNK_ROWS = 2_000_000
_PREFIX = "ctr-metrics-"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The metrics of one set of rows.

    Args:
        rows, positives: rows, and those with label 1.
        metrics: name → value, of every entry of `ctr.metrics.table.METRICS`, in its order.
        curves: what a report draws.
    """

    rows: int
    positives: int
    metrics: dict[str, MetricValue]
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        """Counts and metrics as plain data for JSON, without the curves."""
        metrics = {name: metric.to_dict() for name, metric in self.metrics.items()}
        return {"rows": self.rows, "positives": self.positives, "metrics": metrics}


class MetricAccumulator:
    """Takes rows in any order and pieces, then computes every metric exactly.

    Args:
        draws: bootstrap draws; 0 for no bootstrap intervals (quick validation during training).
        seed: of the bootstrap.
        chunk_rows: rows held in memory before a sorted run is written to disk.

    Example:
        >>> with MetricAccumulator(draws=0) as accumulator:
        ...     accumulator.update([0, 1, 1], [0.2, 0.1, 0.7], user=[5, 5, 6])
        ...     summary = accumulator.compute()
        >>> summary.metrics["auc"].value, summary.metrics["gauc"].value, summary.metrics["query_auc"].reason
        (0.5, 0.0, 'no request ids were given')
    """

    def __init__(self, *, draws: int = 200, seed: int = 0, chunk_rows: int = CHUNK_ROWS) -> None:
        self._draws, self._seed, self._chunk_rows = draws, seed, chunk_rows
        self.rows = self.positives = 0
        # Of rows with weights, what those with label 1 and 0 weigh together.
        self._weighs: tuple[float, float] | None = None
        self._keys: tuple[str, ...] | None = None
        self._clusters = 1
        self._buffer = RowBuffer({}, limit=chunk_rows, prefix=_PREFIX)

    def __enter__(self) -> MetricAccumulator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._buffer.close()

    def update(
        self,
        label: ArrayLike,
        score: ArrayLike,
        *,
        user: ArrayLike | None = None,
        request: ArrayLike | None = None,
        row_id: ArrayLike | None = None,
        weight: ArrayLike | None = None,
    ) -> None:
        """Take more rows.

        Args:
            label: (n,) 0 or 1.
            score: (n,) probability in [0, 1], kept in float64.
            user, request: (n,) integers; given in every call or in none.
            row_id: (n,) integers named in errors; without them positions are.
            weight: (n,) how much each row counts, ≥ 0; given in every call or in none. A row of weight k is
                as k equal rows, and one of weight 0 is not there. DeLong has no interval then.

        Raises:
            DataError: wrong label or score, or lengths that differ; nothing of this call is kept.
        """
        labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
        ids = None if row_id is None else np.asarray(row_id)
        check_rows(labels, scores, row_id=ids, offset=self.rows, probability=True)
        weights = None if weight is None else check_weights(weight, labels, row_id=ids, offset=self.rows)
        keys = {"user": user, "request": request}
        present = tuple(name for name, values in keys.items() if values is not None)
        if self._keys not in (None, present):
            raise DataError(f"every update must bring the same keys, first {self._keys}, now {present}")
        if self._keys is not None and (weights is None) != (self._weighs is None):
            raise DataError("every update must bring weights, or none, got both; give each row its weight")
        columns = {name: _whole_numbers(name, np.asarray(keys[name])) for name in present}
        if any(column.shape != labels.shape for column in columns.values()):
            raise DataError(f"user and request must have the {len(labels)} rows of label, got "
                            f"{[column.shape for column in columns.values()]}")  # fmt: skip
        if self._keys is None:
            self._keys = present
            self._buffer = RowBuffer(_orders(present), limit=self._chunk_rows, prefix=_PREFIX)
        if weights is not None:
            columns, (labels, scores) = self._weighted(weights, labels, columns, scores)
        self._take(labels.astype(np.int64), scores, columns)

    def _weighted(
        self, weight: Floats, label: Floats, columns: NamedColumns, score: Floats
    ) -> tuple[NamedColumns, tuple[Floats, Floats]]:
        """The rows that count, with their weights as a column."""
        pos, neg = self._weighs or (0.0, 0.0)
        self._weighs = pos + float(weight @ label), neg + float(weight @ (1.0 - label))
        counts = weight > 0
        kept = {name: column[counts] for name, column in {**columns, "weight": weight}.items()}
        return kept, (label[counts], score[counts])

    def _take(self, label: Ints, score: Floats, keys: NamedColumns) -> None:
        units = keys[self._keys[0]] if self._keys else np.zeros(len(label), dtype=np.int64)
        cluster = clusters_of(codes_of(units))
        columns = {"label": label, "score": score, "cluster": cluster, **keys}
        for start in range(0, len(label), self._chunk_rows):
            piece = slice(start, start + self._chunk_rows)
            self._buffer.add({name: column[piece].copy() for name, column in columns.items()})
        self._clusters = max(self._clusters, int(cluster.max(initial=0)) + 1)
        self.rows, self.positives = self.rows + len(label), self.positives + int(label.sum())

    def compute(self) -> Summary:
        """Every metric of the rows so far."""
        unit = self._keys[0] if self._keys else ""
        weights = draw_weights(self._clusters, self._draws if unit else 0, self._seed)
        pos, neg = self._weighs or (self.positives, self.rows - self.positives)
        metrics = METRICS.values()
        walk = Walk(metrics, weights, rows=self.rows, positives=self.positives, pos=pos, neg=neg, unit=unit)
        walk.by_score(self._sorted("score"))
        for name in self._keys or ():
            walk.by_group(name, self._sorted(name))
        return Summary(
            rows=self.rows,
            positives=self.positives,
            metrics={metric.name: metric.computation.evaluate(metric, walk) for metric in metrics},
            curves=walk.curves.curves(),
        )

    def _sorted(self, name: str) -> Iterator[Records]:
        return (Records(**columns) for columns in self._buffer.chunks(name, self._chunk_rows))


def _whole_numbers(name: str, ids: NDArray[Any]) -> Ints:
    whole = ids.dtype.kind in "iub"
    if ids.dtype.kind == "f":
        whole = bool(np.isfinite(ids).all() and (ids == np.trunc(ids)).all())
    if not whole:
        raise DataError(
            f"{name} must be whole numbers, got {ids.dtype}, first {ids[:5].tolist()}; encode them"
        )
    return ids.astype(np.int64)


def _orders(keys: tuple[str, ...]) -> dict[str, Order]:
    """By score, and by (user or request, score)."""
    return {name: _order(name) for name in ("score", *keys)}


def _order(name: str) -> Order:
    def records(columns: NamedColumns) -> NamedColumns:
        label, cluster = columns["label"], columns["cluster"]
        minor = cluster if name == "score" else columns["score"]
        weight = columns.get("weight", 1)
        return Records(columns[name], minor, cluster, weight * label, weight * (1 - label))._asdict()

    return Order(key="major", columns=records, reduce=lambda columns: compress(Records(**columns))._asdict())
