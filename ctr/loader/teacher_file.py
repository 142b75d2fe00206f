"""A file of predictions that a run learns from: its columns are of known kinds, its logits those of our rows.

N rows of the training part, in file order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError

PLACE = ["log_row", "log_file"]
CODES = ["row_id", "request_id", "user_id", "item_id", "time"]


def taught_logits(file: Path, own: pl.DataFrame) -> np.ndarray:
    """Float64 (N,): a teacher's logit of each of our rows, each one a finite float32.

    Args:
        file: a Parquet file.
        own: `PLACE`, as far as it is known, `CODES` and `label` of our rows, from `frame_of`.

    Raises:
        DataError: the file does not have each row once, with our label and a finite logit, or a column is of
            another kind.
    """
    table = _read(file)
    place = [name for name in PLACE if name in table.column_names and name in own.columns]
    keys = [*place, "time"] if "log_row" in place else CODES
    needed = [*keys, "label", "logit"]
    if missing := set(needed) - set(table.column_names):
        raise DataError(f"{file} must have the columns {sorted(missing)} to be learned from; {_remedy(file)}")
    _check_kinds(file, table, needed)
    taught = frame_of(table.select(needed)).rename({"label": "teacher_label"})
    if doubled := len(taught) - taught.select(keys).n_unique():
        raise DataError(f"{file} must have each row once, {doubled:,} rows are repeated; {_remedy(file)}")
    found = own.join(taught, on=keys, how="left", maintain_order="left")
    _check_rows(file, found, keys)
    return found["logit"].to_numpy()


def frame_of(table: pa.Table) -> pl.DataFrame:
    """Columns of one type for each name: int64, text, float32 labels, float64 logits."""
    types = {**dict.fromkeys([*CODES, "log_row"], pl.Int64), "log_file": pl.String}
    types |= {"label": pl.Float32, "logit": pl.Float64}
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.select(pl.col(name).cast(types[name], strict=False) for name in frame.columns)


def _read(file: Path) -> pa.Table:
    """The columns that may be asked for."""
    if not file.is_file():
        raise DataError(
            f"the predictions of a teacher must be there, but there is no {file}; {_remedy(file)}"
        )
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            names = opened.schema_arrow.names
            wanted = [name for name in [*PLACE, *CODES, "label", "logit"] if name in names]
            if twice := [name for name in wanted if names.count(name) > 1]:
                raise DataError(f"{file} must have one column of a name, {twice[0]} is there twice")
            return opened.read(wanted)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} must be a readable Parquet file: {error}; {_remedy(file)}") from error


def _check_kinds(file: Path, table: pa.Table, names: Sequence[str]) -> None:
    """Refuse a column of another kind than predictions have."""
    for name in names:
        is_right, kind = _KINDS.get(name, (pa.types.is_integer, "whole numbers"))
        if not is_right(found := table.schema.field(name).type):
            raise DataError(f"{file} must have {kind} in column {name}, got {found}; {_remedy(file)}")


def _check_rows(file: Path, found: pl.DataFrame, keys: Sequence[str]) -> None:
    """Refuse rows that the teacher does not have, other labels, and what is no finite float32."""
    finite = pl.col("logit").cast(pl.Float32).is_finite()
    wrong = {
        "have a finite float32 logit of each training row": finite.not_().fill_null(True),
        "have the labels of the data set": pl.col("label").ne_missing(pl.col("teacher_label")),
    }
    for wanted, expression in wrong.items():
        if len(rows := found.filter(expression)):
            first = ", ".join(f"{name} {rows[name][0]}" for name in keys)
            raise DataError(
                f"{file} must {wanted}, which {len(rows):,} of {len(found):,} rows lack, first {first}; "
                f"{_remedy(file)}"
            )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


_KINDS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "log_file": (_is_text, "text"),
    "label": (lambda kind: _is_number(kind) or pa.types.is_boolean(kind), "numbers"),
    "logit": (_is_number, "numbers"),
}


def _remedy(file: Path) -> str:
    run = file.parent.parent
    return (
        f"write it with: ctr predict {run} --split train (of an ensemble: ctr ensemble RUN RUN … --out {run} "
        "--train), with the data set of this run or another one of the same log"
    )
