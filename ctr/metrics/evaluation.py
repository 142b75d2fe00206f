"""A prediction table, in memory or in Parquet, to metrics overall and per slice."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctr.metrics.accumulator import CHUNK_ROWS, MetricAccumulator, Summary
from ctr.metrics.regression import RegressionAccumulator, RegressionSummary
from ctr.metrics.tasks import TaskColumns, columns_of, is_calibrated, tasks_in
from features.errors import DataError

SLICE_PREFIX = "slice_"
WEIGHT = "weight"  # of rows that do not count alike
SAMPLED_SCORE = "sampled_score"  # where negatives were sampled
MISSING, OTHER = "(missing)", "(other)"
_KEYS = {"user": "user_id", "request": "request_id", "row_id": "row_id"}
_BATCH_ROWS = 131_072

PredictionTable: TypeAlias = Mapping[str, np.ndarray] | pa.Table | Path
Batches = Callable[[list[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of a prediction table.

    Args:
        overall: of all rows.
        slices: slice name (without `slice_`) → value → summary of its rows.
    """

    overall: Summary
    slices: dict[str, dict[str, Summary]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; undefined figures are null with their reason."""
        slices = {name: {v: s.to_dict() for v, s in values.items()} for name, values in self.slices.items()}
        return {"overall": self.overall.to_dict(), "slices": slices}

    def to_json(self) -> str:
        """Strict JSON, without NaN or infinity."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def evaluate_table(
    table: PredictionTable,
    *,
    slices: Sequence[str] | None = None,
    task: str | None = None,
    raw: bool = False,
    sampled: bool = False,
    draws: int = 200,
    seed: int = 0,
    chunk_rows: int = CHUNK_ROWS,
    max_values: int = 30,
) -> Evaluation:
    """Evaluate predictions overall and per slice, in memory bounded by `chunk_rows`.

    A Parquet file of more than `chunk_rows` rows is read once for the whole and once for every slice value.

    Args:
        table: columns label and score (probability); user_id, request_id, row_id and weight where known;
            slice columns `slice_<name>`. Arrays by name, an Arrow table, or the path of a Parquet file.
        slices: names without `slice_`; None takes all there are.
        task: of a table of several tasks (`ctr.metrics.tasks`), over the rows where its label is known; None:
            the first one.
        raw: the scores of a calibrated run before its calibration.
        sampled: of a table whose negatives were sampled, as if nothing made up for that: of the first task.
        draws: bootstrap draws by user; 0 for DeLong's interval alone.
        seed: of the bootstrap.
        chunk_rows: rows held in memory.
        max_values: largest number of values of a slice; the rarest beyond it become "(other)".

    Raises:
        ConfigError: the table has no such task.
        DataError: unreadable file, missing column, null key, wrong label or score.

    Example:
        >>> table = {"label": np.array([0, 1, 1, 0]), "score": np.array([0.1, 0.8, 0.4, 0.4]),
        ...          "slice_new": np.array([0, 0, 1, 1])}
        >>> result = evaluate_table(table)
        >>> result.overall.metrics["auc"].value, result.slices["new"]["1"].metrics["auc"].value
        (0.875, 0.5)
    """
    schema, batches = _open(table, chunk_rows)
    columns, own = schema.names, columns_of(task, schema, where="the table")
    own = replace(own, score=f"raw_{own.score}") if raw else own
    own = replace(own, score=SAMPLED_SCORE, weight="sampled_weight") if sampled else own
    names = _slice_names(columns, slices)

    def summarise(keep: Callable[[pa.RecordBatch], pa.RecordBatch] | None, extra: list[str]) -> Summary:
        wanted = [own.label, own.score, *(c for c in (*_KEYS.values(), own.weight) if c in columns), *extra]
        with MetricAccumulator(draws=draws, seed=seed, chunk_rows=chunk_rows) as accumulator:
            for batch in batches(wanted):
                _update(accumulator, _known(keep(batch) if keep else batch, own), own)
            return accumulator.compute()

    # The whole first: its errors count rows from the start of the table, not of a slice.
    overall = summarise(None, [])
    results: dict[str, dict[str, Summary]] = {}
    for name in names:
        column = SLICE_PREFIX + name
        values, rest = _slice_values(batches, column, max_values, own)
        results[name] = {value: summarise(_only(column, [value]), [column]) for value in values}
        if rest:
            results[name][OTHER] = summarise(_only(column, rest), [column])
    return Evaluation(overall=overall, slices=results)


def evaluate_values(table: PredictionTable) -> dict[str, RegressionSummary]:
    """The metrics of each regression of a table, over the rows where its value is known.

    Args:
        table: as `evaluate_table` takes it; values and predictions are in the unit of the log.
    """
    schema, batches = _open(table, CHUNK_ROWS)
    tasks = {name: own for name, own in tasks_in(schema).items() if own.kind == "regression"}
    found = {}
    for name, own in tasks.items():
        wanted = [own.label, own.score, *(c for c in ("user_id", own.weight) if c in schema.names)]
        accumulator = RegressionAccumulator()
        for batch in batches(wanted):
            known = _known(batch, own)
            present = {"user": "user_id", "weight": own.weight}
            keys = {k: _numpy(known, column) for k, column in present.items() if column in schema.names}
            accumulator.update(_numpy(known, own.label), _numpy(known, own.score), **keys)
        found[name] = accumulator.compute()
    return found


def evaluate_raw(table: PredictionTable, **options: Any) -> dict[str, Evaluation]:
    """Those of `evaluate_tasks` without calibration; none of a table whose scores are not calibrated."""
    schema, _ = _open(table, 0)
    return evaluate_tasks(table, raw=True, **options) if is_calibrated(schema) else {}


def evaluate_sampled(table: PredictionTable, **options: Any) -> Evaluation | None:
    """The evaluation of the first task as if nothing made up for sampled negatives; None if none were."""
    schema, _ = _open(table, 0)
    return evaluate_table(table, sampled=True, **options) if SAMPLED_SCORE in schema.names else None


def evaluate_tasks(table: PredictionTable, **options: Any) -> dict[str, Evaluation]:
    """The evaluation of each task of a table, the first one first; of one whose task has no name under "".

    Args:
        table: as `evaluate_table` takes it.
        options: of `evaluate_table`.
    """
    schema, _ = _open(table, 0)
    kinds = {name: columns.kind for name, columns in tasks_in(schema).items()}
    binary = [name for name, kind in kinds.items() if kind == "binary"]
    if not kinds:
        return {"": evaluate_table(table, **options)}
    return {name: evaluate_table(table, task=name, **options) for name in binary}


def _open(table: PredictionTable, chunk_rows: int) -> tuple[pa.Schema, Batches]:
    """The columns of a table and a way to read chosen ones batch by batch, as often as needed."""
    if isinstance(table, Path):
        path = table
        with _readable(path), pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        if rows > chunk_rows:
            return _checked(schema, str(path)), lambda wanted: _read(path, wanted)
        with _readable(path):
            table = pq.read_table(path, page_checksum_verification=True)
    loaded = table if isinstance(table, pa.Table) else pa.table({k: pa.array(v) for k, v in table.items()})
    return _checked(loaded.schema, "the table"), lambda wanted: iter(loaded.select(wanted).to_batches())


def _read(path: Path, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    # Without the last two, Arrow holds the file's bytes of every row group that it has passed.
    options = {"page_checksum_verification": True, "pre_buffer": False, "buffer_size": 1 << 20}
    with _readable(path), pq.ParquetFile(path, **options) as file:
        yield from file.iter_batches(_BATCH_ROWS, columns=wanted)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"predictions must be a readable Parquet file, got {path}: {error}; run the prediction again"
        ) from error


def _checked(schema: pa.Schema, where: str) -> pa.Schema:
    missing = {"label", "score"} - set(schema.names)
    if missing:
        raise DataError(
            f"{where} must have the columns label and score, got {schema.names} without {sorted(missing)}"
        )
    return schema


def _known(batch: pa.RecordBatch, own: TaskColumns) -> pa.RecordBatch:
    """The rows where the label of the task is known."""
    return batch.filter(batch.column(own.label).is_valid()) if own.masked else batch


def _update(accumulator: MetricAccumulator, batch: pa.RecordBatch, own: TaskColumns) -> None:
    present = {key: column for key, column in _KEYS.items() if column in batch.schema.names}
    for column in present.values():
        nulls = batch.column(column).null_count
        if nulls:
            raise DataError(f"column {column} must have no nulls, got {nulls} after row {accumulator.rows}; "
                            f"give every row its id or leave the column out")  # fmt: skip
    keys = {key: _numpy(batch, column) for key, column in present.items()}
    weight = _numpy(batch, own.weight) if own.weight in batch.schema.names else None
    accumulator.update(_numpy(batch, own.label), _numpy(batch, own.score), **keys, weight=weight)


def _numpy(batch: pa.RecordBatch, column: str) -> np.ndarray:
    """A column as NumPy; nulls become NaN and are refused with the labels and scores."""
    values: np.ndarray = batch.column(column).to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "iufb":
        raise DataError(f"column {column} must be numeric, got {batch.column(column).type}; encode it first")
    return values


def _slice_names(columns: list[str], slices: Sequence[str] | None) -> list[str]:
    known = [column.removeprefix(SLICE_PREFIX) for column in columns if column.startswith(SLICE_PREFIX)]
    unknown = sorted(set(slices or ()) - set(known))
    if unknown:
        raise DataError(f"slices must be among {known}, got {unknown}; predict with them first")
    return known if slices is None else list(slices)


def _text(batch: pa.RecordBatch, column: str) -> pa.Array:
    return pc.fill_null(pc.cast(batch.column(column), pa.string()), MISSING)


def _only(column: str, values: list[str]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    wanted = pa.array(values, pa.string())
    return lambda batch: batch.filter(pc.is_in(_text(batch, column), wanted))


def _slice_values(
    batches: Batches, column: str, max_values: int, own: TaskColumns
) -> tuple[list[str], list[str]]:
    """The values of a slice column in reading order, and those too rare to be shown alone."""
    counts: Counter[str] = Counter()
    for batch in batches([column, own.label]):
        for entry in pc.value_counts(_text(_known(batch, own), column)).to_pylist():
            counts[entry["values"]] += entry["counts"]
    ranked = [value for value, _ in counts.most_common()]
    shown = len(ranked) if len(ranked) <= max_values else max_values - 1
    return sorted(ranked[:shown], key=_reading_order), ranked[shown:]


def _reading_order(value: str) -> tuple[float, str]:
    """Numbers and ranges by their first number ("0", "1-5", "6-20", "21+"), then words."""
    match = re.match(r"-?\d+(\.\d+)?", value)
    return (float(match.group()) if match else math.inf, value)
