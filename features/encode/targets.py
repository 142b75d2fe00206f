"""The labels and weights of all tasks in the tables of a data set, how many there are, and fitted scales."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from features.errors import DataError
from features.read.known_clock import TARGET
from features.read.targets import KEEP_RATE, WEIGHT, YOUNG
from features.store.tasks import KEEP_RATE as STORED_RATE
from features.store.tasks import TARGET as STORED
from features.store.tasks import TARGET_WEIGHT, TargetScale, TaskCounts, TaskInfo

_STEPS = 100  # of the shares at which a scale by quantiles is fitted


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
    return [
        task.model_copy(update={"scale": _fitted(task, train)})
        if task.scale is not None and task.scale.kind == "quantile"
        else task
        for task in tasks
    ]


def _fitted(task: TaskInfo, train: pl.DataFrame) -> TargetScale:
    values = train[TARGET + task.name].drop_nulls().to_numpy().astype(np.float64)
    if not len(values):
        raise DataError(
            f"label {task.name!r} must be known in some row of the train part to fit scale: quantile on, it "
            "is in none; choose scale: log or none"
        )
    quantiles = np.quantile(values, np.linspace(0.0, 1.0, _STEPS + 1))
    return TargetScale(kind="quantile", quantiles=quantiles.tolist())
