"""Encode the log's columns: tables and scalers are fitted on the training period and applied to everything.

The training period of the impressions is the train part; that of the events is what lies before the first
clock outside the train part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from features.clock import CLOCK, TIME
from features.columns import is_request_level
from features.dataset import Column, TableInfo
from features.encode import FittedTable, fit_table, log_buckets
from features.log import Log
from features.scale import count_not_finite, fit_dense
from features.spec import CalendarFeature, DenseFeature, Feature, IdFeature, SincePrevious, Spec
from features.split import Parts
from features.values import Values, values_of

Level = Literal["request", "candidate", "event"]
_KINDS = ("id", "weight", "dense")
_CALENDAR_ROWS = {"hour": 25, "weekday": 8}


@dataclass(frozen=True)
class Use:
    """One feature or field of side info, and the frame it is computed from."""

    domain: str | None  # None: a feature of the impressions
    name: str
    feature: Feature | SincePrevious
    frame: pl.DataFrame
    training: np.ndarray  # bool (rows of the frame,): in the training period
    level: Level

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


@dataclass
class Encoded:
    """Encoded columns (one value per impression or event), and what was fitted for them."""

    columns: dict[str | None, dict[str, pa.Array]]  # domain (None: impressions) → Arrow column → values
    described: dict[str | None, list[Column]]
    tables: dict[str, FittedTable] = field(default_factory=dict)
    implicit: dict[str, TableInfo] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)  # plain data for scalers.json
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def table_infos(self) -> dict[str, TableInfo]:
        """Every table for the manifest."""
        return {name: t.info for name, t in self.tables.items()} | self.implicit

    def of_level(self, level: Level) -> dict[str, pa.Array]:
        """The Arrow columns of the features of one level, a value per impression, in the spec's order."""
        every = self.columns[None]
        names = [c.name for c in self.described[None] if c.level == level]
        return {n: every[n] for name in names for kind in _KINDS if (n := f"{kind}.{name}") in every}


def encode_log(spec: Spec, log: Log, parts: Parts) -> Encoded:
    """Fit on the training period and encode everything.

    Raises:
        DataError: a column of a type that its feature cannot use.
    """
    uses = _uses(spec, log, parts)
    domains: list[str | None] = [None, *spec.domains]
    encoded = Encoded(
        {d: {} for d in domains}, {d: [] for d in domains}, fitted={"tables": {}, "scalers": {}}
    )
    described: dict[str, Column] = {}
    for name in spec.tables:
        members = [u for u in uses if isinstance(u.feature, IdFeature) and u.feature.table == name]
        if members:
            described |= _encode_table(spec, name, members, encoded)
    for use in uses:
        if isinstance(use.feature, DenseFeature):
            described[use.key] = _encode_dense(use, encoded)
        elif not isinstance(use.feature, IdFeature):
            described[use.key] = _encode_time(use, encoded)
    for use in uses:
        encoded.described[use.domain].append(described[use.key])
    return encoded


def _uses(spec: Spec, log: Log, parts: Parts) -> list[Use]:
    in_train = np.arange(log.rows.height) < parts.valid_start
    uses = [
        Use(None, n, f, log.rows, in_train, "request" if is_request_level(spec, f) else "candidate")
        for n, f in spec.features.items()
    ]
    for name, domain in spec.domains.items():
        events = log.events[name]
        clock = events[CLOCK].to_numpy()
        before = clock < parts.fit_before if parts.fit_before is not None else np.ones(len(clock), dtype=bool)
        uses += [Use(name, n, f, events, before, "event") for n, f in domain.side.items()]
    return uses


def _encode_table(spec: Spec, name: str, uses: list[Use], encoded: Encoded) -> dict[str, Column]:
    """Fit one table on all its uses, and look them up."""
    what = f"table {name!r}"
    values = [_values(use) for use in uses]
    training = [(u.domain is None, v.of(u.training)) for u, v in zip(uses, values, strict=True)]
    shown, happened = ([v for is_shown, v in training if is_shown is kind] for kind in (True, False))
    fitted = fit_table(spec.tables[name], shown, happened, what=what)
    encoded.tables[name] = fitted
    encoded.fitted["tables"][name] = {
        "encode": spec.tables[name].encode,
        "fit": _fit_range(uses),
        **fitted.state(),
    }
    described = {}
    for use, value in zip(uses, values, strict=True):
        columns = encoded.columns[use.domain]
        columns[f"id.{use.name}"] = value.arrow(fitted.look_up(value.flat, what=use.what))
        if value.weights is not None:
            columns[f"weight.{use.name}"] = value.arrow_weights()
        described[use.key] = Column(
            name=use.name,
            level=use.level,
            kind="id" if value.offsets is None else "ids",
            table=name,
            weighted=value.weights is not None,
        )
    return described


def _values(use: Use) -> Values:
    assert isinstance(use.feature, IdFeature)
    return values_of(use.frame, use.feature, what=use.what)


def _encode_dense(use: Use, encoded: Encoded) -> Column:
    assert isinstance(use.feature, DenseFeature)
    fitted = fit_dense(use.frame.filter(pl.Series(use.training)), use.feature, what=use.what)
    matrix = fitted.apply(use.frame, what=use.what)
    flat = pa.array(matrix.reshape(-1), type=pa.float32())
    encoded.columns[use.domain][f"dense.{use.name}"] = pa.FixedSizeListArray.from_arrays(
        flat, matrix.shape[1]
    )
    encoded.fitted["scalers"][use.key] = {"fit": _fit_range([use]), "columns": fitted.state()}
    if count := count_not_finite(use.frame, use.feature):
        encoded.counters[f"not_finite.{use.key}"] = count
    return Column(name=use.name, level=use.level, kind="dense", dim=matrix.shape[1], fields=fitted.fields)


def _encode_time(use: Use, encoded: Encoded) -> Column:
    """Calendar features and gaps between events: tables of a fixed size, to which nothing is fitted."""
    if isinstance(use.feature, CalendarFeature):
        ids, table = _calendar(use.frame, use.feature), f"calendar.{use.feature.calendar}"
        info = TableInfo(rows=_CALENDAR_ROWS[use.feature.calendar], encode="calendar", oov_rows=0)
    else:
        assert isinstance(use.feature, SincePrevious)
        buckets = log_buckets(use.feature.rows, 2.0)
        ids, table, info = buckets.look_up(_gaps(use.frame), what=use.what), f"gap.{use.domain}", buckets.info
    encoded.implicit[table] = info
    encoded.columns[use.domain][f"id.{use.name}"] = pa.array(ids, type=pa.int32())
    return Column(name=use.name, level=use.level, kind="id", table=table)


def _calendar(frame: pl.DataFrame, feature: CalendarFeature) -> np.ndarray:
    """1 … 24 for the hours from 0, 1 … 7 for Monday to Sunday."""
    local = frame[TIME].to_numpy() + round(feature.offset_hours * 3600)
    if feature.calendar == "hour":
        return (local // 3600 % 24 + 1).astype(np.int32)
    return ((local // 86_400 + 3) % 7 + 1).astype(np.int32)  # 1970-01-01 was a Thursday


def _gaps(events: pl.DataFrame) -> pl.Series:
    """Seconds since the user's previous event, missing for the first."""
    gap = pl.when(pl.col("__user") == pl.col("__user").shift(1)).then(pl.col(TIME) - pl.col(TIME).shift(1))
    return events.select(gap).to_series()


def _fit_range(uses: list[Use]) -> dict[str, Any]:
    """How many rows were fitted on, and their first and last clock."""
    clocks = [u.frame[CLOCK].to_numpy()[u.training] for u in uses]
    some = [c for c in clocks if len(c)]
    span = [min(int(c.min()) for c in some), max(int(c.max()) for c in some)] if some else None
    return {"rows": sum(len(c) for c in clocks), "clock": span}
