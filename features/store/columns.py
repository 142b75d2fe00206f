"""The columns of a data set's Arrow files as numpy views: IDs, lists of IDs with weights, dense vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
from pydantic import Field

from features.computed import Strict, is_false
from features.errors import DataError


class Column(Strict):
    """One feature or one field of side info."""

    name: str
    level: Literal["request", "candidate", "event"]
    kind: Literal["id", "ids", "dense"]
    table: str | None = None  # id, ids: the embedding table
    weighted: bool = False  # ids: has a weight column
    dim: int = 1  # dense: width, including missing indicators
    fields: list[str] = Field(default=[])  # dense: name of each of the dim values
    known_later: bool = Field(default=False, exclude_if=is_false)  # event: missing before it was known


@dataclass(frozen=True)
class IdValues:
    """IDs of consecutive owners: one each (no `offsets`), or values[offsets[i]:offsets[i+1]] for owner i."""

    values: np.ndarray  # uint8, uint16 or int32
    offsets: np.ndarray | None = None  # int64 (owners + 1,)
    weights: np.ndarray | None = None  # float32, as values


def id_type(rows: int) -> type[np.integer[Any]]:
    """The type that IDs of a table of so many rows are written in.

    Example:
        >>> [id_type(rows).__name__ for rows in (256, 257, 65_536, 65_537)]
        ['uint8', 'uint16', 'uint16', 'int32']
    """
    return np.uint8 if rows <= 2**8 else np.uint16 if rows <= 2**16 else np.int32


def id_values(table: pa.Table, column: Column) -> IdValues:
    """The IDs of an `id` or `ids` column of a (sliced) table, as numpy views."""
    values = flat(table[f"id.{column.name}"])
    if column.kind == "id":
        return IdValues(values.to_numpy())
    weights = flat(table[f"weight.{column.name}"]).flatten().to_numpy() if column.weighted else None
    offsets = values.offsets.to_numpy()  # of a slice: does not start at 0, while flatten() does
    return IdValues(values.flatten().to_numpy(), (offsets - offsets[0]).astype(np.int64), weights)


def dense_values(table: pa.Table, column: Column) -> np.ndarray:
    """The float32 (rows, dim) values of a dense column of a (sliced) table."""
    return flat(table[f"dense.{column.name}"]).flatten().to_numpy().reshape(-1, column.dim)


def flat(column: pa.ChunkedArray) -> pa.Array:
    """One array; a copy only where a slice crosses record batches."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)


def read_arrow(path: Path) -> pa.Table:
    """Open an Arrow file memory-mapped."""
    try:
        return ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} must be an Arrow file written by ctr prepare: {error}") from None
