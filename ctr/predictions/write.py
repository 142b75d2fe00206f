"""Tables of scores as Parquet files, some thousand rows at a time; a file appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.metrics.tasks import metadata_of
from ctr.predictions.outputs import outputs_of
from ctr.predictions.split import SplitRows
from features.dataset import is_plain
from features.durable import replacing

GROUP_ROWS = 65_536  # of a row group, at least, but for the last


class Scored(NamedTuple):
    """Some rows with their predictions, (N,) each."""

    row_id: np.ndarray  # int64
    logit: np.ndarray  # float32
    score: np.ndarray  # float64 probability
    # Of each output but the first, in the order of `outputs_of`: float64 probability, or the value itself.
    others: tuple[np.ndarray, ...] = ()
    # Of a run whose scores are calibrated: what they are without that, of each output.
    raw: tuple[np.ndarray, ...] = ()
    # Where negatives are sampled: the chance of the first label among the rows that are kept, alone.
    sampled: tuple[np.ndarray, ...] = ()


def write_predictions(path: Path, rows: SplitRows, scored: Iterable[Scored]) -> int:
    """Write the predictions of a split; returns the number of rows.

    Args:
        path: the Parquet file.
        rows: of the split.
        scored: all rows of the split, in file order.

    Raises:
        ValueError: other rows, or another order.
    """
    return write_rows(
        path, (_table(rows, start, part) for start, part in _grouped(scored)), point="predictions"
    )


def write_rows(path: Path, tables: Iterable[pa.Table], *, point: str) -> int:
    """Write tables of one schema below one another, a row group each; returns the number of rows.

    Args:
        path: the Parquet file; nothing is written where there is no table.
        tables: made one at a time.
        point: name of the fault point at the file's rename.
    """
    coming = iter(tables)
    first = next(coming, None)
    if first is None:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with (
        replacing(path, point=point) as partial,
        pq.ParquetWriter(partial, first.schema, write_page_checksum=True) as writer,
    ):
        for table in chain([first], coming):
            writer.write_table(table)
            written += table.num_rows
    return written


def _grouped(scored: Iterable[Scored]) -> Iterator[tuple[int, Scored]]:
    """The parts in groups of at least `GROUP_ROWS`, each with the number of rows before it."""
    held: list[Scored] = []
    start = rows = 0
    for part in scored:
        held.append(part)
        rows += len(part.row_id)
        if rows - start >= GROUP_ROWS:
            yield start, _joined(held)
            held, start = [], rows
    if rows > start:
        yield start, _joined(held)


def _joined(parts: list[Scored]) -> Scored:
    def joined(columns: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
        return [np.concatenate(column) for column in zip(*columns, strict=True)]

    row_id, logit, score = joined(part[:3] for part in parts)
    more = (tuple(joined(getattr(part, name) for part in parts)) for name in ("others", "raw", "sampled"))
    return Scored(row_id, logit, score, *more)


def _table(rows: SplitRows, start: int, part: Scored) -> pa.Table:
    stop = start + len(part.row_id)
    columns = rows.columns(start, stop)
    if not np.array_equal(part.row_id, columns["row_id"].to_numpy()):
        raise ValueError(f"predictions must come in the order of the split, rows {start} to {stop} do not")
    scores = {"score": pa.array(part.score), "logit": pa.array(part.logit)}
    tasks = rows.dataset.manifest.tasks
    outputs = outputs_of(tasks)[: 1 + len(part.others)]  # a baseline knows the first task alone
    named = zip(outputs[1:], part.others, strict=True)
    scores |= {f"score_{output.name}": pa.array(found) for output, found in named}
    own = [name for name in scores if name != "logit"][: len(part.raw)]
    scores |= {f"raw_{name}": pa.array(found) for name, found in zip(own, part.raw, strict=True)}
    if part.sampled:
        scores |= {"sampled_score": pa.array(part.sampled[0]), **rows.sampled_weight(start, stop)}
    table = pa.table(columns | scores | rows.keys(start, stop) | rows.slices(start, stop))
    if is_plain(tasks):
        return table
    return table.replace_schema_metadata(metadata_of({o.name: o.task.kind for o in outputs}))
