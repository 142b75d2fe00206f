"""Logits of finished runs on the training rows, from which another run learns beside the labels.

A row is known again by its place in the log and its time, so a teacher may have been trained on another data
set of the same log, with features that the student does not have. Where a table or the data set has no
places, by its row, time and the codes of request, user and item, which only the same data set gives.

N rows of the training part, in file order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.config import DistillConfig, RunConfig
from ctr.loader.teacher_file import CODES, PLACE, frame_of, taught_logits
from ctr.predictions import SplitRows
from ctr.runs.ensemble import is_ensemble, read_ensemble
from ctr.runs.learned import JudgedPart, learned_until, run_of, unseen_warning
from ctr.runs.saved_config import load_saved_config
from features.dataset import Dataset, TaskInfo
from features.errors import ConfigError
from features.remote.working_copy import here

_SPLIT = "train"


@dataclass(frozen=True)
class Teacher:
    """What a run learns from beside the labels.

    Args:
        logits: float32 (N,), the mean of the teachers'.
        digest: SHA-256 of them: a run that goes on must have the same.
        lines: for people.
    """

    logits: np.ndarray
    digest: str
    lines: list[str]


def read_teacher(config: RunConfig, dataset: Dataset) -> Teacher | None:
    """The teachers' logits of the training rows; None where a run learns from labels alone.

    Args:
        config: of the run.
        dataset: as the run sees it.

    Raises:
        ConfigError: a teacher was trained on rows that are later than the training part, itself or through a
            run that it learned from; or the run does not learn a logit of its own
            from the training rows alone.
        DataError: a teacher does not have each training row once, with the label of the data set.
    """
    distill = config.train.distill
    if distill is None or distill.weight == 0:
        return None
    _check_run(config, dataset.manifest.tasks[0])
    named = [distill.predictions] if isinstance(distill.predictions, str) else distill.predictions
    files = [_file_of(name) for name in named]
    for name, file in zip(named, files, strict=True):
        _check_unseen(name, run_of(file), dataset)
    own = _own_rows(dataset)
    total = sum((taught_logits(file, own) for file in files), np.zeros(len(own)))
    logits = (total / len(files)).astype(np.float32)
    digest = hashlib.sha256(logits.tobytes()).hexdigest()
    return Teacher(logits, digest, _told(distill, files, len(own)))


def _check_run(config: RunConfig, first: TaskInfo) -> None:
    """Refuse a run that a teacher has nothing to tell."""
    if config.train.data != _SPLIT:
        raise ConfigError(
            "train.data must be train with train.distill, whose teachers know the training rows alone, got "
            f"{config.train.data}; drop one of both"
        )
    if first.kind != "binary" or (config.tasks is not None and config.tasks.kind == "esmm"):
        raise ConfigError(
            f"train.distill teaches the first task its logit, got {first.name} of kind {first.kind}"
            f"{'' if config.tasks is None else f' and tasks.kind {config.tasks.kind}'}; name a binary task "
            "first and another kind than esmm, which learns joint chances, or drop train.distill"
        )


def _told(distill: DistillConfig, files: Sequence[Path], rows: int) -> list[str]:
    return [
        f"train.distill: {distill.weight:g} of the loss is learned from {', '.join(map(str, files))}, at "
        f"temperature {distill.temperature:g}, {rows:,} training rows",
        "a teacher that was trained on these rows has seen their labels (docs/ensembles.md)",
    ]


def _file_of(name: str) -> Path:
    """The table of a teacher: a file, or that of a directory of runs that do not know the validation part."""
    path = here(name)
    if not path.is_dir():
        return path
    trained = {}
    if is_ensemble(path):
        trained = {member.run: member.trained_on for member in read_ensemble(path).members}
    elif (path / "config.yaml").is_file():
        trained = {name: load_saved_config(path / "config.yaml").train.data}
    if wrong := {run: data for run, data in trained.items() if data != _SPLIT}:
        run, data = next(iter(wrong.items()))
        raise ConfigError(
            "a teacher must be trained on the training part alone, as validation judges what learns from "
            f"it, got {run} with train.data: {data}; take another run"
        )
    return path / "predictions" / f"{_SPLIT}.parquet"


def _check_unseen(name: str, teacher: Path, dataset: Dataset) -> None:
    """Refuse a run that knows rows by which the run that learns from it is judged.

    Its rows are matched by their places in the log, so its times are those of this log, whatever the name.
    """
    if not teacher.is_dir():
        return  # a file of elsewhere, of which nobody can tell
    learned = learned_until(teacher)
    names = {dataset.manifest.name, learned.dataset or dataset.manifest.name}
    for split in ("valid", "test"):
        part = replace(JudgedPart.of(dataset, split), names=frozenset(names))
        if (warning := unseen_warning(name, learned, part)) is not None:
            raise ConfigError(
                f"a teacher must have learned from rows before the {split} part alone, as that judges what "
                f"learns from it, but {warning}; take another run"
            )


def _own_rows(dataset: Dataset) -> pl.DataFrame:
    """Codes, label and, where the data set knows them, places of the training rows; N rows in file order."""
    rows = SplitRows(dataset, _SPLIT)
    columns = rows.columns(0, rows.rows)
    table = pa.table({name: columns[name] for name in [*CODES, "label"]})
    if (origin := dataset.origin()) is not None:
        place = origin.take(table["row_id"])
        for name in (name for name in PLACE if name in place.column_names):
            table = table.append_column(name, place[name])
    return frame_of(table)
