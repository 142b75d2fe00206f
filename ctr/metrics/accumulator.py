"""All metrics of one set of rows, fed in pieces, in bounded memory.

Peak memory: about 160 bytes for each of `chunk_rows` rows (the buffer and one sort), 13 MB of bootstrap
weights
at most and some 30 MB of working space, whatever the number of rows, users and requests. Beyond
`chunk_rows` rows
sorted runs go to a temporary directory (40 bytes a row for each of at most three orders) and are merged
from there.
The figures do not depend on `chunk_rows`. Only the rows of one user or request must fit into memory together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.metrics.bootstrap import (
    MAX_CLUSTERS,
    AucDraws,
    poisson_weights,
    ratio_draws,
    weighted_totals,
    with_interval,
)
from ctr.metrics.calibration import Curves, CurveSums, ProbabilitySums, figures_of
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import GroupedAuc, RankSums, check_rows, ties_of
from ctr.metrics.records import Ints, Records, SortedRuns, compress
from features.errors import DataError

CHUNK_ROWS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The metrics of one set of rows.

    Args:
        rows, positives: rows, and those with label 1.
        metrics: auc (interval by user where users are known), auc_delong, gauc, query_auc, log_loss, ne,
            calibration, ece.
        curves: what a report draws.
    """

    rows: int
    positives: int
    metrics: dict[str, Metric]
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
        self._buffer: list[tuple[NDArray[Any], ...]] = []
        self._buffered = 0
        self._keys: tuple[str, ...] | None = None
        self._clusters = 1
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._runs: dict[str, SortedRuns] = {}

    def __enter__(self) -> MetricAccumulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._runs.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def update(
        self,
        label: ArrayLike,
        score: ArrayLike,
        *,
        user: ArrayLike | None = None,
        request: ArrayLike | None = None,
        row_id: ArrayLike | None = None,
    ) -> None:
        """Take more rows.

        Args:
            label: (n,) 0 or 1.
            score: (n,) probability in [0, 1], kept in float64.
            user, request: (n,) integers; given in every call or in none.
            row_id: (n,) integers named in errors; without them positions are.

        Raises:
            DataError: wrong label or score, or lengths that differ; nothing of this call is kept.
        """
        labels, scores = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
        ids = None if row_id is None else np.asarray(row_id)
        check_rows(labels, scores, row_id=ids, offset=self.rows, probability=True)
        keys = {"user": user, "request": request}
        present = tuple(name for name, values in keys.items() if values is not None)
        if self._keys not in (None, present):
            raise DataError(f"every update must bring the same keys, first {self._keys}, now {present}")
        columns = [np.asarray(keys[name], dtype=np.int64) for name in present]
        if any(column.shape != labels.shape for column in columns):
            raise DataError(f"user and request must have the {len(labels)} rows of label, got "
                            f"{[column.shape for column in columns]}")  # fmt: skip
        self._keys = present
        self._take(labels.astype(np.int64), scores, columns)

    def _take(self, label: Ints, score: NDArray[np.float64], columns: list[Ints]) -> None:
        cluster = columns[0] % MAX_CLUSTERS if columns else np.zeros(len(label), dtype=np.int64)
        for start in range(0, len(label), self._chunk_rows):
            piece = slice(start, start + self._chunk_rows)
            self._buffer.append(tuple(column[piece].copy() for column in (label, score, cluster, *columns)))
            self._buffered += len(self._buffer[-1][0])
            if self._buffered >= self._chunk_rows:
                self._spill()
        self._clusters = max(self._clusters, int(cluster.max(initial=0)) + 1)
        self.rows, self.positives = self.rows + len(label), self.positives + int(label.sum())

    def _orders(self) -> Iterator[tuple[str, Records]]:
        """The buffered rows as records for each order: by score, and by (user or request, score)."""
        if not self._buffer:
            return
        label, score, cluster, *columns = (np.concatenate(parts) for parts in zip(*self._buffer, strict=True))
        yield "score", Records(score, cluster, cluster, label, 1 - label)
        for name, column in zip(self._keys or (), columns, strict=True):
            yield name, Records(column, score, cluster, label, 1 - label)

    def _spill(self) -> None:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="ctr-metrics-")
        for name, records in self._orders():
            runs = self._runs.setdefault(name, SortedRuns(Path(self._directory.name), name))
            runs.add(records)
        self._buffer.clear()
        self._buffered = 0

    def _sorted(self) -> Iterator[tuple[str, Iterator[Records]]]:
        if not self._runs:
            yield from ((name, iter([compress(records)])) for name, records in self._orders())
            return
        if self._buffer:
            self._spill()
        yield from ((name, runs.chunks(self._chunk_rows)) for name, runs in self._runs.items())

    def compute(self) -> Summary:
        """Every metric of the rows so far."""
        unit = (self._keys or ("",))[0]
        draws = self._draws if unit else 0
        weights = poisson_weights(_power_of_two(self._clusters), draws, self._seed)
        walk = _ScoreWalk(weights, pos=self.positives, neg=self.rows - self.positives, unit=unit)
        grouped = {"gauc": self._undefined("user"), "query_auc": self._undefined("request")}
        for name, chunks in self._sorted():
            if name == "score":
                for records in chunks:
                    walk.add(records)
            else:
                key = "gauc" if name == "user" else "query_auc"
                grouped[key] = _grouped(chunks, name, weights, unit)
        metrics = {**walk.ranking(), **grouped, **walk.calibration()}
        return Summary(rows=self.rows, positives=self.positives, metrics=metrics, curves=walk.curves.curves())

    def _undefined(self, name: str) -> Metric:
        return Metric(value=None, reason=f"no {name} ids were given" if self.rows else "no rows")


class _ScoreWalk:
    """Everything that is computed in the order of the score, in one pass."""

    def __init__(self, weights: NDArray[np.uint8], *, pos: int, neg: int, unit: str) -> None:
        self._weights, self._unit = weights, unit
        self._ranks = RankSums()
        self._draws = AucDraws(weights)
        self._sums = ProbabilitySums(len(weights))
        self.curves = CurveSums(pos=pos, neg=neg)

    def add(self, records: Records) -> None:
        ties = ties_of(records)
        self._ranks.add(ties)
        self.curves.add(ties)
        self._sums.add(records)
        if self._weights.shape[1]:
            self._draws.add(records)

    def _interval(self, metric: Metric, values: NDArray[np.float64], *, bounded: bool) -> Metric:
        clusters = int(np.count_nonzero(self._sums.sums[:, -1]))
        return with_interval(metric, values, clusters=clusters, unit=self._unit, bounded=bounded)

    def ranking(self) -> dict[str, Metric]:
        delong = self._ranks.delong()
        if not self._weights.shape[1]:
            return {"auc": delong, "auc_delong": delong}
        return {
            "auc": self._interval(self._ranks.auc(), self._draws.values(), bounded=True),
            "auc_delong": delong,
        }

    def calibration(self) -> dict[str, Metric]:
        drawn = figures_of(weighted_totals(self._weights, self._sums.sums))
        metrics = {n: self._interval(m, drawn[n], bounded=False) for n, m in self._sums.metrics().items()}
        return {**metrics, "ece": self.curves.ece()}


def _grouped(chunks: Iterator[Records], name: str, weights: NDArray[np.uint8], unit: str) -> Metric:
    sums = GroupedAuc(by_rows=name == "user", clusters=len(weights))
    for records in chunks:
        sums.add(records)
    values = ratio_draws(weights, sums.weighted, sums.weight)
    clusters = int(np.count_nonzero(sums.weight))
    return with_interval(sums.metric(f"{name}s"), values, clusters=clusters, unit=unit, bounded=True)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
