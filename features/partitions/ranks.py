"""The clock of a spec with `order`: ranks of (time, *order) over all tables, range by range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.partitions.frames import Writers, read_frame, read_frames, write_frame
from features.partitions.job import KEY, Preparation
from features.past.keys import distinct
from features.read.clock import CLOCK, ranked
from features.read.event_labels import LONG_AGO
from features.read.known_clock import known_column
from features.read.listed import timed_domains
from features.read.log import time_column

BUCKET, KNOWN = "__bucket", known_column("")


def rank(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Rank the rows and events of one range of time, and move them to the partitions of their users.

    The clocks at which values are known may lie in other ranges: `clocks.arrow` tells the last rank of each
    clock of this range, for `known_ranks_of`.

    Returns:
        how many ranks there are; those of the range begin where those of the ranges before it end; and the
        last one of each table.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    shares = job.facts["shares"]
    frames = {
        domain: read_frames(
            work / "ingest" / f"{i:05}" / f"rows-{part}.arrow"
            for i, s in enumerate(shares)
            if s["domain"] == domain
        )
        for domain in (None, *timed_domains(job.spec))
    }
    times = {domain: time_column(job.spec, job.role(domain)) for domain in frames}
    late = {d: frame.select(c for c in frame.columns if c.startswith(KNOWN)) for d, frame in frames.items()}
    plain = {d: frame.drop(late[d].columns) for d, frame in frames.items()}
    found = {d: frame.hstack(late[d]) for d, frame in ranked(plain, times, job.spec.order).items()}
    if any(f.width for f in late.values()):
        both = [f.select(clock=CLOCK, rank=found[d][CLOCK]) for d, f in frames.items()]
        clocks = pl.concat(both).group_by("clock").agg(pl.col("rank").max()).sort("clock")
        write_frame(out / "clocks.arrow", clocks)
    with Writers(out) as writers:
        for domain, frame in found.items():
            writers.split(domain or "", frame, job.user_part(frame[KEY]), job.parts)
    last = {d or "": int(f[CLOCK].to_numpy().max()) for d, f in found.items() if f.height}
    return {"ranks": max(last.values(), default=-1) + 1, "newest": last}


def newest_of(job: Preparation, found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The last rank of each domain's events, by what the tasks found."""
    ranges = list(zip(job.facts["ranks"], found, strict=True))
    return {
        name: max((base + f["newest"][name] for base, f in ranges if name in f["newest"]), default=LONG_AGO)
        for name in timed_domains(job.spec)
    }


def known_ranks_of(work: Path, job: Preparation, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with the clocks at which values are known as ranks: that of the last row that is not later."""
    bases = job.facts["ranks"]
    ranks = []
    for name in (c for c in frame.columns if c.startswith(KNOWN)):
        clock = frame[name].to_numpy()
        part = job.time_part(frame[name] // job.facts["clock"]["per_second"])
        rank = np.empty(len(clock), dtype=np.int64)
        for bucket in distinct(part):
            book = read_frame(work / "rank" / f"{bucket:05}" / "clocks.arrow")
            own = np.flatnonzero(part == bucket)
            at = np.searchsorted(book["clock"].to_numpy(), clock[own], side="right")
            rank[own] = bases[bucket] + np.concatenate([[-1], book["rank"].to_numpy()])[at]
        ranks.append(pl.Series(name, rank))
    return frame.with_columns(ranks)
