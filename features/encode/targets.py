"""The labels and weights of all tasks in the tables of a data set, how many there are, and fitted scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from features.errors import DataError
from features.read.known_clock import TARGET
from features.read.targets import KEEP_RATE, WEIGHT, YOUNG
from features.store.tasks import KEEP_RATE as STORED_RATE
from features.store.tasks import TARGET as STORED
from features.store.tasks import TARGET_WEIGHT, TargetScale, TaskCounts, TaskInfo

LEVELS = np.linspace(0.0, 1.0, 101)  # of the quantiles that a scale keeps


def target_arrays(rows: pl.DataFrame) -> dict[str, pa.Array]:
    """The columns `target.TASK`, `target_weight.TASK` and `keep_rate` that some rows have."""
    columns = {}
    for column in rows.columns:
        if column.startswith(TARGET):
            # Under a null lies 0, so that the same labels are the same bytes.
            unknown = rows[column].is_null().to_numpy()
            values = rows[column].fill_null(0.0).to_numpy()
            columns[STORED + column.removeprefix(TARGET)] = pa.array(values, mask=unknown)
        elif column.startswith(WEIGHT):
            columns[TARGET_WEIGHT + column.removeprefix(WEIGHT)] = pa.array(rows[column].to_numpy())
        elif column == KEEP_RATE:
            columns[STORED_RATE] = pa.array(rows[column].to_numpy())
    return columns


def task_counts(rows: pl.DataFrame, binary: set[str]) -> dict[str, TaskCounts]:
    """What each task has in some rows; `binary` names those whose positives are counted."""
    found = {}
    for name in (c.removeprefix(TARGET) for c in rows.columns if c.startswith(TARGET)):
        target, young = rows[TARGET + name], rows.get_column(YOUNG + name, default=None)
        found[name] = TaskCounts(
            known=int(target.is_not_null().sum()),
            young=0 if young is None else int(young.sum()),
            positives=int((target == 1).sum()) if name in binary else None,
        )
    return found


def fitted_tasks(tasks: list[TaskInfo], train: pl.DataFrame) -> list[TaskInfo]:
    """The tasks with their scales by quantiles fitted on the rows of the train part.

    Raises:
        DataError: no row of the train part has a label to fit on.
    """
    known = {task.name: known_targets(task.name, train) for task in tasks if by_quantiles(task)}
    return with_quantiles(tasks, {n: np.quantile(v, LEVELS) if len(v) else v for n, v in known.items()})


def by_quantiles(task: TaskInfo) -> bool:
    """Whether the scale of a task is fitted."""
    return task.scale is not None and task.scale.kind == "quantile"


def known_targets(task: str, train: pl.DataFrame) -> np.ndarray:
    """The labels (N,) of some rows that the scale of a task is fitted on, float64."""
    return train[TARGET + task].drop_nulls().to_numpy().astype(np.float64)


def with_quantiles(tasks: list[TaskInfo], quantiles: Mapping[str, np.ndarray]) -> list[TaskInfo]:
    """The tasks with scales of these quantiles at `LEVELS`; none at all where no label is known.

    Raises:
        DataError: there are none.
    """
    if empty := [name for name, found in quantiles.items() if not len(found)]:
        raise DataError(
            f"label {empty[0]!r} must be known in some row of the train part to fit scale: quantile on, it "
            "is in none; choose scale: log or none"
        )
    scales = {n: TargetScale(kind="quantile", quantiles=found.tolist()) for n, found in quantiles.items()}
    return [
        task.model_copy(update={"scale": scales[task.name]}) if task.name in scales else task
        for task in tasks
    ]
