"""What the results of a stage's tasks come to, put together for the next stage or for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.encode.split import SplitRanges, split_rows
from features.partitions import fit
from features.partitions.job import SHARE
from features.read.clock import CLOCK, TIME
from features.read.columns import event_reads, feature_columns, impression_reads, raw_reads
from features.read.files import table_root
from features.read.lake import files_of
from features.read.log import read_names
from features.spec import DenseFeature, Feature, IdFeature, SincePrevious, Spec
from features.store.manifest import DomainInfo, SplitInfo


def encoding_order(spec: Spec) -> list[str]:
    """The uses without a table in the order in which `features.encode.stages` comes to them."""
    every: list[tuple[str, Feature | SincePrevious]] = list(spec.features.items())
    every += [(f"{d}/{n}", f) for d, own in spec.domains.items() for n, f in own.side.items()]
    left = {key: set(feature_columns(f)) for key, f in every if not isinstance(f, IdFeature)}
    computed = [{f"count.{n}.{o}" for o in c.outputs} for n, c in spec.counters.items()]
    computed += [{f"match.{n}.{o}" for o in m.outputs} for n, m in spec.matches.items()]
    computed += [{f"age.{n}" for n in spec.ages}, {f"cross.{n}" for n in spec.crosses}]
    computed += [{f"page.{n}.{o}" for o in p.outputs} for n, p in spec.pages.items()]
    missing, found = set().union(*computed), []
    for there in (set(), *computed):
        missing -= there
        ready = [key for key, columns in left.items() if not columns & missing]
        found += ready
        left = {key: columns for key, columns in left.items() if key not in ready}
    return found


def reading_order(spec: Spec) -> list[str]:
    """The counters of reading in the order in which one prepare in memory comes to them."""
    found = [f"infinite.impressions.{c}" for c in read_names(raw_reads(spec), "own")]
    found += [f"impressions.{n}" for n in ("lines", "lines_without_items", "clicked_but_not_shown")]
    found += [f"labels.{name}.without_{task.given}" for name, task in spec.impressions.tasks.items()]
    for name in spec.domains:
        found += [f"infinite.events.{name}.{c}" for c in read_names(event_reads(spec, name), "own")]
        found.append(f"events.{name}.without_user_or_time")
    if spec.user is not None:
        found += [f"infinite.{spec.user.table}.{c}" for c in read_names(impression_reads(spec), "user")]
    for name in spec.domains:
        found += [f"events.{name}.lists_{how}" for how in ("that_changed", "stored_anew")]
    return [*found, *(f"events.{name}.unknown_item" for name in spec.domains)]


def raw_files(spec: Spec, base: Path) -> list[list[Any]]:
    """Names, sizes and times of the raw files, by which a job knows that they are the same."""
    root = base / spec.source.path
    files = {path for path in root.rglob("*") if path.is_file()} if root.is_dir() else {root}
    for name, table in spec.source.tables.items():
        own = table_root(spec.source, name, base)
        files |= {file.path for file in files_of(table, own, what=f"table {name!r}")[1]}
    stats = {str(path): path.stat() for path in sorted(files) if path.exists()}
    return [[name, s.st_size, s.st_mtime_ns] for name, s in stats.items()]


def shares_of(table: pl.LazyFrame, spec: Spec, name: str) -> list[dict[str, Any]]:
    """The shares of a raw table; a text file is read from its beginning, so that it is one share."""
    raw = spec.source.tables.get(name)
    if raw is not None and raw.format == "csv":
        return [{"offset": 0, "length": None}]
    count = int(table.select(pl.len()).collect(engine="streaming").item())
    return [{"offset": low, "length": SHARE} for low in range(0, max(count, 1), SHARE)]


def starts_of(counts: Sequence[int]) -> list[int]:
    return (np.cumsum([0, *counts])[:-1]).tolist()


def file_starts(spans: list[list[Any]]) -> list[list[Any]]:
    """As `features.read.origin.file_starts`, of the rows of all shares."""
    if any(name is None for name, _, _ in spans):
        return []
    merged: dict[str, list[int]] = {}
    for name, first, last in spans:
        span = merged.setdefault(name, [first, last])
        span[:] = [min(span[0], first), max(span[1], last)]
    found = sorted((first, last, name) for name, (first, last) in merged.items())
    overlap = any(b[0] <= a[1] for a, b in pairwise(found))
    return [] if overlap else [[first, name] for first, _, name in found]


def split_of(work: Path, counts: list[int], spec: Spec) -> SplitRanges:
    """The parts by the clocks and times of all ranges, which are mapped."""
    columns = []
    for column in (CLOCK, TIME):
        whole = work / f"{column}.bin"
        with whole.open("wb") as sink:
            for part in range(len(counts)):
                sink.write((work / "rows" / f"{part:05}" / f"{column}.bin").read_bytes())
        columns.append(
            np.memmap(whole, dtype="<i8", mode="r") if sum(counts) else np.empty(0, dtype=np.int64)
        )
    return split_rows(columns[0], columns[1], spec.split)


def sums_before(totals: list[dict[str, int]]) -> list[dict[str, int]]:
    """Of each range the sums over the ranges before it."""
    found, so_far = [], dict[str, int]()
    for own in totals:
        found.append(dict(so_far))
        for name, value in own.items():
            so_far[name] = so_far.get(name, 0) + value
    return found


def arrived_before(totals: list[dict[str, Any]], name: str) -> list[dict[str, int]]:
    """Of each range what all rows that arrived in the ranges before it add up to, for a counter."""
    arrived: list[dict[str, int]] = [{} for _ in totals]
    for own in totals:
        for part, sums in own[name]["all"].items():
            for unit, value in sums.items() if int(part) < len(totals) else ():
                arrived[int(part)][unit] = arrived[int(part)].get(unit, 0) + value
    return sums_before(arrived)


def one_type(types: list[str]) -> str:
    return "String" if "String" in types else "Int64"


def dense_tasks(
    key: str, feature: DenseFeature, found: list[dict[str, Any]], folders: list[str], *, known_later: bool
) -> list[dict[str, Any]]:
    """The tasks of `fit.merge_dense` for one use, a task for each of its columns."""
    columns = list(found[0]["dense"][key])
    files = fit.dense_files(key, columns)
    return [
        {
            "use": key,
            "column": column,
            "feature": feature.model_dump(mode="json"),
            "known_later": known_later,
            "rows": sum(f["dense"][key][column][0] for f in found),
            "known": sum(f["dense"][key][column][1] for f in found),
            "paths": [f"{folder}/{files[column]}" for folder in folders],
        }
        for column in columns
    ]


def span_of_all(spans: list[Any]) -> tuple[int, int] | None:
    some = [s for s in spans if s is not None]
    return (min(s[0] for s in some), max(s[1] for s in some)) if some else None


def split_info(infos: list[dict[str, Any]]) -> SplitInfo:
    sums = {name: sum(i[name] for i in infos) for name in ("requests", "impressions", "positives")}
    spans = {name: span_of_all([i[name] for i in infos]) for name in ("time_range", "clock_range")}
    tasks = _sum_tasks([i.get("tasks", {}) for i in infos])
    return SplitInfo.model_validate({**sums, **spans, "tasks": tasks})


def _sum_tasks(found: list[dict[str, dict[str, int | None]]]) -> dict[str, dict[str, int]]:
    """The counts of each task added up over all partitions, but for those that it does not have."""
    return {
        task: {
            name: sum(part[task][name] or 0 for part in found)
            for name, value in counts.items()
            if value is not None
        }
        for task, counts in found[0].items()
    }


def domain_info(infos: list[dict[str, Any]]) -> DomainInfo:
    events = sum(i["events"] for i in infos)
    span = span_of_all([i["time_range"] for i in infos])
    return DomainInfo.model_validate({**infos[0], "events": events, "time_range": span})
