"""Prediction files as a stream of pieces with columns of known names and types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
from scipy.special import expit

from ctr.metrics.clusters import Codes, codes_of
from ctr.metrics.evaluation import MISSING, SLICE_PREFIX
from ctr.metrics.ranking import check_rows, check_weights
from ctr.metrics.tasks import columns_of
from features.errors import DataError

PIECE_ROWS = 1 << 20
_BATCH_ROWS = 131_072
_BUFFER_BYTES = 1 << 20
# What a comparison calls a column → the names a file may have for it, the first that is there counts.
_NAMES = {
    "id": ("row_id", "id"),
    "label": ("label",),
    "score": ("score", "logit"),
    "user": ("user_id", "group"),
    "request": ("request_id",),
}
_NEEDED = ("id", "label", "score")


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """A table of predictions.

    Args:
        path: Parquet, or CSV with a header.
        columns: what a comparison reads → its name in the file.
        where: a slice column and the value that counts, or None.
        masked: whether labels may be null; such rows do not count.
    """

    path: Path
    columns: Mapping[str, str]
    where: tuple[str, str] | None = None
    masked: bool = False

    def rows_at_most(self) -> int:
        """An upper estimate of its rows, from its size where the format does not say."""
        if _is_csv(self.path):
            return self.path.stat().st_size // 8
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            return int(file.metadata.num_rows)

    def pieces(self) -> Iterator[pa.Table]:
        """The rows in pieces of `PIECE_ROWS`, the last one smaller.

        Columns: id (int64 or string); label, score (float64, checked; a logit has become a probability);
        user, request (uint64 codes) and weight (float64, 0 where the label is not known) where the file has
        them; kept (bool) under `where` or if `masked`.

        Raises:
            DataError: an unreadable file, or a value that is not as it must be.
        """
        done = 0
        for piece in _in_pieces(self._batches()):
            try:
                yield self._normal(piece, done)
            except DataError as error:
                raise DataError(f"{self.path}: {error}") from error
            done += len(piece)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys([*self.columns.values(), *([self.where[0]] if self.where else [])]))
        with _readable(self.path):
            if _is_csv(self.path):
                numbers = {"label", "score", "weight"} & {*self.columns}
                types = {self.columns[name]: pa.float64() for name in numbers}
                convert = pc_csv.ConvertOptions(include_columns=wanted, column_types=types)
                yield from pc_csv.open_csv(self.path, convert_options=convert)
                return
            # Without these two, Arrow holds the file's bytes of every row group that it has passed.
            options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
            with pq.ParquetFile(self.path, page_checksum_verification=True, **options) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=wanted)

    def _normal(self, piece: pa.Table, done: int) -> pa.Table:
        ids = _ids(piece.column(self.columns["id"]), self.columns["id"], done)
        label, score = (_numbers(piece, self.columns[name]) for name in ("label", "score"))
        known = ~np.isnan(label)
        label = np.where(known, label, 0.0) if self.masked else label
        if self.columns["score"] == "logit":
            score = expit(score)
        check_rows(label, score, row_id=np.asarray(ids), probability=True)
        found = {"id": ids, "label": pa.array(label), "score": pa.array(score)}
        for name in ("user", "request"):
            if name in self.columns:
                found[name] = pa.array(_codes(piece.column(self.columns[name]), self.columns[name], done))
        if "weight" in self.columns:
            weight = np.where(known, _numbers(piece, self.columns["weight"]), 0.0)
            found["weight"] = pa.array(check_weights(weight, label, row_id=np.asarray(ids)))
        if self.masked:
            found["kept"] = pa.array(known)
        if self.where:
            text = pc.fill_null(pc.cast(piece.column(self.where[0]), pa.string()), MISSING)
            chosen = pc.equal(text, self.where[1]).combine_chunks()
            found["kept"] = pc.and_(found["kept"], chosen) if self.masked else chosen
        return pa.table(found)


def open_predictions(
    path: Path, *, where: tuple[str, str] | None = None, grouped: bool = True, task: str | None = None
) -> PredictionFile:
    """Find a file and its columns.

    Args:
        path: a run directory, whose predictions of the test part are meant, or a file.
        where: name of a slice (without `slice_`) and its value as text.
        grouped: whether its users and requests are read.
        task: whose labels and scores are read; None: those of the first.

    Raises:
        ConfigError: it has no such task.
        DataError: there is no such file, or a column is missing.
    """
    path = path / "predictions" / "test.parquet" if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"predictions must be a run directory, a Parquet or a CSV file, but there is no {path}; "
            f"make a run's with: ctr evaluate RUN"
        )
    schema = _header(path)
    present, own = list(schema.names), columns_of(task, schema, where=str(path))
    named = _NAMES if task is None else _NAMES | {"label": (own.label,), "score": (own.score,)}
    columns = {name: next((c for c in names if c in present), "") for name, names in named.items()}
    missing = [" or ".join(_NAMES[name]) for name in _NEEDED if not columns[name]]
    if missing:
        raise DataError(
            f"{path} must have the columns {', '.join(missing)}, got {present}; rename or add them"
        )
    if where and SLICE_PREFIX + where[0] not in present:
        known = [name.removeprefix(SLICE_PREFIX) for name in present if name.startswith(SLICE_PREFIX)]
        raise DataError(f"a slice of {path} must be among {known}, got {where[0]!r}")
    used = {name: c for name, c in columns.items() if c and (grouped or name in _NEEDED)}
    used |= {"weight": own.weight} if own.weight in present else {}
    part = (SLICE_PREFIX + where[0], where[1]) if where else None
    return PredictionFile(path=path, columns=used, where=part, masked=own.masked)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _header(path: Path) -> pa.Schema:
    with _readable(path):
        if _is_csv(path):
            with pc_csv.open_csv(path) as reader:
                return reader.schema
        with pq.ParquetFile(path) as file:
            return file.schema_arrow


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(
            f"predictions must be a readable Parquet or CSV file, got {path}: {error}; write it again"
        ) from error


def _in_pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of any size as tables of `PIECE_ROWS` rows."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        while rows >= PIECE_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, PIECE_ROWS)
            held = table.slice(PIECE_ROWS).to_batches()
            rows -= PIECE_ROWS
    if rows:
        yield pa.Table.from_batches(held)


def _ids(column: pa.ChunkedArray, name: str, done: int) -> pa.Array:
    _no_nulls(column, name, done)
    if pa.types.is_integer(column.type):
        return pc.cast(column, pa.int64()).combine_chunks()
    if _is_text(column.type):
        return pc.cast(column, pa.large_string()).combine_chunks()
    raise DataError(f"column {name} must be integers or text, got {column.type}")


def _numbers(piece: pa.Table, name: str) -> np.ndarray:
    """A column in float64; nulls become NaN, which the check of labels and scores refuses."""
    column = piece.column(name)
    if not any(
        test(column.type) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    ):
        raise DataError(f"column {name} must be numbers, got {column.type}")
    values: np.ndarray = pc.cast(column, pa.float64()).to_numpy()
    return values


def _codes(column: pa.ChunkedArray, name: str, done: int) -> Codes:
    """Users or requests as 64-bit codes."""
    _no_nulls(column, name, done)
    if pa.types.is_integer(column.type) or _is_text(column.type):
        return codes_of(column)
    raise DataError(f"column {name} must be integers or text, got {column.type}")


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        test(value) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _no_nulls(column: pa.ChunkedArray, name: str, done: int) -> None:
    if column.null_count:
        raise DataError(
            f"column {name} must have no nulls, got {column.null_count} after row {done}; "
            f"give every row its id or leave the column out"
        )
