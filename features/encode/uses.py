"""What is encoded: every feature and every field of side info, with the log that holds its columns.

The training period of the impressions is the train part; that of the events is what lies before the first
clock outside the train part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from features.encode.split import SplitRanges
from features.read.clock import CLOCK
from features.read.columns import feature_columns, is_request_level
from features.read.known_clock import known_column
from features.read.log import Log
from features.spec import Feature, SincePrevious, Spec

Level = Literal["request", "candidate", "event"]


@dataclass(frozen=True)
class Use:
    """One feature or field of side info, and the log that holds its columns."""

    domain: str | None  # None: a feature of the impressions
    name: str
    feature: Feature | SincePrevious
    log: Log
    training: np.ndarray  # bool (rows of the frame,): in the training period
    level: Level

    @property
    def frame(self) -> pl.DataFrame:
        """The impressions or events as they are now: columns come and go."""
        return self.log.frame(self.domain)

    @property
    def ready(self) -> bool:
        """Whether its columns are there: the computed ones come one after the other."""
        return set(feature_columns(self.feature)) <= set(self.frame.columns)

    @property
    def known_later(self) -> bool:
        """Whether it reads a column that is known later than its row."""
        return any(known_column(c) in self.frame.columns for c in feature_columns(self.feature))

    @property
    def what(self) -> str:
        """For error messages."""
        return (
            f"feature {self.name!r}" if self.domain is None else f"domain {self.domain!r}, side {self.name!r}"
        )

    @property
    def key(self) -> str:
        """Its name among all features and side info."""
        return self.name if self.domain is None else f"{self.domain}/{self.name}"


def all_uses(spec: Spec, log: Log, ranges: SplitRanges) -> list[Use]:
    """Every feature, then the side info of every domain, in the spec's order."""
    domains = (use for name in spec.domains for use in event_uses(spec, name, log, ranges.fit_before))
    return [*row_uses(spec, log, ranges.valid_start), *domains]


def row_uses(spec: Spec, log: Log, valid_start: int) -> list[Use]:
    """Every feature of the impressions; those before row `valid_start` are the training period."""
    in_train = np.arange(log.rows.height) < valid_start
    return [
        Use(None, n, f, log, in_train, "request" if is_request_level(spec, f) else "candidate")
        for n, f in spec.features.items()
    ]


def event_uses(spec: Spec, name: str, log: Log, fit_before: int | None) -> list[Use]:
    """The side info of one domain; the training period ends before clock `fit_before`."""
    domain, uses = spec.domains[name], []
    for side, feature in domain.side.items():
        clock = known_from(log.events[name], feature)
        # An event of a list is known from the request on that first shows it, one clock later.
        seen = clock if domain.from_list is None else clock + 1
        before = np.ones(len(clock), dtype=bool) if fit_before is None else seen < fit_before
        uses.append(Use(name, side, feature, log, before, "event"))
    return uses


def known_from(events: pl.DataFrame, feature: Feature | SincePrevious) -> np.ndarray:
    """The clock at which each event and all columns of a feature are known, int64."""
    late = [c for c in map(known_column, feature_columns(feature)) if c in events.columns]
    return events.select(pl.max_horizontal(CLOCK, *late)).to_series().to_numpy()
