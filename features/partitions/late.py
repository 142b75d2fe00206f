"""Weights of labels that become 1 late: every part collects delays, and one law is fitted on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.encode.late import DelayLaw, Delays, delays_of, late_tasks, law_of, weighted
from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.partitions.rows import load_rows


def delays(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """The delays of the labels of one range of time: a file for each task.

    Returns:
        of each task how many training rows have a label, and the latest time that is known of.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    rows = load_rows(work, job, part, levels=0)
    train = min(max(job.facts["split"]["valid_start"] - job.facts["row_bases"][part], 0), rows.height)
    found = {}
    for name in late_tasks(job.spec.impressions):
        own = delays_of(rows, name, train, job.facts["clock"]["per_second"])
        write_frame(out / f"{name}.arrow", pl.DataFrame({"delay": own.delay, "time": own.time}))
        found[name] = {"known": own.known, "end": own.end if rows.height else None}
    return found


def fit_law(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """The law of the delays of one task: `law.arrow`; its rate, and where the log ends."""
    name, parts = arguments["task"], []
    for folder, own in zip(arguments["folders"], arguments["found"], strict=True):
        frame = read_frame(work / folder / f"{name}.arrow")
        end = -np.inf if own["end"] is None else own["end"]
        parts.append(Delays(frame["delay"].to_numpy(), frame["time"].to_numpy(), own["known"], end))
    law, end = law_of(parts, name)
    write_frame(out / "law.arrow", pl.DataFrame({"delay": law.delays, "share": law.share}))
    return {"rate": law.rate, "end": end}


def with_weights(work: Path, job: Preparation, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of a range with their weights, where some labels become 1 late."""
    for i, (name, fitted) in enumerate(job.facts["late"].items()):
        frame = read_frame(work / "fit-late" / f"{i:05}" / "law.arrow")
        law = DelayLaw(frame["delay"].to_numpy(), frame["share"].to_numpy(), fitted["rate"])
        rows = weighted(rows, name, law, fitted["end"])
    return rows
