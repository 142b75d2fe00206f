"""Times that a caller asks for: read as a data set declares its own, refused where they cannot be meant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from features.dataset import Dataset
from features.errors import DataError
from features.names import under
from features.read.moment import SECOND, TimeRange, moment_of
from features.read.resolution import PER_SECOND, tick_length
from features.spec import Spec, load_spec


@dataclass(frozen=True)
class Moment:
    """A time.

    Attributes:
        nanoseconds: since 1970.
        clock: of an impression at that time; None where the data set's clocks are ranks.
    """

    nanoseconds: int
    clock: int | None = None

    @property
    def seconds(self) -> int:
        """Whole seconds, as the data set keeps times."""
        return self.nanoseconds // SECOND


class DatasetTimes:
    """Reads times as those of a data set's impressions."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def read(self, time: int | float | str) -> Moment:
        """The moment that a caller names.

        Raises:
            DataError: no moment, or one that lies further from the data set's times than they span.
        """
        try:
            moment = moment_of(time, zone=self.zone)
            if self.range is not None:
                self.range.check(moment)
        except ValueError as error:
            raise DataError(str(error)) from None
        return Moment(moment, self._clock(moment))

    def of_request(self, row: int) -> int:
        """Nanoseconds since 1970 of a prepared request, by its number among those of all splits."""
        if self._unit is None:
            return int(self._requests("time")[row]) * SECOND
        return int(self.clocks[row]) * SECOND // self._unit[0]

    @cached_property
    def clocks(self) -> np.ndarray:
        """Clocks of the requests of all splits, in the order of the splits."""
        return self._requests("clock")

    @cached_property
    def zone(self) -> str | None:
        """Of times that name none, as the spec declares it for the impressions."""
        spec = self._spec
        table = None if spec is None else spec.source.tables.get(spec.impressions.table)
        return None if table is None else table.time_zone

    @cached_property
    def range(self) -> TimeRange | None:
        """The first and the last second of requests and events; None without requests."""
        times = self._requests("time")
        if not len(times):
            return None
        events = [d.time_range for d in self.dataset.manifest.domains.values() if d.timed]
        low, high = zip((int(times.min()), int(times.max())), *(r for r in events if r), strict=True)
        return TimeRange(min(low), max(high))

    def _clock(self, moment: int) -> int | None:
        if self._unit is None:
            return None
        unit, step = self._unit
        return moment * unit // SECOND // step * step

    @cached_property
    def _unit(self) -> tuple[int, int] | None:
        """Clocks a second, and the tick of the impressions in clocks; None where clocks are ranks."""
        spec, times = self._spec, self._requests("time")
        if (spec is not None and spec.order) or not len(times):
            return None
        unit = next((u for u, size in PER_SECOND.items() if (self.clocks // size == times).all()), None)
        if unit is None:
            return None
        declared = None if spec is None else spec.impressions.tick
        tick = declared if self.dataset.manifest.tick is None else self.dataset.manifest.tick
        length = tick_length(pl.Series(self.clocks), unit, declared=tick, what="impressions")
        return PER_SECOND[unit], length

    @cached_property
    def _spec(self) -> Spec | None:
        path = under(self.dataset.root, "spec.yaml")
        return load_spec(path) if path.is_file() else None

    def _requests(self, column: str) -> np.ndarray:
        splits = self.dataset.manifest.splits
        return np.concatenate([self.dataset.split(name).requests[column].to_numpy() for name in splits])
