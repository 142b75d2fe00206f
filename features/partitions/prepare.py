"""A partitioned `ctr prepare`, stage by stage; a stage is a set of tasks (features/partitions/tasks.py)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from features.partitions import ingest, ranks, rows, survey, users
from features.partitions.carry import sum_before
from features.partitions.clocks import newest_events
from features.partitions.combine import (
    arrived_before,
    file_starts,
    raw_files,
    reading_order,
    shares_of,
    split_of,
    starts_of,
)
from features.partitions.count import count
from features.partitions.finish import Finish
from features.partitions.items import write_items
from features.partitions.job import Preparation
from features.partitions.lists import check_directions
from features.partitions.run import Prepared, Run
from features.partitions.tasks import OnProgress, Stages, code_digest, digest_of
from features.partitions.totals import levels_of
from features.read.listed import timed_domains
from features.read.log import Tables
from features.spec import Spec

_KEYS = 2**20  # totals of a counter that one task adds up


def prepare_parts(
    spec: Spec,
    raw_spec: Spec,
    tables: Tables,
    work: Path,
    *,
    base: Path,
    parts: int,
    left_out: Sequence[str] = (),
    executor: Executor | None = None,
    tell: OnProgress,
) -> Prepared:
    """Run all stages.

    Args:
        spec: without patterns.
        raw_spec: as written.
        tables: its raw tables.
        work: where the tasks' files lie.
        base: what `source.path` is relative to.
        parts: partitions of the users, and ranges of time.
        left_out: raw files that cannot be read and are left out (`on_error: skip`).
        executor: who runs the tasks; None: this process.
        tell: told what begins, and how far it is.
    """
    about = [raw_spec.digest(), str(base), parts, code_digest(), raw_files(raw_spec, base), sorted(left_out)]
    digest = digest_of(about)
    job = Preparation(spec, raw_spec, base, parts, {"digest": digest, "left_out": sorted(left_out)})
    return _Preparing(job, tables, Stages(work, executor, digest, tell)).all()


class _Preparing(Run):
    """The stages, and what each adds to the facts of the job."""

    def all(self) -> Prepared:
        self._ingest()
        self._users()
        self._rows()
        self._count()
        return Finish(self).encode()

    def _ingest(self) -> None:
        self.tell("looking at times and keys")
        shares = [
            {"domain": domain, **share}
            for domain in (None, *timed_domains(self.spec))
            for share in shares_of(
                self.tables[self.job.role(domain).table], self.spec, self.job.role(domain).table
            )
        ]
        self.add_facts(shares=shares)
        plain = self.job.plain()
        found = self.stages.run("survey", survey.survey, [{"job": plain, **share} for share in shares])
        bounds, times = survey.user_facts(self.work, found, self.job.parts)
        widths = survey.width_facts(self.spec, found)
        self.add_facts(clock=survey.clock_facts(self.spec, found), users=bounds, times=times, widths=widths)
        self.items = survey.all_items(self.work, found)
        self.tell("reading the raw tables")
        plain = self.job.plain()
        read = self.stages.run("ingest", ingest.ingest, [{"job": plain, **share} for share in shares])
        self._count_up(r["counters"] for r in read)
        starts = file_starts([f for r in read for f in r["files"]])
        entity = self.spec.user
        own = [] if entity is None else shares_of(self.tables[entity.table], self.spec, entity.table)
        users = self.stages.run("entity", ingest.ingest_users, [{"job": plain, **share} for share in own])
        what = f"table {entity.table!r} (user)" if entity is not None else ""
        user_widths = survey.one_widths([u["widths"] for u in users], what=what)
        ingest.check_moments([u["forms"] for u in users], what=what)
        self.add_facts(user_shares=own, user_widths=user_widths, files=starts)
        if self.spec.order:
            ranked = self.each("rank", ranks.rank)
            counts = [r["ranks"] for r in ranked]
            self.add_facts(ranks=starts_of(counts), last_rank=sum(counts) - 1)
            self.add_facts(newest=ranks.newest_of(self.job, ranked))
        else:
            self.add_facts(newest=newest_events(self.job))

    def _users(self) -> None:
        self.tell("histories and matches, by user")
        item_counters: dict[str, int] = {}
        write_items(self.work, self.job, self.items, item_counters)
        found = self.each(
            "users",
            users.users,
            reads=lambda p: [f"{stage}/*/*-{p}.arrow" for stage in ("ingest", "entity", "rank")],
        )
        check_directions(self.spec, [f["directions"] for f in found])
        self.stages.forget("rank/*/clocks.arrow")
        user_bases = starts_of([f["users"] for f in found])
        event_bases = {n: starts_of([f["events"][n] for f in found]) for n in self.spec.domains}
        bases = [
            {"users": user_bases[p], "events": {n: b[p] for n, b in event_bases.items()}} for p in self.parts
        ]
        running = {}
        for name in found[0]["running"]:
            totals = np.array([f["running"][name] for f in found]).sum(axis=0)
            running[name] = (np.cumsum(totals, axis=0) - totals).tolist()
        self.add_facts(bases=bases, running=running)
        self.found_users, self.item_counters = found, item_counters

    def _rows(self) -> None:
        self.tell("requests, by time")
        found = self.each(
            "rows", rows.rows, reads=lambda p: [f"users/*/rows-{p}.arrow", f"users/*/outcomes-*-{p}.arrow"]
        )
        self._order_counters([f["counters"] for f in found])
        if self.spec.impressions.request is not None:
            shares = [{"share": s, "shares": self.job.parts, "parts": self.job.parts} for s in self.parts]
            found_twice = self.stages.run("requests", rows.check_requests, shares)
            if twice := [i for r in found_twice for i in r["twice"]]:
                rows.refuse_requests(self.job, twice)
        self.stages.forget("rows/*/requests.arrow")
        ranges = split_of(self.work, [f["rows"] for f in found], self.spec)
        self.add_facts(
            row_bases=starts_of([f["rows"] for f in found]),
            request_bases=starts_of([f["requests"] for f in found]),
            split={
                "valid_start": ranges.valid_start,
                "test_start": ranges.test_start,
                "fit_before": ranges.fit_before,
            },
        )
        self.totals = [f["totals"] for f in found]

    def _count(self) -> None:
        folder = "rows"
        for level, counters in enumerate(levels_of(self.spec)):
            self.tell(f"counters {', '.join(counters)}")
            tasks: list[dict[str, Any]] = []
            scans = {}
            for name in counters:
                keys = sum(t[name]["keys"] for t in self.totals)
                shares = min(self.job.parts, 1 + keys // _KEYS)
                scans[name] = list(range(len(tasks), len(tasks) + shares))
                tasks += [
                    {"counter": name, "from": folder, "share": s, "shares": shares, "parts": self.job.parts}
                    for s in range(shares)
                ]
            sums = self.stages.run(f"before-{level}", sum_before, tasks)
            told = {
                name: {
                    "scans": [{"task": i, "starts": sums[i]["starts"]} for i in own],
                    "every": arrived_before(self.totals, name),
                }
                for name, own in scans.items()
            }
            found = self.each(f"count-{level}", count, level=level, scans=told)
            handed = (f"{folder}/*/{kind}-*" for kind in ("totals", "leaving", "arriving"))
            self.stages.forget(f"before-{level}/*/*", *handed)
            folder, self.totals = f"count-{level}", [f["totals"] for f in found]

        self.stages.forget("users/*/over-*")

    def _count_up(self, found: Any) -> None:
        summed: dict[str, int] = {}
        for own in found:
            for name, value in own.items():
                summed[name] = summed.get(name, 0) + value
        order = {name: i for i, name in enumerate(reading_order(self.spec))}
        for name in sorted(summed, key=lambda name: order.get(name, len(order))):
            self.counters[name] = self.counters.get(name, 0) + summed[name]

    def _order_counters(self, of_rows: list[dict[str, int]]) -> None:
        """All counters of reading, in the order in which one prepare in memory comes to them."""
        rows_total: dict[str, int] = {}
        for own in of_rows:
            for name, value in own.items():
                rows_total[name] = rows_total.get(name, 0) + value
        rows_total["impressions.duplicates"] += sum(f["duplicates"] for f in self.found_users)
        self._count_up(f["labels"] for f in self.found_users)
        self.counters["impressions.duplicates"] = rows_total["impressions.duplicates"]
        self._count_up(f["lists"] for f in self.found_users)
        self._count_up(f["counters"] | {} for f in self._of_users("infinite."))
        self._take(rows_total, "impressions.unknown_user")
        self._count_up([self.item_counters])
        self._take(rows_total, "impressions.unknown_item")
        self._count_up(f["counters"] for f in self._of_users("events."))

    def _of_users(self, prefix: str) -> list[dict[str, Any]]:
        return [
            {"counters": {n: v for n, v in f["counters"].items() if n.startswith(prefix)}}
            for f in self.found_users
        ]

    def _take(self, counters: dict[str, int], name: str) -> None:
        if name in counters:
            self.counters[name] = counters[name]
