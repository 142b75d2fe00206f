"""The last stages of a partitioned `ctr prepare`: fit, encode, and put the files of the data set together."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from features.encode.crosses import common_types
from features.encode.encoded import Encoded
from features.encode.late import late_tasks
from features.encode.targets import by_quantiles, with_quantiles
from features.partitions import encode, fit, late
from features.partitions.combine import dense_tasks, domain_info, encoding_order, one_type, split_info
from features.partitions.fit import fitted_table, span_of, table_arguments, target_file
from features.partitions.frames import read_frame
from features.partitions.run import Prepared, Run
from features.partitions.store import store
from features.read.columns import event_rules
from features.read.targets import task_infos
from features.spec import DenseFeature, Feature, IdFeature, SincePrevious
from features.store.columns import Column
from features.store.manifest import SPLITS, TableInfo
from features.store.tasks import TaskInfo

_ROWS = (("rows", "rows"), ("rows", "origin"), ("count-*", "columns"))  # stages, and their files of rows


class Finish:
    """Fit and encode.

    Args:
        run: whose rows have all their computed columns.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.spec, self.stages, self.work = run, run.spec, run.stages, run.work
        self._fit()

    def _fit(self) -> None:
        self.run.tell("fitting")
        self.run.add_facts(late=self._fit_late())
        found = {
            "": self.run.each("fit-rows", encode.fit_rows),
            None: self.run.each("fit-events", encode.fit_events),
        }
        uses: list[tuple[str, str | None, Feature | SincePrevious]] = [
            (name, None, f) for name, f in self.spec.features.items()
        ]
        uses += [(f"{d}/{n}", d, f) for d, own in self.spec.domains.items() for n, f in own.side.items()]
        stage = {key: found["" if domain is None else None] for key, domain, _ in uses}
        folders = {"": self.run.folders("fit-rows")} | {
            d: self.run.folders("fit-events") for d in self.spec.domains
        }
        ids = [(key, d, f.table) for key, d, f in uses if isinstance(f, IdFeature)]
        tables = table_arguments(self.spec, ids, folders)
        merged = self.stages.run("merge-tables", fit.merge_table, tables)
        self.merged = {
            t["name"]: {"folder": f"merge-tables/{i:05}", **m}
            for i, (t, m) in enumerate(zip(tables, merged, strict=True))
        }
        dense = [(key, d, f) for key, d, f in uses if isinstance(f, DenseFeature)]
        tasks = [
            task
            for key, d, f in dense
            for task in dense_tasks(
                key, f, stage[key], folders[d or ""], known_later=self._is_known_later(d, f)
            )
        ]
        self.tasks = self._fit_targets()
        states = self.stages.run("merge-dense", fit.merge_dense, tasks)
        by_use: dict[str, list[Any]] = {key: [] for key, _, _ in dense}
        for task, state in zip(tasks, states, strict=True):
            by_use[task["use"]].append([task["column"], state])
        spans = {
            key: span_of([f["spans"][key] for f in stage[key]])
            for key, _, _ in uses
            if key in stage[key][0]["spans"]
        }
        all_spans = {key: [f["spans"][key] for f in stage[key]] for key in spans}
        self.types = {
            key: one_type([f["types"][key] for f in stage[key]])
            for key, _, _ in ids
            if key in stage[key][0]["types"]
        }
        of_table: dict[str, list[str]] = {}
        for key, _, table in ids:
            if key in self.types:
                of_table.setdefault(table, []).append(self.types[key])
        hashed = {table: one_type(types) for table, types in of_table.items()}
        self.run.add_facts(fitted={"tables": self.merged, "dense": by_use, "types": hashed})
        self.parts = common_types([f["crosses"] for f in found[""]])
        self.ids, self.all_spans, self.by_use, self.hashed = ids, all_spans, by_use, hashed

    def encode(self) -> Prepared:
        self.run.tell("encoding")
        own = self.run.each(
            "encode-rows",
            encode.encode_rows,
            reads=lambda p: [f"{of}/{p:05}/{name}.arrow" for of, name in _ROWS],
        )
        events = self.run.each(
            "encode-events", encode.encode_events, reads=lambda p: [f"users/{p:05}/events-*"]
        )
        self.run.tell("writing")
        files = [
            (f"{s}/{k}.arrow", "encode-rows", f"{s}-{k}", False)
            for s in SPLITS
            for k in ("requests", "impressions")
        ]
        files += [("origin.arrow", "encode-rows", "origin", False)]
        files += [(f"events/{d}.arrow", "encode-events", d, True) for d in self.spec.domains]
        tasks: list[dict[str, Any]] = [
            {"name": name, "parts": [f"{f}/{part}.arrow" for f in self.run.folders(stage)], "whole": whole}
            for name, stage, part, whole in files
        ]
        stored = self.stages.run("store", store, tasks, reads=lambda i: tasks[i]["parts"])
        where = {
            s["name"]: (self.work / "store" / f"{i:05}" / "data", s["sha256"]) for i, s in enumerate(stored)
        }
        return Prepared(
            files=where,
            encoded=self._encoded(own, events),
            splits={s: split_info([r["splits"][s] for r in own]) for s in SPLITS},
            domains={d: domain_info([r["domains"][d] for r in events]) for d in self.spec.domains},
            users=self._user_keys(),
            items=self.run.items,
            ticks=self.run.job.ticks(),
            counters=self.run.counters | {n: sum(r["ages"][n] for r in own) for n in own[0]["ages"]},
            tasks=self.tasks,
        )

    def _fit_late(self) -> dict[str, Any]:
        """What the delays of the labels are that become 1 late, by task."""
        names = late_tasks(self.spec.impressions)
        if not names:
            return {}
        found, folders = self.run.each("late", late.delays), self.run.folders("late")
        tasks = [{"task": n, "folders": folders, "found": [f[n] for f in found]} for n in names]
        return dict(zip(names, self.stages.run("fit-late", late.fit_law, tasks), strict=True))

    def _fit_targets(self) -> list[TaskInfo]:
        """The tasks with their scales, fitted on all parts."""
        tasks = task_infos(self.spec.impressions)
        names = [task.name for task in tasks if by_quantiles(task)]
        paths = [[f"{f}/{target_file(name)}" for f in self.run.folders("fit-rows")] for name in names]
        found = self.stages.run("merge-targets", fit.merge_target, [{"paths": own} for own in paths])
        quantiles = {n: np.array(f["quantiles"]) for n, f in zip(names, found, strict=True)}
        return with_quantiles(tasks, quantiles)

    def _is_known_later(self, domain: str | None, feature: DenseFeature) -> bool:
        """Whether a use reads columns of events that are known later than these."""
        late = {} if domain is None else event_rules(self.spec.domains[domain])
        return any(column in late for column in feature.columns)

    def _encoded(self, own: list[dict[str, Any]], events: list[dict[str, Any]]) -> Encoded:
        """What was fitted and described, as one prepare in memory leaves it."""
        encoded = Encoded(self.spec, {})
        for found in (own, events):
            for key, column in found[0]["described"].items():
                encoded.described[key] = Column.model_validate(column)
            for name, info in found[0]["implicit"].items():
                encoded.implicit[name] = TableInfo.model_validate(info)
        for name, table in self.spec.tables.items():
            keys = [key for key, _, used in self.ids if used == name]
            if not keys:
                continue
            fitted = fitted_table(self.work, table, self.merged.get(name))
            encoded.tables[name] = fitted
            spans = [s for key in keys for s in self.all_spans[key]]
            state = {"encode": table.encode, "fit": span_of(spans), **fitted.state()}
            if table.encode == "hash":
                text = self.hashed[name] == "String"
                state["types"] = {key: "String" if text else self.types[key] for key in keys}
            encoded.fitted["tables"][name] = state
        if self.spec.crosses:
            encoded.fitted["crosses"] = self.parts
        for key, columns in self.by_use.items():
            state = {"fit": span_of(self.all_spans[key]), "columns": dict(columns)}
            encoded.fitted["scalers"][key] = state
        for key in encoding_order(self.spec):
            name = f"not_finite.{key}"
            if total := sum(f["counters"].get(name, 0) for f in (*own, *events)):
                encoded.counters[name] = total
        return encoded

    def _user_keys(self) -> pl.Series:
        return pl.concat(
            [read_frame(self.work / f / "users.arrow")["key"] for f in self.run.folders("users")]
        )
