"""The users of one partition: their codes, event stores, histories and matches, then their rows by time.

All that is read for it is of these users alone: rows and events of a user meet nowhere else.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.partitions.frames import Writers, read_frame, read_frames, write_frame
from features.partitions.items import item_codes, item_columns
from features.partitions.job import KEY, Preparation
from features.partitions.lists import listed_domains, with_lists
from features.partitions.ranks import BUCKET, known_ranks_of
from features.past.history import pointers
from features.past.list_matches import list_match_columns
from features.past.matches import match_columns
from features.read.clock import CLOCK
from features.read.codes import all_keys, code_of
from features.read.columns import impression_reads, side_reads
from features.read.entities import join_entity, read_entity
from features.read.event_labels import labels_of_events
from features.read.explode import of_line
from features.read.known_clock import OUTCOME, known_column
from features.read.listed import timed_domains
from features.read.lists import as_wide
from features.read.log import key_columns, narrow, only_read, read_names, sorted_events
from features.read.requests import number_requests
from features.spec import Spec

FIRST, UNKNOWN = "__first", "__unknown_user"


def users(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Everything that is known of the users of a partition.

    Returns:
        users, the events of every domain, counters, and the outcomes of events by range of time;
        `users.arrow` has the keys, `events-<domain>.arrow` a store, `rows-<range>.arrow` rows.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    rows = narrow(_with_bucket(_read(work, job, None, part), job), keep=job.spec.impressions.time)
    timed = timed_domains(job.spec)
    events = {name: narrow(_read(work, job, name, part), keep=d.time) for name, d in timed.items()}
    keys = all_keys([frame[KEY] for frame in (rows, *events.values())])
    rows, events = _coded(rows, keys), {name: _coded(frame, keys) for name, frame in events.items()}
    write_frame(out / "users.arrow", keys.to_frame())
    counters: dict[str, int] = {}
    running, counts = {}, {}
    rows = _with_user_columns(work, job, part, rows, keys, counters)
    rows = item_codes(work, job, rows, None)
    events = {name: item_codes(work, job, events[name], name) for name in timed}
    rows, labels = _with_event_labels(job, rows, events)
    rows, stored, lists = _with_lists(work, job, part, rows)
    own = rows.columns
    rows = item_columns(work, job.spec, rows.with_columns(_first_clock(rows)), matches_only=True)
    for name, domain in job.spec.domains.items():
        frame = stored.pop(name) if name in stored else events.pop(name)
        item_columns(work, job.spec, frame.select("__item"), domain=name, counters=counters)
        if any(m.domain == name and "positive_share" in m.outputs for m in job.spec.matches.values()):
            running[name] = _outcomes(out, job, name, frame)
        if name in timed:
            frame = sorted_events(frame, [*key_columns(domain), *job.spec.order])
        frame = only_read(frame, side_reads(job.spec, name))
        _write_counted(out, job, name, frame)
        frame = frame.drop(BUCKET, strict=False)
        write_frame(out / f"events-{name}.arrow", frame)
        counts[name] = frame.height
        rows = _with_pointers(rows, frame, name, domain.max_len) if name in timed else rows
        rows = _with_matches(rows, item_columns(work, job.spec, frame, domain=name), name, job.spec)
    rows = rows.select(c for c in rows.columns if c in own or not c.startswith("item."))
    with Writers(out) as writers:
        writers.split("rows", rows.drop(BUCKET), rows[BUCKET].to_numpy(), job.parts)
    found = {"users": len(keys), "events": counts, "counters": counters, "running": running}
    return {**found, "labels": labels, **lists}


def _read(work: Path, job: Preparation, domain: str | None, part: int) -> pl.DataFrame:
    """The rows or events of a partition in the order of the raw table."""
    if not job.spec.order:
        shares = [i for i, s in enumerate(job.facts["shares"]) if s["domain"] == domain]
        return read_frames(work / "ingest" / f"{i:05}" / f"rows-{part}.arrow" for i in shares)
    frames = []
    for bucket, base in enumerate(job.facts["ranks"]):
        frame = read_frame(work / "rank" / f"{bucket:05}" / f"{domain or ''}-{part}.arrow")
        frames.append(frame.with_columns(pl.col(CLOCK) + base, pl.lit(bucket, dtype=pl.Int64).alias(BUCKET)))
    return known_ranks_of(work, job, pl.concat(frames, rechunk=True))


def _with_bucket(frame: pl.DataFrame, job: Preparation) -> pl.DataFrame:
    """With the range of time of each row."""
    if BUCKET in frame.columns:
        return frame
    return frame.with_columns(pl.Series(BUCKET, _bucket_of(frame, job), dtype=pl.Int64))


def _bucket_of(frame: pl.DataFrame, job: Preparation) -> np.ndarray:
    if BUCKET in frame.columns:
        return frame[BUCKET].to_numpy()
    return job.time_part(frame[CLOCK] // job.facts["clock"]["per_second"])


def _coded(frame: pl.DataFrame, keys: pl.Series) -> pl.DataFrame:
    return frame.with_columns(pl.Series("__user", code_of(frame[KEY], keys), dtype=pl.Int64)).drop(KEY)


def _first_clock(rows: pl.DataFrame) -> pl.Expr:
    """The clock of the first impression of each row's user."""
    return pl.col(CLOCK).min().over("__user").alias(FIRST)


def _with_user_columns(
    work: Path, job: Preparation, part: int, rows: pl.DataFrame, keys: pl.Series, counters: dict[str, int]
) -> pl.DataFrame:
    entity = job.spec.user
    if entity is None:
        return rows
    count = len(job.facts["user_shares"])
    raw = read_frames(work / "entity" / f"{i:05}" / f"users-{part}.arrow" for i in range(count))
    names = read_names(impression_reads(job.spec), "user")
    tables = {entity.table: raw.lazy()}
    side = read_entity(job.spec, "user", names, counters, keys=keys, tables=tables)
    side = as_wide(side, {f"user.{c}": width for c, width in job.facts["user_widths"].items()})
    unknown = ~pl.col("__user").is_in(side["__user"].implode())
    rows = rows.with_columns(unknown.alias(UNKNOWN))  # counted when duplicates are gone
    return join_entity(rows, side, "user", {}, keys=keys, what="impressions")


def _with_event_labels(
    job: Preparation, rows: pl.DataFrame, events: dict[str, pl.DataFrame]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows with the labels that are made of later events, and what was counted of them."""
    counters: dict[str, int] = {}
    rows = labels_of_events(
        rows,
        events,
        job.spec,
        newest=job.facts["newest"],
        ticks=job.ticks(),
        scale=job.scale(),
        counters=counters,
    )
    return rows, counters


def _with_lists(
    work: Path, job: Preparation, part: int, rows: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], dict[str, Any]]:
    """Rows without duplicates, with pointers into the events of lists; these, and what is known of them."""
    counters: dict[str, int] = {}
    if not listed_domains(job.spec):
        return rows, {}, {"duplicates": 0, "lists": counters, "directions": {}}
    rows, duplicates = number_requests(rows, of_line(job.spec.impressions))
    rows, stored, directions = with_lists(work, job, part, rows, counters)
    found = {"duplicates": duplicates, "lists": counters, "directions": directions}
    return rows.drop("__request"), stored, found


def _with_pointers(rows: pl.DataFrame, events: pl.DataFrame, name: str, max_len: int) -> pl.DataFrame:
    """With the range of its history in the store of the partition, for each row."""
    start, end = pointers(
        events["__user"].to_numpy(),
        events[CLOCK].to_numpy(),
        at_user=rows["__user"].to_numpy(),
        at_clock=rows[CLOCK].to_numpy(),
        max_len=max_len,
    )
    return rows.with_columns(pl.Series(f"__start.{name}", start), pl.Series(f"__end.{name}", end))


def _with_matches(rows: pl.DataFrame, events: pl.DataFrame, domain: str, spec: Spec) -> pl.DataFrame:
    for name, match in spec.matches.items():
        if match.domain == domain:
            listed = spec.domains[domain].from_list is not None
            compute = list_match_columns if listed else partial(match_columns, open_share=True)
            rows = rows.hstack(compute(rows, events, name, match))
    return rows


def _write_counted(out: Path, job: Preparation, name: str, events: pl.DataFrame) -> None:
    """The events by range of time, for the counters that are over them."""
    counters = [c for c in job.spec.counters.values() if c.over == name]
    read = {column for c in counters for column in (*c.event_by, c.value)}
    if counters:
        bucket = _bucket_of(events, job)
        events = events.select(c for c in events.columns if c in read or c.startswith("__")).drop("__user")
        with Writers(out) as writers:
            writers.split(f"over-{name}", events.drop(BUCKET, strict=False), bucket, job.parts)


def _outcomes(out: Path, job: Preparation, name: str, events: pl.DataFrame) -> list[list[int]]:
    """How many outcomes are known, and how many are 1: by clock into files, by range of time as a result."""
    if OUTCOME not in events.columns:
        return []
    known = events.filter(pl.col(OUTCOME).is_not_null())
    late = known_column(OUTCOME) in events.columns
    if late:
        known = known.with_columns(pl.col(known_column(OUTCOME)).alias(CLOCK))
    part = job.clock_part(known[CLOCK].to_numpy()) if late else _bucket_of(known, job)
    sums = (
        known.with_columns(pl.Series(BUCKET, part, dtype=pl.Int64))
        .group_by(BUCKET, CLOCK)
        .agg(pl.len().cast(pl.Int64).alias("known"), pl.col(OUTCOME).cast(pl.Int64).sum().alias("positive"))
    )
    totals = []
    for bucket in range(job.parts):
        own = sums.filter(pl.col(BUCKET) == bucket).drop(BUCKET)
        write_frame(out / f"outcomes-{name}-{bucket}.arrow", own)
        totals.append([int(own["known"].sum()), int(own["positive"].sum())])
    return totals
