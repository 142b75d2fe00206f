"""The clock of a spec with `order`: ranks of (time, *order) over all tables, range by range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from features.partitions.frames import Writers, read_frames
from features.partitions.job import KEY, Preparation
from features.read.clock import CLOCK, ranked
from features.read.log import time_column

BUCKET = "__bucket"


def rank(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Rank the rows and events of one range of time, and move them to the partitions of their users.

    Returns:
        how many ranks there are; those of the range begin where those of the ranges before it end.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    shares = job.facts["shares"]
    frames = {
        domain: read_frames(
            work / "ingest" / f"{i:05}" / f"rows-{part}.arrow"
            for i, s in enumerate(shares)
            if s["domain"] == domain
        )
        for domain in (None, *job.spec.domains)
    }
    times = {domain: time_column(job.spec, job.role(domain)) for domain in frames}
    found = ranked(frames, times, job.spec.order)
    with Writers(out) as writers:
        for domain, frame in found.items():
            writers.split(domain or "", frame, job.user_part(frame[KEY]), job.parts)
    last = [int(f[CLOCK].max()) for f in found.values() if f.height]  # type: ignore[arg-type]
    return {"ranks": int(np.max(last, initial=-1)) + 1}
