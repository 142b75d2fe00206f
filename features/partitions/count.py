"""The counters of one range of time, level by level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from features.partitions.carry import count_level
from features.partitions.frames import write_frame
from features.partitions.job import Preparation
from features.partitions.rows import load_rows
from features.partitions.totals import write_totals


def count(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Compute the counters of a level, then the totals that the next level hands on.

    Returns:
        the totals of the next level; `columns.arrow` has the counters.
    """
    job, part, level = Preparation.of(arguments["job"]), arguments["part"], arguments["level"]
    frame = load_rows(work, job, part, levels=level)
    columns = count_level(work, job, level, part, frame, arguments["scans"])
    write_frame(out / "columns.arrow", columns)
    together = pl.concat([frame, columns], how="horizontal")
    return {"totals": write_totals(work, out, job, level + 1, part, together)}
