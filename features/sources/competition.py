"""Competition-format logs: one row per impression, with every history as ready-made lists.

    *.parquet     user_id, item_id, label_type (2 = positive), timestamp (s), user_int_feats_*,
                  item_int_feats_*, user_dense_feats_*, and per domain <prefix>_<fid> as lists of integers
    schema.json   {user_int: [[fid, vocabulary, dim]], item_int: …, user_dense: [[fid, dim]],
                  seq: {domain: {prefix, ts_fid, features: [[fid, vocabulary]]}}}

    impressions   the rows without their lists; dense lists as arrays of fixed width, missing where short
    <domain>      one table per domain of schema.json: user_id, the time and the columns that the spec reads

Options: `order: newest_first | oldest_first` (of the lists; checked), `cap: {domain: most events of a list}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from features.computed import Strict
from features.errors import ConfigError, DataError
from features.read.scan import check_columns
from features.sources.history_columns import HistoryColumns
from features.sources.logged_histories import ParquetFiles, RequestTimes, read_events
from features.spec import Needed, Positive

KEYS = ("user_id", "item_id", "label_type", "timestamp")


class Options(Strict):
    """What a spec must say of the lists."""

    order: Literal["newest_first", "oldest_first"]
    cap: dict[str, Positive] = Field(default={})


class DomainSchema(Strict):
    """One domain of schema.json."""

    prefix: str
    ts_fid: int
    features: list[tuple[int, int]]  # column number, size of the vocabulary

    @property
    def vocabularies(self) -> dict[str, int]:
        """Column → size of its vocabulary; of the time column the size means nothing."""
        return {f"{self.prefix}_{fid}": size for fid, size in self.features}


class LogSchema(Strict):
    """schema.json."""

    format: str = "raw_parquet"
    user_int: list[tuple[int, int, int]]  # column number, size of the vocabulary, most values
    item_int: list[tuple[int, int, int]]
    user_dense: list[tuple[int, int]]  # column number, width
    seq: dict[str, DomainSchema]

    @property
    def dense(self) -> dict[str, int]:
        """Dense column → width."""
        return {f"user_dense_feats_{fid}": dim for fid, dim in self.user_dense}

    @property
    def plain(self) -> list[str]:
        """The columns of a row that are neither dense nor lists of events."""
        users = [f"user_int_feats_{fid}" for fid, _, _ in self.user_int]
        return [*KEYS, *users, *(f"item_int_feats_{fid}" for fid, _, _ in self.item_int)]


def read(root: Path, *, options: dict[str, Any], needed: Needed) -> dict[str, pl.LazyFrame]:
    """Read the log in `root`; of the lists only the columns that are needed.

    Returns:
        impressions, and a table per domain.

    Raises:
        ConfigError: options that are missing or wrong.
        DataError: no log there, a column that is missing, or lists that do not hold what is declared.
    """
    declared, schema = _options(options), _schema(root)
    if unknown := sorted(set(declared.cap) - set(schema.seq)):
        raise ConfigError(f"source.options.cap names domains {unknown}; schema.json has {sorted(schema.seq)}")
    files = _files(root, schema)
    rows = _impressions(files, schema)
    requests = RequestTimes.of(*(_keys(rows, name) for name in ("user_id", "timestamp")))
    tables = {"impressions": rows.lazy()}
    for name, domain in schema.seq.items():
        history = _history_columns(name, domain, declared, needed.get(name, {}))
        tables[name] = (
            read_events(files, history, requests) if name in needed else _no_events(domain)
        ).lazy()
    return tables


def _history_columns(
    name: str, domain: DomainSchema, declared: Options, wanted: dict[str, str]
) -> HistoryColumns:
    time = f"{domain.prefix}_{domain.ts_fid}"
    check_columns(["user_id", *domain.vocabularies], wanted, what=f"table {name!r}")
    values = {n: size for n, size in domain.vocabularies.items() if n in wanted and n != time}
    return HistoryColumns(name, time, values, declared.order == "newest_first", declared.cap.get(name))


def _no_events(domain: DomainSchema) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series([], dtype=pl.Int64) for name in ("user_id", *domain.vocabularies)})


def _options(options: dict[str, Any]) -> Options:
    try:
        return Options.model_validate(options)
    except ValidationError:
        raise ConfigError(
            "source.options of 'competition' must be {order: newest_first or oldest_first, "
            f"cap: {{domain: most events of a list}} (optional)}}, got {options}; correct the spec"
        ) from None


def _schema(root: Path) -> LogSchema:
    path = root / "schema.json"
    if not path.is_file():
        raise DataError(
            f"{root} must hold a competition-format log with its schema.json, but has none; put it there or "
            "give --source DIR"
        )
    try:
        return LogSchema.model_validate(json.loads(path.read_text()))
    except (ValidationError, ValueError) as error:
        raise DataError(
            f"{path} must hold user_int, item_int, user_dense and seq, as features/sources/competition.py "
            f"says: {error}; correct it"
        ) from None


def _files(root: Path, schema: LogSchema) -> ParquetFiles:
    """The files in the order of their names, each with all columns of the schema."""
    paths = sorted(p for p in root.glob("*.parquet") if p.is_file())
    if not paths:
        raise DataError(
            f"{root} must hold Parquet files beside its schema.json, but has none; put them there"
        )
    wanted = [*schema.plain, *schema.dense, *(c for s in schema.seq.values() for c in s.vocabularies)]
    rows = [0]
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                present, count = file.schema_arrow.names, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}; write it again") from None
        if missing := [c for c in wanted if c not in present]:
            raise DataError(
                f"{path} must have every column of schema.json, but lacks {missing[:5]}; write the file "
                "again, or take them out of schema.json"
            )
        rows.append(rows[-1] + count)
    return ParquetFiles(paths, np.array(rows))


def _impressions(files: ParquetFiles, schema: LogSchema) -> pl.DataFrame:
    """The rows without their lists of events."""
    parts = []
    for first, batch in files.batches([*schema.plain, *schema.dense], size=8192):
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, width in schema.dense.items():
            columns[name] = _fixed_width(columns[name], name, width, first, files)
        parts.append(pa.table(columns))
    frame = pl.from_arrow(pa.concat_tables(parts)) if parts else pl.DataFrame()
    assert isinstance(frame, pl.DataFrame)
    return frame


def _fixed_width(column: pa.Array, name: str, width: int, first_row: int, files: ParquetFiles) -> pa.Array:
    """Lists of numbers as float32 arrays of one width; what a short list lacks is missing."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{files.locate(first_row)}: column {name!r} must hold lists of numbers, got {kind}")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if (longer := lengths > width).any():
        at = int(longer.argmax())
        raise DataError(
            f"{files.locate(first_row + at)}: {name!r} must hold at most {width} values, as schema.json "
            f"says, got {lengths[at]}; correct the width there"
        )
    there = np.arange(width) < lengths[:, None]
    flat = np.full(there.shape, np.nan, dtype=np.float32)
    flat[there] = column.flatten().to_numpy(zero_copy_only=False)
    missing = ~there.reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), mask=missing), width)


def _keys(rows: pl.DataFrame, name: str) -> np.ndarray:
    column = rows[name]
    if not column.dtype.is_integer() or column.null_count():
        raise DataError(
            f"column {name!r} of a competition-format log must hold integers, none missing, got "
            f"{column.dtype} with {column.null_count()} missing; repair the files"
        )
    return column.cast(pl.Int64).to_numpy()
