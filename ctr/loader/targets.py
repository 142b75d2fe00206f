"""What the tasks learn from: columns of impressions → one `Target` a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from ctr.batch import Batch, Target
from features.dataset import KEEP_RATE, TARGET, TARGET_WEIGHT, Manifest, TaskInfo, is_plain

OFFSET, TEACHER = "offset", "teacher"


def target_columns(tasks: Sequence[TaskInfo]) -> list[str]:
    """The columns of impressions that hold the labels and weights of the tasks."""
    if is_plain(tasks):
        return ["label"]
    weighted = [TARGET_WEIGHT + task.name for task in tasks if task.weighted]
    return ["label", *(TARGET + task.name for task in tasks), *weighted]


def sampling_offset(shown: pa.Table, manifest: Manifest) -> dict[str, np.ndarray]:
    """The column `offset` of some rows (see `Batch.offset`), where the log was sampled."""
    if manifest.sampling is None:
        return {}
    if manifest.sampling == KEEP_RATE:
        return {OFFSET: -np.log(shown[KEEP_RATE].to_numpy())}
    return {OFFSET: np.full(shown.num_rows, -np.log(manifest.sampling), dtype=np.float32)}


def make_targets(tasks: Sequence[TaskInfo], plain: Mapping[str, np.ndarray]) -> dict[str, Target]:
    """The targets of B rows.

    Args:
        tasks: of the data set.
        plain: `target_columns` of the rows, (B,) each, NaN where a label is not known. Without the column of
            a task, as in a request that is served, its label is not known in any row. `teacher`, float32
            (B,), where the first task learns from other runs.
    """
    if is_plain(tasks):
        label = torch.from_numpy(plain["label"].astype(np.float32, copy=False))
        found = {tasks[0].name: Target.of(label)}
    else:
        found = {task.name: _target(task, plain) for task in tasks}
    if (taught := plain.get(TEACHER)) is not None:
        first = tasks[0].name
        found[first] = replace(found[first], teacher=torch.from_numpy(taught))
    return found


def as_part(batch: Batch, *, totals: Mapping[str, float], rows: int) -> Batch:
    """The batch as a part of one of `rows` rows, whose known rows weigh `totals`, by task."""
    targets = {task: replace(target, total=totals[task]) for task, target in batch.targets.items()}
    return replace(batch, targets=targets, total_rows=rows)


def total_weights(
    tasks: Sequence[TaskInfo], plain: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, float]:
    """What the known rows among the rows at some positions weigh, by task."""
    if is_plain(tasks):
        return {tasks[0].name: float(len(rows))}
    return {task.name: _total(task, plain, rows) for task in tasks}


def _target(task: TaskInfo, plain: Mapping[str, np.ndarray]) -> Target:
    values = plain.get(TARGET + task.name)
    if values is None:
        nothing = torch.zeros(len(plain["row_id"]))
        return Target(nothing, nothing.bool())
    known = ~np.isnan(values)
    label = np.where(known, values, np.float32(0))
    if task.scale is not None:
        label = np.where(known, task.scale.forward(label.astype(np.float64)), 0.0).astype(np.float32)
    weight = torch.from_numpy(plain[TARGET_WEIGHT + task.name]) if task.weighted else None
    return Target(torch.from_numpy(label), torch.from_numpy(known), weight)


def _total(task: TaskInfo, plain: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
    known = ~np.isnan(plain[TARGET + task.name][rows])
    if not task.weighted:
        return float(known.sum())
    return float(plain[TARGET_WEIGHT + task.name][rows][known].sum(dtype=np.float64))
