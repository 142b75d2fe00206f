"""Counters over a log that is cut in time: every range adds up its keys, and hands the totals on.

    level 0      counters that read columns of the log
    level 1 …    those that read the counters of the level before, such as `against: count.user.rate`

For each level: totals by key of every range (`write_totals`), of every key the sums before each range
(`sum_before`), then the counters of each range on top of them (`count`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.encode.tables import hashes
from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.past.carried import Carried, CarriedSums
from features.past.counters import counter_columns
from features.past.totals import all_totals, key_names, key_totals, leaving_totals, one_type
from features.read.columns import origin
from features.spec import Counter, Spec

HASH, PART = "__hash", "__part"


def levels_of(spec: Spec) -> list[dict[str, Counter]]:
    """The counters by level, in the spec's order."""
    level: dict[str, int] = {}
    for name, counter in spec.counters.items():
        read = [origin(c) for c in (*counter.by, counter.value, counter.against) if c is not None]
        below = [level.get(c.rpartition(".")[0], -1) for kind, c in read if kind == "count"]
        level[name] = 1 + max(below, default=-1)
    count = max(level.values(), default=-1) + 1
    return [{n: c for n, c in spec.counters.items() if level[n] == i} for i in range(count)]


def write_totals(out: Path, job: Preparation, level: int, part: int, rows: pl.DataFrame) -> dict[str, Any]:
    """The totals of a range for the counters of a level, each in a file, in the order of hashes of the keys.

    Returns:
        counter → how many keys, and the totals of all rows.
    """
    levels = levels_of(job.spec)
    found: dict[str, Any] = {}
    for name, counter in (levels[level] if level < len(levels) else {}).items():
        totals = key_totals(rows, name, counter)
        totals = totals.with_columns(pl.lit(part, dtype=pl.Int64).alias(PART))
        if counter.window is not None:
            totals = pl.concat([totals, _write_leaving(out, job, part, rows, name, counter)], how="diagonal")
        hashed = totals.with_columns(pl.Series(HASH, _hash(totals), dtype=pl.UInt64)).sort(HASH)
        write_frame(out / f"totals-{name}.arrow", hashed)
        found[name] = {"keys": totals.height, "all": all_totals(rows, name, counter)}
    return found


def _write_leaving(
    out: Path, job: Preparation, part: int, rows: pl.DataFrame, name: str, counter: Counter
) -> pl.DataFrame:
    """What leaves a window: into files for later ranges of time, and, negative, as totals of these."""
    leaving = leaving_totals(rows, name, counter)
    # It is gone for rows of a later second.
    leaving = leaving.with_columns(pl.Series(PART, job.time_part(leaving["time"] + 1), dtype=pl.Int64))
    for later in range(part + 1, job.parts):
        own = leaving.filter(pl.col(PART) == later).drop(PART)
        write_frame(out / f"leaving-{name}-{later}.arrow", own)
    keys = [*key_names(leaving), PART]
    summed = [c for c in leaving.columns if c not in (*keys, "time")]
    return leaving.group_by(keys).agg(-pl.col(c).sum() for c in summed)


def sum_before(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Of a share of a counter's keys the sums before each range: `before.arrow`, range by range.

    Returns:
        where each range begins in the file, and its end.
    """
    name, share, shares = arguments["counter"], arguments["share"], arguments["shares"]
    folder = work / arguments["from"]
    parts = [
        of_share(read_frame(folder / f"{part:05}" / f"totals-{name}.arrow"), share, shares)
        for part in range(arguments["parts"])
    ]
    every = one_type(parts)
    keys = key_names(every)
    summed = [c for c in every.columns if c not in (*keys, PART, HASH, "first", "last")]
    every = every.group_by(*keys, PART).agg(
        pl.col("first").min(), pl.col("last").max(), *(pl.col(c).sum() for c in summed)
    )
    # Where something only leaves, there is no first and no last row.
    every = every.with_columns(pl.col("first", "last").fill_null(0)).sort(*keys, PART)
    same = every.select(pl.all_horizontal(pl.col(k) == pl.col(k).shift(1) for k in keys).fill_null(False))
    before = _exclusive(every, same.to_series().to_numpy(), keys)
    before = before.filter(pl.col("count") > 0).sort(PART, *keys)
    write_frame(out / "before.arrow", before.drop(PART))
    starts = np.searchsorted(before[PART].to_numpy(), np.arange(arguments["parts"] + 1))
    return {"starts": starts.tolist()}


def carried_of(
    work: Path,
    level: int,
    name: str,
    part: int,
    scans: list[dict[str, Any]],
    every: dict[str, int],
    folder: Path,
    window: bool,
) -> Carried:
    """What the ranges before one add up to, for a counter.

    Args:
        scans: of each share of the keys the number of its task, and where each range begins in its file.
        every: totals of all rows of the earlier ranges.
        folder: of the tasks that wrote the totals.
        window: whether rows leave the counter after a time.
    """
    frames = []
    for scan in scans:
        frame = read_frame(work / f"before-{level}" / f"{scan['task']:05}" / "before.arrow")
        low, high = scan["starts"][part], scan["starts"][part + 1]
        frames.append(frame.slice(low, high - low))
    before = one_type(frames)
    keys = key_names(before)
    totals = {c: before[c].to_numpy() for c in before.columns if c not in keys}
    parts = {int(u): np.array([v]) for u, v in every.items() if u != "known"}
    all_rows = CarriedSums(parts, np.array([every.get("known", 0)]))
    paths = [folder / f"{p:05}" / f"leaving-{name}-{part}.arrow" for p in range(part)] if window else []
    if not paths:
        return Carried(before.select(keys), totals, all_rows)
    together = one_type([before.select(keys), *(read_frame(p) for p in paths)])
    leaving = together[before.height :]
    gone = {c: leaving[c].to_numpy() for c in leaving.columns if c not in (*keys, "time")}
    totals |= {c: np.zeros(before.height, dtype=np.int64) for c in gone if c not in totals}
    return Carried(together.select(keys), totals, all_rows, leaving["time"].to_numpy(), gone)


def count_level(
    work: Path, spec: Spec, level: int, part: int, frame: pl.DataFrame, scans: dict[str, Any]
) -> pl.DataFrame:
    """The columns of the counters of a level for the rows of a range."""
    columns: list[pl.DataFrame] = []
    for name, counter in levels_of(spec)[level].items():
        folder = work / ("rows" if level == 0 else f"count-{level - 1}")
        scan, window = scans[name], counter.window is not None
        carried = carried_of(work, level, name, part, scan["scans"], scan["every"][part], folder, window)
        columns.append(counter_columns(frame, name, counter, carried=carried))
    return pl.concat(columns, how="horizontal")


def _exclusive(every: pl.DataFrame, same: np.ndarray, keys: list[str]) -> pl.DataFrame:
    """Sums over the earlier ranges of the same key; `same`: the row above is of this key too."""
    start = np.maximum.accumulate(np.where(same, 0, np.arange(every.height)))
    found = {}
    for column in (c for c in every.columns if c not in (*keys, PART)):
        values = every[column].to_numpy()
        if column == "first":
            found[column] = values[start]
        elif column == "last":  # times of a key rise, but where something only leaves there is none
            key, room = np.cumsum(start == np.arange(len(values))), int(values.max(initial=0)) + 1
            highest = np.maximum.accumulate(np.maximum(values, 0) + key * room) - key * room
            found[column] = np.roll(highest, 1)
        else:
            total = np.concatenate([[0], np.cumsum(values)])
            found[column] = total[:-1] - total[start]
    return every.with_columns(pl.Series(c, v, dtype=pl.Int64) for c, v in found.items())


def of_share(totals: pl.DataFrame, share: int, shares: int) -> pl.DataFrame:
    """The keys whose hash lies in one of `shares` ranges."""
    width = 2**64 // shares
    low = totals[HASH].search_sorted(pl.Series([share * width], dtype=pl.UInt64))[0]
    high = totals.height
    if share + 1 < shares:
        high = totals[HASH].search_sorted(pl.Series([(share + 1) * width], dtype=pl.UInt64))[0]
    return totals.slice(low, high - low)


def _hash(totals: pl.DataFrame) -> np.ndarray:
    """uint64 hash of each key: of the same digits the same, be they a number or a text."""
    found = np.zeros(totals.height, dtype=np.uint64)
    for key in key_names(totals):
        found = found * np.uint64(0x9E3779B97F4A7C15) + hashes(totals[key])
    return found
