"""What the rows of one range of time add up to, by key, for the counters of a level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.partitions.arrivals import (
    Arrivals,
    arrivals_of,
    counted_columns,
    is_late,
    past_of,
    write_arriving,
)
from features.partitions.frames import write_frame
from features.partitions.job import Preparation
from features.past.keys import distinct, hashes, key_pairs
from features.past.totals import all_totals, key_names, key_totals, leaving_totals, one_type
from features.read.columns import origin
from features.read.fraction import span_of
from features.spec import Counter, Spec

HASH, PART = "__hash", "__part"
Measure = Callable[[pl.DataFrame, str, Counter], pl.DataFrame]


def levels_of(spec: Spec) -> list[dict[str, Counter]]:
    """The counters by level, in the spec's order."""
    level: dict[str, int] = {}
    for name, counter in spec.counters.items():
        read = [origin(c) for c in (*counter.by, counter.value, counter.against) if c is not None]
        below = [level.get(c.rpartition(".")[0], -1) for kind, c in read if kind == "count"]
        level[name] = 1 + max(below, default=-1)
    count = max(level.values(), default=-1) + 1
    return [{n: c for n, c in spec.counters.items() if level[n] == i} for i in range(count)]


def write_totals(
    work: Path, out: Path, job: Preparation, level: int, part: int, rows: pl.DataFrame
) -> dict[str, Any]:
    """The totals of a range for the counters of a level, each in a file, in the order of hashes of the keys.

    Returns:
        counter → how many keys, and the totals of all rows by the range in which they arrive.
    """
    levels = levels_of(job.spec)
    found: dict[str, Any] = {}
    for name, counter in (levels[level] if level < len(levels) else {}).items():
        past = counted_columns(counter, past_of(work, job, part, counter, rows))
        arrivals = arrivals_of(job, part, counter, past)
        totals = _by_arrival(past, name, counter, arrivals, key_totals, part=part, parts=job.parts)
        more = [] if counter.over is None else [_asked(rows, name, counter, part)]
        if counter.window is not None:
            leaving = _by_arrival(past, name, counter, arrivals, leaving_totals, part=part, parts=job.parts)
            more.append(_write_leaving(out, job, part, name, leaving, counter.window))
        totals = one_type([totals, *more])
        if is_late(job.spec, counter):
            write_arriving(out, job, part, name, past, arrivals)
        hashed = totals.with_columns(pl.Series(HASH, _hash(totals), dtype=pl.UInt64)).sort(HASH)
        write_frame(out / f"totals-{name}.arrow", hashed)
        every = {str(a): all_totals(own, name, counter) for a, own in _parted(past, arrivals.every)}
        found[name] = {"keys": totals.height, "all": every}
    return found


def _parted(past: pl.DataFrame, arrival: np.ndarray) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows by the range in which they arrive."""
    if len(arrival) and (arrival == arrival[0]).all():
        yield int(arrival[0]), past
        return
    for a in distinct(arrival):
        yield int(a), past.filter(arrival == a)


def _by_arrival(
    past: pl.DataFrame,
    name: str,
    counter: Counter,
    arrivals: Arrivals,
    measure: Measure,
    *,
    part: int,
    parts: int,
) -> pl.DataFrame:
    """Totals by key and by the range in which they arrive; those that never do are left out."""

    def totals(rows: pl.DataFrame, arrival: int) -> pl.DataFrame:
        return measure(rows, name, counter).with_columns(pl.lit(arrival, dtype=pl.Int64).alias(PART))

    if arrivals.count is arrivals.value:  # nothing is known later
        return totals(past, part)
    counted, frames = ("count", "first", "last"), [totals(past.clear(), part)]
    for arrival, is_count in ((arrivals.count, True), (arrivals.value, False)):
        for a, rows in _parted(past, arrival):
            own = totals(rows, a)
            by = (*key_names(own), "time", PART)
            kept = [c for c in own.columns if c in by or (c in counted) == is_count]
            frames += [own.select(kept)] if a < parts else []
    return one_type(frames)


def _asked(rows: pl.DataFrame, name: str, counter: Counter, part: int) -> pl.DataFrame:
    """The keys that impressions ask for: that nothing happened to them in this range does not matter."""
    keys = key_pairs(rows, counter.by, separator=counter.separator, what=f"counter {name!r}").drop("row")
    return keys.unique().with_columns(
        pl.lit(0, dtype=pl.Int64).alias("count"), pl.lit(part, dtype=pl.Int64).alias(PART)
    )


def _write_leaving(
    out: Path, job: Preparation, part: int, name: str, leaving: pl.DataFrame, window: float
) -> pl.DataFrame:
    """What leaves a window: into files for later ranges of time, and, negative, as totals of these.

    `oldest` is the second of the first row that leaves in a range.
    """
    per_second = job.per_second
    # It is gone for rows of a later time; but what is not there yet cannot leave.
    gone = pl.Series("__gone", job.time_part((leaving["time"] + 1) // per_second), dtype=pl.Int64)
    leaving = leaving.with_columns(gone)
    for later in range(part + 1, job.parts):
        own = leaving.filter(pl.col("__gone") == later, pl.col(PART) < later).drop(PART, "__gone")
        write_frame(out / f"leaving-{name}-{later}.arrow", own)
    leaving = leaving.with_columns(pl.max_horizontal(PART, "__gone").alias(PART)).drop("__gone")
    keys = [*key_names(leaving), PART]
    summed = [c for c in leaving.columns if c not in (*keys, "time")]
    first = pl.col("time").filter(pl.col("count") > 0).min() - span_of(window, per_second)
    oldest = (first // per_second).alias("oldest")
    return leaving.group_by(keys).agg(oldest, *(-pl.col(c).sum() for c in summed))


def _hash(totals: pl.DataFrame) -> np.ndarray:
    """uint64 hash of each key: of the same digits the same, be they a number or a text."""
    found = np.zeros(totals.height, dtype=np.uint64)
    for key in key_names(totals):
        found = found * np.uint64(0x9E3779B97F4A7C15) + hashes(totals[key])
    return found
