"""What each task learns of a row: its label or nothing, and its weight.

Reserved columns of rows, where there is more than one plain label: `__target.TASK` (float32, null where the
label is not known), `__weight.TASK` (float32), and `__young.TASK` (bool: left out only since the row is not
mature). `__keep_rate` (float32) is the share of rows like this one that the log has, where rows bring it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import polars as pl

from features.errors import DataError
from features.known import TaskLabel
from features.read.known_clock import LABEL, TARGET
from features.read.labels import label_of
from features.read.locate import locate
from features.spec import Impressions
from features.store.tasks import TargetScale, TaskInfo, is_plain

WEIGHT, YOUNG = "__weight.", "__young."
KEEP_RATE = "__keep_rate"


def task_infos(shown: Impressions) -> list[TaskInfo]:
    """The tasks as the manifest names them, without what is fitted."""
    return [
        TaskInfo(
            name=name,
            kind=label.kind,
            given=label.given,
            scale=TargetScale(kind=label.scale or "none") if label.kind == "regression" else None,
            weighted=label.weight is not None or label.late is not None,
            mature=label.unknown_for,
        )
        for name, label in shown.tasks.items()
    ]


def sampling_of(shown: Impressions) -> float | Literal["keep_rate"] | None:
    """How the manifest says which share of the rows with label 0 the log has."""
    if shown.sampling is None:
        return None
    rate = shown.sampling.negatives
    return "keep_rate" if isinstance(rate, str) else rate


def with_labels(
    rows: pl.DataFrame, shown: Impressions, counters: dict[str, int], *, what: str
) -> pl.DataFrame:
    """Rows with `__label`, int8, of the first task, and with targets and weights where that is not all.

    Args:
        rows: impressions with the columns of the labels.
        shown: the spec of the impressions.
        counters: gets the labels of 1 where the label that they need is not 1; these are left out.
        what: the table, for messages.

    Raises:
        DataError: a label or weight that its rule cannot use.
    """
    label = label_of(rows, shown.label, what=what)
    rows = _with_rates(rows, shown, what=what).with_columns(label.alias(LABEL))
    if is_plain(task_infos(shown)):
        return rows
    first = next(iter(shown.tasks))
    for name, task in shown.tasks.items():
        found = label if name == first else _target(rows, task, what=f"{what}: label {name!r}")
        found = only_given(found.cast(pl.Float32), name, task, rows, counters)
        rows = rows.with_columns(*label_columns(rows, name, task, found, what=what))
    return rows


def only_given(
    target: pl.Series, name: str, task: TaskLabel, rows: pl.DataFrame, counters: dict[str, int]
) -> pl.Series:
    """A label where the one that it needs is 1, if it needs one; those of 1 elsewhere are counted."""
    if task.given is None:
        return target
    exists = (rows[TARGET + task.given] == 1).fill_null(False)
    if task.kind == "binary" and (odd := int(((target == 1) & ~exists).sum())):
        counters[f"labels.{name}.without_{task.given}"] = odd
    return target.set(~exists, None)


def without_young(rows: pl.DataFrame, shown: Impressions, time: str, *, end: int | None) -> pl.DataFrame:
    """Rows whose labels are null where they are younger than `mature` at the end of the log.

    Args:
        rows: of the log, with targets.
        shown: the spec of the impressions.
        time: the column of seconds.
        end: the last of these in the whole log; None where it has no rows.
    """
    columns: list[pl.Expr] = []
    for name, task in shown.tasks.items():
        if task.mature is not None:
            young = pl.col(time) > pl.lit(end, pl.Int64) - task.mature
            target = pl.col(TARGET + name)
            columns.append((young & target.is_not_null()).alias(YOUNG + name))
            columns.append(pl.when(~young).then(target).alias(TARGET + name))
    return rows.with_columns(columns)


def _with_rates(rows: pl.DataFrame, shown: Impressions, *, what: str) -> pl.DataFrame:
    """Rows with the rates at which negatives like them were kept, where a column holds these."""
    if shown.sampling is None or not isinstance(column := shown.sampling.negatives, str):
        return rows
    rates = rows[column].cast(pl.Float64, strict=False)
    wrong = ~((rates > 0) & (rates <= 1)).fill_null(False)
    _refuse(rows, rows[column], wrong, f"{what}: impressions.sampling, {column!r}, must lie in (0, 1]")
    return rows.with_columns(rates.cast(pl.Float32).alias(KEEP_RATE))


def label_columns(
    rows: pl.DataFrame, name: str, task: TaskLabel, target: pl.Series, *, what: str
) -> Iterator[pl.Series]:
    """The reserved columns of a task's label and, if it has them, of its weights.

    Args:
        rows: with the column of the weights.
        name: of the task.
        task: its rule.
        target: float32, null where the label is not known.
        what: the table, for messages.
    """
    yield target.alias(TARGET + name)
    if task.weight is not None:
        yield _weight(rows, task, target, what=f"{what}: weight of label {name!r}").alias(WEIGHT + name)


def _target(rows: pl.DataFrame, task: TaskLabel, *, what: str) -> pl.Series:
    """The label of a further task, null where the log does not tell."""
    if task.from_events is not None:
        return pl.Series([None] * rows.height, dtype=pl.Float32)  # made when the events are there
    values = rows[task.column]
    values = values.fill_nan(None) if values.dtype.is_float() else values
    if task.kind == "binary":
        told = values.is_not_null()
        found = np.zeros(rows.height, dtype=np.int8)
        found[told.to_numpy()] = label_of(rows.filter(told), task, what=what).to_numpy()
        return pl.Series(found).set(~told, None)
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"{what} must be numbers for a regression, got {values.dtype}; convert the column")
    numbers = values.cast(pl.Float64)
    low = task.scale == "log"
    wrong = ~numbers.cast(pl.Float32).is_finite() | ((numbers < 0) if low else False)
    must = f"{what} must be finite{' and at least 0 for scale: log' if low else ''}"
    _refuse(rows, numbers, wrong.fill_null(False), must)
    return numbers


def _weight(rows: pl.DataFrame, task: TaskLabel, target: pl.Series, *, what: str) -> pl.Series:
    """The weight of every row, 0 where its label is not known."""
    rule = task.weight
    assert rule is not None
    known = target.is_not_null()
    values = pl.Series([1.0]).new_from_index(0, rows.height)
    if rule.column is not None:
        values = rows[rule.column].cast(pl.Float64, strict=False)
        wrong = known & ~(values.is_finite() & (values >= 0)).fill_null(False)
        _refuse(rows, rows[rule.column], wrong, f"{what}, {rule.column!r}, must be a finite number ≥ 0")
    if rule.scale != "none":
        values = values.log1p() if rule.scale == "log" else values.sqrt()
    values = values.clip(upper_bound=rule.at_most) if rule.at_most is not None else values
    if task.kind == "binary":
        values = values * (target * (rule.positives - rule.negatives) + rule.negatives)
    return values.set(~known, 0.0).cast(pl.Float32)


def _refuse(rows: pl.DataFrame, values: pl.Series, wrong: pl.Series, must: str) -> None:
    if wrong.any():
        came = values.filter(wrong).head(5).to_list()
        raise DataError(f"{must}, but {locate(rows, wrong)} hold {came}; correct them")
