"""Rows that wait for their turn: in memory while they are few, in files beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]  # records with named fields


class Spool:
    """Rows in the order they came.

    Args:
        dtype: of a row.
        path: the file that holds them once there are more than `limit`; the caller removes it.
        limit: rows held in memory.
    """

    def __init__(self, dtype: np.dtype[Any], path: Path, *, limit: int) -> None:
        self._dtype, self._path, self._limit = dtype, path, limit
        self._held: list[Rows] = []
        self._on_disk = False
        self.rows = 0

    def add(self, rows: Rows) -> None:
        """Append rows."""
        self.rows += len(rows)
        self._held.append(rows)
        if self.rows > self._limit:
            with self._path.open("ab") as file:
                for piece in self._held:
                    file.write(np.ascontiguousarray(piece).view(np.uint8).data)
            self._held.clear()
            self._on_disk = True

    def chunks(self, size: int) -> Iterator[Rows]:
        """All rows, in pieces of at most `size` where they lie on disk."""
        if not self._on_disk:
            yield from self._held
            return
        with self._path.open("rb") as file:
            while len(rows := np.fromfile(file, dtype=self._dtype, count=size)):
                yield rows

    def close(self) -> None:
        """Let go of the rows and of the file."""
        self._held.clear()
        self._path.unlink(missing_ok=True)

    def take(self) -> Rows:
        """All rows at once; they are gone from here afterwards."""
        pieces = list(self.chunks(max(1, self.rows)))
        self.close()
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=self._dtype)


class Parts:
    """Rows dealt to numbered parts, each small enough to be held.

    Args:
        dtype: of a row.
        stem: path the files' names begin with.
        count: parts; a single one stays in memory.
    """

    def __init__(self, dtype: np.dtype[Any], stem: Path, *, count: int) -> None:
        limit = np.iinfo(np.int64).max if count == 1 else 0
        self._parts = [
            Spool(dtype, stem.with_name(f"{stem.name}-{k}"), limit=int(limit)) for k in range(count)
        ]

    def add(self, rows: Rows, part: NDArray[np.integer[Any]]) -> None:
        """Deal rows: row i goes to the part with the number part[i]."""
        if len(self._parts) == 1:
            self._parts[0].add(rows)
            return
        order = np.argsort(part.astype(np.uint16), kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=len(self._parts)))
        dealt = rows[order]
        for k, end in enumerate(ends):
            start = int(ends[k - 1]) if k else 0
            if end > start:
                self._parts[k].add(dealt[start:end])

    def take(self) -> Iterator[Rows]:
        """One part after the other; each is gone from here afterwards."""
        for part in self._parts:
            yield part.take()
