"""What is fitted on the training period: every part counts and sorts its own, then all are put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.encode.merged import merged_moments, merged_quantiles
from features.encode.scale import (
    LEVELS,
    Scaler,
    fitted_on,
    moment_scaler,
    numbers_of,
    quantile_scaler,
)
from features.encode.tables import (
    Bucketizer,
    FittedTable,
    Hash,
    Vocabulary,
    count_values,
    fit_vocabulary,
    inner_levels,
    log_buckets,
    quantile_buckets,
)
from features.encode.targets import LEVELS as TARGET_LEVELS
from features.encode.targets import by_quantiles, known_targets
from features.encode.transform import FitSpan, comparable, fit_range, fit_span, id_values_of, key_type
from features.encode.uses import Use
from features.partitions.frames import read_frame, write_frame
from features.read.numbers import numeric
from features.read.targets import task_infos
from features.spec import DenseFeature, IdFeature, IdTable, Spec


def fit_part(out: Path, spec: Spec, uses: list[Use]) -> dict[str, Any]:
    """What the training rows of one part add to all that is fitted.

    Returns:
        spans: use → rows, first and last clock; types: use of a hash table → type; dense: use → column → how
        many training rows, and how many have a number.
    """
    found: dict[str, Any] = {"spans": {}, "types": {}, "dense": {}}
    for name, table in spec.tables.items():
        own = [u for u in uses if isinstance(u.feature, IdFeature) and u.feature.table == name]
        values = comparable([id_values_of(use) for use in own], table, own)
        for use, value in zip(own, values, strict=True):
            found["spans"][use.key] = fit_span(use)
            if table.encode == "hash":
                found["types"][use.key] = key_type(value, what=use.what)
            else:
                _fit_values(out, name, table, use, value.of(use.training))
    for use in uses:
        if isinstance(use.feature, DenseFeature):
            found["spans"][use.key] = fit_span(use)
            found["dense"][use.key] = _fit_dense(out, use, use.feature)
    return found


def fit_targets(out: Path, spec: Spec, train: pl.DataFrame) -> None:
    """Sort the training labels of one part whose scale is fitted."""
    for task in filter(by_quantiles, task_infos(spec.impressions)):
        np.sort(known_targets(task.name, train)).astype("<f8").tofile(out / target_file(task.name))


def target_file(task: str) -> str:
    """The sorted labels of a task."""
    return f"target-{task}.bin"


def merge_target(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """The quantiles of the training labels of all parts; none where no label is known."""
    parts = [_mapped(work / path) for path in arguments["paths"]]
    some = any(len(part) for part in parts)
    return {"quantiles": merged_quantiles(parts, TARGET_LEVELS).tolist() if some else []}


def merge_table(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fit a table on what the parts found: `values.arrow` of a vocabulary, or the boundaries of buckets."""
    table = IdTable.model_validate(arguments["table"])
    if table.encode == "vocabulary":
        shown, happened = (_read_counts(work, arguments[kind]) for kind in ("shown", "happened"))
        fitted = fit_vocabulary(table, shown, happened)
        write_frame(out / "values.arrow", pl.DataFrame({"value": fitted.values, "count": fitted.counts}))
        return {}
    assert table.rows is not None
    parts = [_mapped(work / path) for path in (*arguments["shown"], *arguments["happened"])]
    some = any(len(part) for part in parts)
    quantiles = merged_quantiles(parts, inner_levels(table.rows)) if some else np.empty(0)
    return {"boundaries": quantile_buckets(table.rows, quantiles).boundaries.tolist()}


def merge_dense(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fit the scaler of one column on what the parts found: its state."""
    feature = DenseFeature.model_validate(arguments["feature"])
    missing = arguments["known"] < arguments["rows"] or arguments["known_later"]
    if feature.scale == "none" or not arguments["known"]:
        return Scaler(feature.scale, feature.clip, missing=missing).state()
    paths = [work / path for path in arguments["paths"]]
    if feature.scale == "quantile":
        return quantile_scaler(
            merged_quantiles([_mapped(p) for p in paths], LEVELS), feature, missing=missing
        ).state()
    moments = merged_moments(_reader(paths), arguments["known"])
    return moment_scaler(*moments, feature, missing=missing).state()


def table_arguments(
    spec: Spec, uses: Sequence[tuple[str, str | None, str]], folders: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """The tasks of `merge_table`, one for each table that has values to be fitted on.

    Args:
        spec: without patterns.
        uses: of tables: key, domain and table.
        folders: `""` for the impressions, or a domain → where its parts were fitted.
    """
    tasks = []
    for name, table in spec.tables.items():
        if table.encode in ("hash", "log"):
            continue
        ending = "arrow" if table.encode == "vocabulary" else "bin"
        files: dict[bool, list[str]] = {True: [], False: []}
        for key, domain, used in uses:
            if used == name:
                files[domain is None] += [f"{f}/{_file(key)}.{ending}" for f in folders[domain or ""]]
        if files[True] or files[False]:
            plain = table.model_dump(mode="json")
            tasks.append({"name": name, "table": plain, "shown": files[True], "happened": files[False]})
    return tasks


def fitted_table(work: Path, table: IdTable, merged: dict[str, Any] | None) -> FittedTable:
    """A table that is ready to be looked up.

    Args:
        work: of the job.
        table: of the spec.
        merged: folder and result of its `merge_table`; None where nothing is fitted.
    """
    if table.encode == "vocabulary":
        assert merged is not None
        values = read_frame(work / merged["folder"] / "values.arrow")
        return Vocabulary(table.oov_rows, values["value"], values["count"])
    assert table.rows is not None
    if table.encode == "hash":
        return Hash(table.rows)
    if table.encode == "log":
        return log_buckets(table.rows, table.log_base)
    assert merged is not None
    return Bucketizer("quantile", table.rows, np.array(merged["boundaries"], dtype=np.float64))


def span_of(spans: list[FitSpan]) -> dict[str, Any]:
    """The rows that something was fitted on."""
    return fit_range([(s[0], s[1], s[2]) for s in spans])


def dense_files(key: str, columns: list[str]) -> dict[str, str]:
    """The file of each column of a dense feature."""
    return {column: f"{_file(key)}-{i}.bin" for i, column in enumerate(columns)}


def _file(key: str) -> str:
    return f"fit-{key.replace('/', '+')}"


def _fit_values(out: Path, name: str, table: IdTable, use: Use, values: pl.Series) -> None:
    what = f"table {name!r}"
    if table.encode == "vocabulary":
        write_frame(out / f"{_file(use.key)}.arrow", count_values(values, what=what))
    elif table.encode == "quantile":
        numbers = numeric(values, what=what)
        np.sort(numbers[np.isfinite(numbers)]).astype("<f8").tofile(out / f"{_file(use.key)}.bin")


def _fit_dense(out: Path, use: Use, feature: DenseFeature) -> dict[str, list[int]]:
    training = use.frame.select(feature.columns).filter(pl.Series(use.training))
    numbers = numbers_of(training, feature.columns, use.what)
    found, files = {}, dense_files(use.key, list(numbers))
    for column, values in numbers.items():
        known = fitted_on(values, feature)
        known = np.sort(known) if feature.scale == "quantile" else known
        if feature.scale != "none":
            known.astype("<f8").tofile(out / files[column])
        found[column] = [len(values), len(known)]
    return found


def _read_counts(work: Path, paths: list[str]) -> list[pl.DataFrame]:
    return [read_frame(work / path) for path in paths]


def _mapped(path: Path) -> np.ndarray:
    return np.memmap(path, dtype="<f8", mode="r") if path.stat().st_size else np.empty(0)


def _reader(paths: list[Path]) -> Any:
    """Reads numbers [low, high) of files that follow one another."""
    ends = np.cumsum([path.stat().st_size // 8 for path in paths])

    def read(low: int, high: int) -> np.ndarray:
        found, at = [], 0
        for path, end in zip(paths, ends, strict=True):
            first, last = max(low, at), min(high, int(end))
            if first < last:
                found.append(np.fromfile(path, dtype="<f8", count=last - first, offset=8 * (first - at)))
            at = int(end)
        return np.concatenate(found) if found else np.empty(0)

    return read
