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

from features.partitions.arrivals import is_late, past_of, with_arriving
from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.partitions.totals import HASH, PART, levels_of
from features.past.carried import NEVER, Carried, CarriedSums
from features.past.counters import counter_columns
from features.past.totals import key_names, one_type
from features.read.fraction import span_of


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
    how = {"first": pl.col("first").min(), "last": pl.col("last").max(), "oldest": pl.col("oldest").min()}
    summed = [c for c in every.columns if c not in (*keys, PART, HASH)]
    every = every.group_by(*keys, PART).agg(how.get(c, pl.col(c).sum()) for c in summed)
    # Where something only leaves or is only asked for, there is no first and no last row.
    nothing = {"first": NEVER, "oldest": NEVER, "last": 0}
    every = every.with_columns(pl.col(c).fill_null(v) for c, v in nothing.items() if c in every.columns)
    every = every.sort(*keys, PART)
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
    window: float | None,
    per_second: int,
) -> Carried:
    """What the ranges before one add up to, for a counter.

    Args:
        scans: of each share of the keys the number of its task, and where each range begins in its file.
        every: totals of all rows of the earlier ranges.
        folder: of the tasks that wrote the totals.
        window: seconds after which rows leave the counter, if they do.
        per_second: how many of the units in which they leave are a second.
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
    if window is None or part == 0:
        return Carried(before.select(keys), totals, all_rows)
    paths = [folder / f"{p:05}" / f"leaving-{name}-{part}.arrow" for p in range(part)]
    together = one_type([before.select(keys), *(read_frame(p) for p in paths)])
    leaving = together[before.height :]
    gone = {c: leaving[c].to_numpy() for c in leaving.columns if c not in (*keys, "time")}
    totals |= {c: np.zeros(before.height, dtype=np.int64) for c in gone if c not in totals}
    when = leaving["time"].to_numpy()
    span = span_of(window, per_second)
    return Carried(together.select(keys), totals, all_rows, when, gone, span, per_second)


def count_level(
    work: Path, job: Preparation, level: int, part: int, frame: pl.DataFrame, scans: dict[str, Any]
) -> pl.DataFrame:
    """The columns of the counters of a level for the rows of a range."""
    columns: list[pl.DataFrame] = []
    for name, counter in levels_of(job.spec)[level].items():
        folder = work / ("rows" if level == 0 else f"count-{level - 1}")
        scan = scans[name]
        before = scan["scans"], scan["every"][part]
        carried = carried_of(work, level, name, part, *before, folder, counter.window, job.per_second)
        late, past = is_late(job.spec, counter), past_of(work, job, part, counter, frame)
        past = with_arriving(folder, part, name, past) if late else past
        events = None if past is frame else past
        columns.append(counter_columns(frame, name, counter, events, carried=carried))
    return pl.concat(columns, how="horizontal")


def _exclusive(every: pl.DataFrame, same: np.ndarray, keys: list[str]) -> pl.DataFrame:
    """Sums over the earlier ranges of the same key; `same`: the row above is of this key too."""
    start = np.maximum.accumulate(np.where(same, 0, np.arange(every.height)))
    new = np.flatnonzero(~same)
    found = {}
    for column in (c for c in every.columns if c not in (*keys, PART)):
        values = every[column].to_numpy()
        if column == "first":
            found[column] = np.minimum.reduceat(values, new)[np.cumsum(~same) - 1]
        elif column == "oldest":
            found[column] = _next(values, np.cumsum(~same))
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


def _next(values: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The next value (N,) of the same key below each row, `NEVER` where there is none."""
    count = len(values)
    there = np.where(values < NEVER, np.arange(count), count)
    below = np.minimum.accumulate(np.append(there[1:], count)[::-1])[::-1] if count else there
    same = np.append(key, -1)[below] == key
    return np.where(same, np.append(values, NEVER)[below], NEVER)
