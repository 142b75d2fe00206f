"""Whether the rows that a run is judged by are unseen: what is said where they may not be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctr.runs.ensemble import is_ensemble
from ctr.runs.learned import LEARNED, JudgedPart, LearnedFrom, learned_until, run_of, unseen_warning

_log = logging.getLogger(__name__)


def warned(name: str | Path, learned: LearnedFrom, part: JudgedPart) -> list[str]:
    """Say on the terminal what keeps figures of a part from being of unseen rows; the sentences."""
    found = unseen_warning(name, learned, part)
    said = [] if found is None else [found]
    said += [f"whether its rows are unseen by {name} is not wholly known: {why}" for why in learned.unknown]
    for sentence in said:
        _log.warning("%s", sentence)
    return said


def warned_of_files(paths: Sequence[Path], rows: Path) -> list[str]:
    """The same of runs, ensembles and their files of predictions that are compared; others tell nothing.

    Args:
        paths: as they are compared.
        rows: predictions of the rows by which all are judged.
    """
    known = {path: learned_until(run) for path in paths if _tells(run := run_of(path))}
    own = known[paths[0]].rows[:1] if paths[0] in known else []
    names = frozenset(learned.dataset for learned in known.values() if learned.dataset is not None)
    part = JudgedPart(names, own[0].digest if own else None, None, first_time(rows))
    return [sentence for path, learned in known.items() for sentence in warned(path, learned, part)]


def first_time(predictions: Path) -> int | None:
    """The time of the first row of a table of predictions, in seconds; None where it has no such times."""
    if predictions.suffix == ".csv":
        return None
    with pq.ParquetFile(predictions) as file:
        schema = file.schema_arrow
        if "time" not in schema.names or not pa.types.is_integer(schema.field("time").type):
            return None
        found = pc.min(file.read(["time"])["time"]).as_py()
        return None if found is None else int(found)


def _tells(run: Path) -> bool:
    return run.is_dir() and ((run / LEARNED).is_file() or (run / "config.yaml").is_file() or is_ensemble(run))
