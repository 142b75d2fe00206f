"""Whether every task has something to learn from, and whether its labels were final when the log ended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from features.dataset import TARGET, SplitData, TaskInfo
from features.doctor.opened import CheckResult, Opened
from features.known import TaskLabel
from features.names import under
from features.spec import load_spec

DAY = 86_400


def labels_in_parts(opened: Opened) -> CheckResult:
    """Every task has labels in every part, and a binary one has both."""
    found = [
        f"{task} in {part}: {what}"
        for part, task, what in _labels_of(opened)
        if what in ("no label", "one label only")
    ]
    return ("warn", f"AUC is undefined: {'; '.join(found)}") if found else ("pass", "")


def labels_at_rest(opened: Opened) -> CheckResult:
    """No label is counted whose time to change was not over when the log ended."""
    tasks = load_spec(under(opened.data.root, "spec.yaml")).impressions.tasks
    ends = [s.info.time_range[1] for s in opened.splits.values() if s.info.time_range is not None]
    found, left_out = [], []
    for name, label in tasks.items():
        rows = [(s, _young(s, label.delay or 0, max(ends))) for s in opened.splits.values() if ends]
        left_out += [_left_out(opened, name, label)] if label.unknown_for is not None else []
        if label.delay is not None and (label.mature or 0) < label.delay:
            young, all_rows = sum(int(y.sum()) for _, y in rows), sum(len(y) for _, y in rows)
            found.append(
                f"{name}: {young:,} of {all_rows:,} rows are younger than its delay at the end of the log, "
                f"so that their label may still change; set mature: {label.delay / DAY:g}d"
            )
    return ("warn", "; ".join(found)) if found else ("pass", "; ".join(left_out))


def task_lines(tasks: list[TaskInfo], splits: dict[str, SplitData]) -> Iterator[list[str]]:
    """A line of the profile per task and part: rows, how many are known and left out, and the mean label."""
    for task in tasks:
        for name, split in splits.items():
            if (counts := split.info.tasks.get(task.name)) is None:
                continue
            values = _values(split, task.name)
            mean = f"{values.mean():.4f}" if len(values) else "–"
            rows = split.info.impressions
            shares = [f"{n:,} ({n / max(rows, 1):.1%})" for n in (counts.known, counts.young)]
            yield [task.name, name, *shares, mean, task.kind, task.given or "–"]


def _labels_of(opened: Opened) -> Iterator[tuple[str, str, str]]:
    for part, split in opened.splits.items():
        if not split.info.impressions:
            continue
        for task in opened.data.manifest.tasks:
            values = np.unique(_values(split, task.name))
            enough = len(values) > 1 or task.kind == "regression"
            yield part, task.name, "no label" if not len(values) else "fine" if enough else "one label only"


def _values(split: SplitData, task: str) -> np.ndarray:
    """The known labels of a task."""
    stored = f"{TARGET}{task}" in split.impressions.column_names
    values = split.impressions[f"{TARGET}{task}" if stored else "label"].to_numpy().astype(np.float64)
    return values[~np.isnan(values)]


def _young(split: SplitData, age: float, end: int) -> np.ndarray:
    """Which rows of a part are younger than so many seconds at a time."""
    time = np.repeat(split.requests["time"].to_numpy(), np.diff(split.row_offsets))
    young: np.ndarray = time > end - age
    return young


def _left_out(opened: Opened, name: str, label: TaskLabel) -> str:
    counts = [s.info.tasks[name] for s in opened.splits.values()]
    young, known = sum(c.young for c in counts), sum(c.known for c in counts)
    days = (label.unknown_for or 0) / DAY
    return f"{name}: {young:,} of {young + known:,} labels are younger than {days:g} d"
