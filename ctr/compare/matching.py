"""The same rows in several prediction files: in the same order, or matched by id outside memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc as ipc
from numpy.typing import NDArray

from ctr.compare.files import PredictionFile
from ctr.compare.mismatch import Mismatches
from ctr.metrics.clusters import codes_of, mix64
from ctr.metrics.external_sort import Order, RowBuffer

_MAX_PARTS = 200


class OrderDiffersError(Exception):
    """The files do not have the same ids in the same order."""


def in_step(files: Sequence[PredictionFile], *, chunk_rows: int) -> Iterator[list[pa.Table]]:
    """Pieces of all files side by side, for files whose rows come in the same order.

    Args:
        files: the base first.
        chunk_rows: ids held in memory while looking for repeated ones.

    Raises:
        OrderDiffersError: ids differ somewhere, or may be repeated; nothing that was yielded counts.
        DataError: labels differ.
    """
    wrong = Mismatches([file.path for file in files])
    with _Distinct(chunk_rows) as seen:
        for pieces in zip_longest(*(file.pieces() for file in files)):
            ids = [piece.column("id") if piece is not None else None for piece in pieces]
            if any(other is None or not other.equals(ids[0]) for other in ids):
                raise OrderDiffersError
            seen.add(pieces[0].column("id"))
            wrong.compare_labels(pieces)
            yield list(pieces)
        if not seen.all_distinct():
            raise OrderDiffersError
    wrong.refuse()


def by_id(files: Sequence[PredictionFile], *, chunk_rows: int) -> Iterator[list[pa.Table]]:
    """Pieces of all files with the same ids, for files in any order.

    Rows are split into parts by a hash of their ids, and each part is sorted.

    Args:
        files: the base first.
        chunk_rows: about twice the rows of a part, which are held in memory.

    Raises:
        DataError: ids that are missing, extra or repeated, or labels that differ.
    """
    wrong = Mismatches([file.path for file in files])
    count = _part_count(max(file.rows_at_most() for file in files), chunk_rows)
    with tempfile.TemporaryDirectory(prefix="ctr-compare-") as directory:
        stems = [Path(directory) / str(k) for k in range(len(files))]
        for file, stem in zip(files, stems, strict=True):
            wrong.same_kind_of_id(_partition(file, stem, count))
        for part in range(count):
            tables = [_sorted(stem.with_name(f"{stem.name}-{part}")) for stem in stems]
            if wrong.match(tables):
                yield tables
    wrong.refuse()


def _part_count(rows: int, chunk_rows: int) -> int:
    return min(_MAX_PARTS, max(1, -(-2 * rows // chunk_rows)))


def _part_of(ids: pa.ChunkedArray, count: int) -> NDArray[np.uint64]:
    """The part of each id, (n,) below `count`."""
    return mix64(codes_of(ids)) % np.uint64(count)


class _Distinct:
    """Whether ids are all different: at once where they ascend, else from their codes, sorted."""

    def __init__(self, chunk_rows: int) -> None:
        self._chunk_rows = chunk_rows
        self._codes = RowBuffer({"id": Order(key="id")}, limit=chunk_rows, prefix="ctr-compare-")
        self._last: int | None = None
        self._ascending = True

    def __enter__(self) -> _Distinct:
        return self

    def __exit__(self, *error: object) -> None:
        self._codes.close()

    def add(self, ids: pa.ChunkedArray) -> None:
        codes = codes_of(ids)
        if self._ascending and pa.types.is_integer(ids.type):
            signed = codes.view(np.int64)
            follows = self._last is None or int(signed[0]) > self._last
            self._ascending = follows and bool((signed[1:] > signed[:-1]).all())
            self._last = int(signed[-1])
        else:
            self._ascending = False
        self._codes.add({"id": codes})

    def all_distinct(self) -> bool:
        """False also where two texts have one code; matching by id then tells."""
        if self._ascending:
            return True
        chunks = self._codes.chunks("id", self._chunk_rows)
        return all(len(np.unique(rows["id"])) == len(rows["id"]) for rows in chunks)


def _partition(file: PredictionFile, stem: Path, count: int) -> pa.DataType | None:
    """Write a file's rows to the files of their parts; returns the type of its ids."""
    writers: list[ipc.RecordBatchStreamWriter] = []
    kind = None
    try:
        for piece in file.pieces():
            if not writers:
                kind = piece.schema.field("id").type
                names = [str(stem.with_name(f"{stem.name}-{part}")) for part in range(count)]
                writers = [ipc.new_stream(name, piece.schema) for name in names]
            part = _part_of(piece.column("id"), count).astype(np.uint16)
            order = np.argsort(part, kind="stable")
            ordered = piece.take(pa.array(order))
            ends = np.cumsum(np.bincount(part, minlength=count))
            for k, writer in enumerate(writers):
                start = int(ends[k - 1]) if k else 0
                writer.write_table(ordered.slice(start, int(ends[k]) - start))
    finally:
        for writer in writers:
            writer.close()
    return kind


def _sorted(path: Path) -> pa.Table | None:
    """The rows of a part in the order of their ids; None for a file without rows."""
    if not path.exists():
        return None
    with pa.OSFile(str(path)) as file:
        table = ipc.open_stream(file).read_all()
    path.unlink()
    return pl.DataFrame(pl.from_arrow(table)).sort("id").to_arrow() if len(table) else table
