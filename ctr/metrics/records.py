"""Rows sorted by two keys, with equal rows counted once; larger than memory where needed.

Every ranking metric is a walk over rows in the order of their score, overall or within a user or request. A
record stands for all rows of equal keys: that makes ties exact, and keeps a million equal scores small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Records(NamedTuple):
    """Counted rows, (n,) each, sorted by (major, minor) once they come out of `compress`.

    Args:
        major: score (float64), or user or request (int64); chunks are never cut inside one value of it.
        minor: cluster (int64) where major is the score, else the score (float64).
        cluster: index of the user (or request) that is resampled together, int64 ≥ 0.
        pos, neg: rows with label 1 and 0 that have these keys, int64.
    """

    major: NDArray[Any]
    minor: NDArray[Any]
    cluster: Ints
    pos: Ints
    neg: Ints


def run_starts(values: NDArray[np.generic]) -> NDArray[np.intp]:
    """Where each run of equal neighbours begins.

    Example:
        >>> run_starts(np.array([3, 3, 5, 7, 7])).tolist()
        [0, 2, 3]
    """
    first = np.ones(len(values), dtype=bool)
    first[1:] = values[1:] != values[:-1]
    return np.flatnonzero(first)


def compress(records: Records) -> Records:
    """Sort by (major, minor) and add up the counts of equal keys."""
    if len(records.major) == 0:
        return records
    order = np.lexsort((records.minor, records.major))
    major, minor, cluster, pos, neg = (column[order] for column in records)
    first = np.ones(len(major), dtype=bool)
    first[1:] = (major[1:] != major[:-1]) | (minor[1:] != minor[:-1])
    starts = np.flatnonzero(first)
    return Records(
        major[starts],
        minor[starts],
        cluster[starts],
        np.add.reduceat(pos, starts),
        np.add.reduceat(neg, starts),
    )


class _Run(NamedTuple):
    """One sorted run, a file per column: read by pieces, mapped only for a search, so memory stays free."""

    files: tuple[tuple[Path, np.dtype[Any]], ...]
    rows: int

    def major(self) -> NDArray[Any]:
        """The major column, mapped."""
        path, dtype = self.files[0]
        return np.memmap(path, dtype=dtype, mode="r")

    def read(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Rows [start, stop) of every column."""
        return [
            np.fromfile(path, dtype=dtype, count=stop - start, offset=start * dtype.itemsize)
            for path, dtype in self.files
        ]


class SortedRuns:
    """An external sort: sorted runs on disk, read back as one sorted stream of chunks.

    A chunk holds about `chunk_rows` records, more only where the records of a single major value are more.

    Args:
        directory: existing directory for the run files; the caller removes it.
        name: prefix of the files.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._runs: list[_Run] = []

    def add(self, records: Records) -> None:
        """Sort `records` and write them as one run."""
        files = []
        columns = compress(records)
        for field, column in zip(Records._fields, columns, strict=True):
            path = self._directory / f"{self._name}-{len(self._runs)}-{field}"
            column.tofile(path)
            files.append((path, column.dtype))
        self._runs.append(_Run(tuple(files), len(columns.major)))

    def chunks(self, chunk_rows: int) -> Iterator[Records]:
        """All runs merged: sorted chunks, no major value in two of them.

        Every `step`-th major of each run is a sample; between two cuts taken from the sorted samples a run
        holds
        a bounded number of records, so that cutting all runs at the same values gives chunks of bounded size.
        """
        count = len(self._runs)
        step = max(1, chunk_rows // (2 * count))
        samples = np.sort(np.concatenate([run.major()[::step] for run in self._runs]))
        cuts = np.unique(samples[::count])[1:]
        edges = [[0, *np.searchsorted(run.major(), cuts).tolist(), run.rows] for run in self._runs]
        for k in range(len(cuts) + 1):
            parts = [run.read(edge[k], edge[k + 1]) for run, edge in zip(self._runs, edges, strict=True)]
            yield compress(Records(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))
