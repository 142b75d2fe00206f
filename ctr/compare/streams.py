"""Prediction files of any size, matched row by row and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ctr.compare.comparison import CHUNK_ROWS, DRAWS, Comparison
from ctr.compare.files import open_predictions
from ctr.compare.matching import OrderDiffersError, by_id, in_step
from ctr.compare.paired import Paired, make_rows, pairs_of
from ctr.metrics.clusters import codes_of
from ctr.metrics.external_sort import NamedColumns
from features.errors import DataError


def compare_files(
    base: Path,
    variants: Mapping[str, Path],
    *,
    where: tuple[str, str] | None = None,
    task: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    draws: int = DRAWS,
) -> dict[str, Paired]:
    """Compare prediction files, matched by id, in memory bounded by `chunk_rows`.

    Files whose rows come in the same order are read side by side; others are matched by id on disk.

    Args:
        base: run directory (its test predictions), or a Parquet or CSV file. Columns: row_id or id; label;
            score (probability) or logit; user_id or group, and request_id, where known.
        variants: name → path, with the same rows in any order; users and requests are those of the base.
        where: (name of a slice without `slice_`, its value as text): only these rows of the base count.
        task: whose labels and scores are compared, of files of several tasks; None: the first one.
        chunk_rows: rows held in memory.
        draws: of the bootstrap over users.

    Returns:
        Variant name → `Paired`.

    Raises:
        DataError: unreadable file, missing column, or rows that do not match: ids that are missing, extra or
            repeated, or labels or weights that differ; says how many, and the first.
    """
    files = [open_predictions(base, where=where, task=task)]
    files += [open_predictions(path, grouped=False, task=task) for path in variants.values()]
    keys = [key for key in ("user", "request") if key in files[0].columns]
    if len({"weight" in file.columns for file in files}) > 1:
        without = [str(file.path) for file in files if "weight" not in file.columns]
        raise DataError(
            f"all files must have weights of rows, or none, and {', '.join(without)} has none; compare "
            "predictions of one data set, or leave the column out of all"
        )

    def matched(read: Callable[..., Iterator[list[pa.Table]]]) -> dict[str, Paired]:
        options = {"chunk_rows": chunk_rows, "draws": draws}
        with Comparison(models=len(files), keys=keys, **options) as comparison:
            for tables in read(files, chunk_rows=chunk_rows):
                comparison.add(_rows(tables, keys))
            return pairs_of(comparison, list(variants), next(iter(keys), "row"))

    try:
        return matched(in_step)
    except OrderDiffersError:
        return matched(by_id)


def _rows(tables: Sequence[pa.Table], keys: Sequence[str]) -> NamedColumns:
    base = tables[0]
    columns = {key: base.column(key).to_numpy() for key in keys}
    rows = make_rows(
        base.column("label").to_numpy(),
        [table.column("score").to_numpy() for table in tables],
        unit=columns[keys[0]] if keys else codes_of(base.column("id")),
        keys=columns,
    )
    kept = np.ones(len(base), dtype=bool)
    if "kept" in base.column_names:
        kept &= base.column("kept").to_numpy()
    if "weight" in base.column_names:
        rows["weight"] = base.column("weight").to_numpy()
        kept &= rows["weight"] > 0
    return rows if kept.all() else {name: column[kept] for name, column in rows.items()}
