"""The columns of a table of predictions that belong to one task.

A table of one task has the columns `label` and `score`. One of several has those of the first task under
these names and `label_<task>` and `score_<task>` of every other one; the schema's metadata names all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from features.errors import ConfigError

TASKS_KEY = b"ctr.tasks"


@dataclass(frozen=True)
class TaskColumns:
    """Where a table has the labels and scores of a task; a label may be null there if `masked`."""

    label: str = "label"
    score: str = "score"
    weight: str = "weight"
    masked: bool = False
    kind: str = "binary"  # or regression: its scores are values


def tasks_in(schema: pa.Schema) -> dict[str, TaskColumns]:
    """The tasks of a table of predictions by name, the first one first; none where it does not name them.

    Example:
        >>> schema = pa.schema([("label", pa.int8()), ("score", pa.float64())])
        >>> tasks_in(schema), list(tasks_in(schema.with_metadata(metadata_of({"click": "binary"}))))
        ({}, ['click'])
    """
    named = (schema.metadata or {}).get(TASKS_KEY)
    if named is None:
        return {}
    (first, kind), *others = json.loads(named).items()
    found = {first: TaskColumns(masked=True, kind=kind)}
    return found | {name: _further(name, kind) for name, kind in others}


def _further(name: str, kind: str = "binary") -> TaskColumns:
    return TaskColumns(f"label_{name}", f"score_{name}", f"weight_{name}", masked=True, kind=kind)


def metadata_of(kinds: Mapping[str, str]) -> dict[bytes, bytes]:
    """The metadata of a table: name → kind, binary or regression, of each task, the first one first."""
    return {TASKS_KEY: json.dumps(dict(kinds)).encode()}


def is_calibrated(schema: pa.Schema) -> bool:
    """Whether a table also has the scores before calibration, in columns with `raw_` in front."""
    return "raw_score" in schema.names


def columns_of(task: str | None, schema: pa.Schema, *, where: str) -> TaskColumns:
    """The columns of a task, or of the first one.

    Raises:
        ConfigError: the table has no such task.
    """
    tasks = tasks_in(schema)
    if task is None:
        return next(iter(tasks.values()), TaskColumns())
    if task not in tasks:
        own = _further(task)
        if {own.label, own.score} <= set(schema.names):  # a table of another program
            return own
        has = f"has {', '.join(tasks)}" if tasks else "names no tasks"
        raise ConfigError(f"the task must be one of {where}, which {has}, got {task!r}")
    return tasks[task]
