"""The stages of a partitioned `ctr prepare`: what all of them use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from features.encode.encoded import Encoded
from features.partitions.job import Preparation
from features.partitions.tasks import Reads, Stages
from features.read.log import Tables
from features.store.manifest import DomainInfo, Lineage, SplitInfo
from features.store.tasks import TaskInfo


@dataclass
class Prepared:
    """What is known of the data set when all its tasks are done.

    Attributes:
        files: name → (where it lies, sha256).
        encoded: what was fitted; it has no columns.
    """

    files: dict[str, tuple[Path, str]]
    encoded: Encoded
    splits: dict[str, SplitInfo]
    domains: dict[str, DomainInfo]
    users: pl.Series
    items: pl.Series
    ticks: dict[str | None, float]
    counters: dict[str, int] = field(default_factory=dict)
    lineage: Lineage | None = None
    tasks: list[TaskInfo] = field(default_factory=list)


class Run:
    """A preparation on its way through its stages.

    Attributes:
        job: the preparation; every stage adds facts.
        tables: the raw tables.
        stages: runs the tasks of a stage.
        counters: what was dropped, repaired or merged while reading.
        items: the raw key of every item code.
    """

    items: pl.Series

    def __init__(self, job: Preparation, tables: Tables, stages: Stages) -> None:
        self.job, self.tables, self.stages, self.work = job, tables, stages, stages.work
        self.spec, self.parts = job.spec, range(job.parts)
        self.counters: dict[str, int] = {}

    def tell(self, text: str) -> None:
        self.stages.tell(text)

    def add_facts(self, **facts: Any) -> None:
        self.job = replace(self.job, facts={**self.job.facts, **facts})

    def each(
        self,
        name: str,
        function: Any,
        indices: Sequence[int] | None = None,
        *,
        reads: Reads | None = None,
        **more: Any,
    ) -> list[dict[str, Any]]:
        """A stage with a task for each part; `reads` as of `Stages.run`."""
        plain = self.job.plain()
        parts = self.parts if indices is None else indices
        return self.stages.run(
            name, function, [{"job": plain, "part": part, **more} for part in parts], reads=reads
        )

    def folders(self, stage: str) -> list[str]:
        return [f"{stage}/{part:05}" for part in self.parts]
