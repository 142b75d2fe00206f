"""Rows in several orders, sorted in memory while they are few and by sorted runs on disk beyond that.

Evaluations and comparisons walk over the same rows by score, by user and by request. One buffer takes the
rows; when it is full, it writes a sorted run for each order and starts again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NamedColumns = dict[str, NDArray[Any]]  # name → (n,), one value a row


def joined(parts: list[NamedColumns]) -> NamedColumns:
    """The rows of several parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order in which rows are wanted.

    Args:
        key: column they are sorted by; all rows of one value of it come in the same chunk.
        columns: makes what this order needs from the columns of the buffer; None takes them as they are.
        reduce: sorts rows that come together and may add up those that are alike; it must give the same for
            all rows at once as for parts that were reduced before. None keeps every row, and leaves the order
            inside a chunk open.
    """

    key: str
    columns: Callable[[NamedColumns], NamedColumns] | None = None
    reduce: Callable[[NamedColumns], NamedColumns] | None = None

    def take(self, columns: NamedColumns) -> NamedColumns:
        """What this order needs of the buffer's rows, reduced."""
        return self.merge(columns if self.columns is None else self.columns(columns))

    def merge(self, columns: NamedColumns) -> NamedColumns:
        """Rows that came together, reduced."""
        return columns if self.reduce is None else self.reduce(columns)


class _Run(NamedTuple):
    """One sorted run, a file per column: read by pieces, mapped only for a search, so memory stays free."""

    files: dict[str, tuple[Path, np.dtype[Any]]]

    def map(self, name: str) -> NDArray[Any]:
        """A column, mapped."""
        path, dtype = self.files[name]
        return np.memmap(path, dtype=dtype, mode="r")

    def read(self, start: int, stop: int) -> NamedColumns:
        """Rows [start, stop) of every column."""
        return {
            name: np.fromfile(path, dtype=dtype, count=stop - start, offset=start * dtype.itemsize)
            for name, (path, dtype) in self.files.items()
        }


class SortedRuns:
    """An external merge sort: sorted runs on disk, read back as one ascending stream of chunks.

    A chunk holds about `chunk_rows` rows, more only where the rows of a single value of the key are more.

    Args:
        directory: existing directory for the run files; the caller removes it.
        name: prefix of the files.
        order: what is sorted, and how.
    """

    def __init__(self, directory: Path, name: str, order: Order) -> None:
        self._directory, self._name, self._order = directory, name, order
        self._runs: list[_Run] = []

    def add(self, columns: NamedColumns) -> None:
        """Sort rows and write them as one run."""
        columns = self._order.take(columns)
        at = np.argsort(columns[self._order.key], kind="stable")
        if not len(at):
            return
        files = {}
        for name, column in columns.items():
            path = self._directory / f"{self._name}-{len(self._runs)}-{name}"
            column[at].tofile(path)
            files[name] = (path, column.dtype)
        self._runs.append(_Run(files))

    def chunks(self, chunk_rows: int) -> Iterator[NamedColumns]:
        """All runs merged: ascending chunks, no value of the key in two of them.

        Every `step`-th key of each run is a sample; between two cuts taken from the sorted samples a run
        holds a bounded number of rows, so that cutting all runs at the same values gives chunks of bounded
        size.
        """
        if not self._runs:
            return
        keys, count = [run.map(self._order.key) for run in self._runs], len(self._runs)
        step = max(1, chunk_rows // (2 * count))
        samples = np.sort(np.concatenate([key[::step] for key in keys]))
        cuts = np.unique(samples[::count])[1:]
        edges = [[0, *np.searchsorted(key, cuts).tolist(), len(key)] for key in keys]
        del keys
        for k in range(len(cuts) + 1):
            parts = [run.read(edge[k], edge[k + 1]) for run, edge in zip(self._runs, edges, strict=True)]
            yield self._order.merge(joined(parts))


class RowBuffer:
    """Takes rows in any order, and hands all of them out in each of several orders.

    Args:
        orders: name → order.
        limit: rows held in memory; beyond them sorted runs are written.
        prefix: of the name of the temporary directory, which is made when it is needed.
    """

    def __init__(self, orders: Mapping[str, Order], *, limit: int, prefix: str) -> None:
        self._orders, self._limit, self._prefix = dict(orders), limit, prefix
        self._held: list[NamedColumns] = []
        self._rows = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._runs: dict[str, SortedRuns] = {}

    def __enter__(self) -> RowBuffer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the rows and remove the temporary files."""
        self._held.clear()
        self._runs.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def on_disk(self) -> bool:
        """Whether rows were written to disk."""
        return bool(self._runs)

    def add(self, columns: NamedColumns) -> None:
        """Take rows; the arrays must not change afterwards."""
        rows = len(next(iter(columns.values())))
        if self._rows + rows > self._limit:
            self._spill()
        self._held.append(columns)
        self._rows += rows
        if self._rows > self._limit:
            self._spill()

    def _spill(self) -> None:
        if not self._held:
            return
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix=self._prefix)
            folder = Path(self._directory.name)
            self._runs = {name: SortedRuns(folder, name, order) for name, order in self._orders.items()}
        columns = joined(self._held)
        self._held.clear()
        self._rows = 0
        for runs in self._runs.values():
            runs.add(columns)

    def chunks(self, name: str, chunk_rows: int) -> Iterator[NamedColumns]:
        """All rows in one of the orders: one chunk from memory, chunks of about `chunk_rows` from disk."""
        if self.on_disk:
            self._spill()
            yield from self._runs[name].chunks(chunk_rows)
        elif self._held:
            self._held = [joined(self._held)]
            yield self._orders[name].take(self._held[0])
