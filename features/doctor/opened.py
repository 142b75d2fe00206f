"""A dataset with everything that the doctor's checks share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from features.dataset import SPLITS, Column, Dataset, EventStore, SplitData
from features.doctor.sample import Sample

Status = Literal["pass", "warn", "fail"]
CheckResult = tuple[Status, str]  # how a check ended, and the detail


@dataclass(frozen=True)
class Opened:
    """A dataset, opened."""

    data: Dataset
    splits: dict[str, SplitData]
    events: dict[str, EventStore]
    fitted: dict[str, Any]

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """A sample of each part."""
        return {name: Sample.of(split) for name, split in self.splits.items()}

    def clock(self, split: str) -> np.ndarray:
        """Clocks of the requests of a part."""
        return self.splits[split].requests["clock"].to_numpy()

    @property
    def first_outside(self) -> int | None:
        """The first clock outside the train part, from the written requests."""
        clocks = [self.clock(s) for s in SPLITS[1:]]
        return min((int(c.min()) for c in clocks if len(c)), default=None)

    def training(self, column: Column) -> tuple[pa.Table, np.ndarray]:
        """The requests or impressions of the train part, and how many rows each stands for."""
        train = self.splits["train"]
        if column.level == "request":
            return train.requests, train.requests["num_rows"].to_numpy()
        return train.impressions, np.ones(train.impressions.num_rows, dtype=np.int64)

    def before(self, store: EventStore, side: str) -> np.ndarray:
        """Which events (bool) lie in the training period, with that field known in it."""
        bound, clock = self.first_outside, store.known.get(side, store.clock)
        seen = clock if store.info.timed else clock + 1
        return np.ones(len(clock), dtype=bool) if bound is None else seen < bound
