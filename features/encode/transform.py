"""Encode columns: tables and scalers are fitted on the training period and applied to everything.

The training period of the impressions is the train part; that of the events is what lies before the first
clock outside the train part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from features.encode.scale import count_not_finite, fit_dense
from features.encode.split import SplitRanges
from features.encode.tables import FittedTable, Hash, fit_table, log_buckets
from features.encode.values import Values, values_of
from features.read.clock import CLOCK, TIME
from features.read.columns import feature_columns, is_request_level
from features.read.ids import key_values
from features.read.known_clock import known_column
from features.read.log import Log
from features.spec import (
    CalendarFeature,
    DenseFeature,
    Feature,
    IdFeature,
    IdTable,
    SincePrevious,
    Spec,
)
from features.store.columns import Column, id_type
from features.store.manifest import TableInfo

Level = Literal["request", "candidate", "event"]
_KINDS = ("id", "weight", "dense")
_CALENDAR_ROWS = {"hour": 25, "weekday": 8}
_SLICE = 2**18  # rows that are encoded at a time
_PLAIN = (pl.String, pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt32, pl.UInt16, pl.UInt8)


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
        """Whether its columns are there: those of counters, matches and pages come one after the other."""
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


@dataclass
class Encoded:
    """Encoded columns (one value per impression or event), and what was fitted for them."""

    spec: Spec
    columns: dict[str | None, dict[str, pa.Array]]  # domain (None: impressions) → Arrow column → values
    described: dict[str, Column] = field(default_factory=dict)  # key of the use → its description
    tables: dict[str, FittedTable] = field(default_factory=dict)
    known: dict[str, dict[str, np.ndarray]] = field(
        default_factory=dict
    )  # domain → field known later → clock
    implicit: dict[str, TableInfo] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=lambda: {"tables": {}, "scalers": {}})  # for scalers.json
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def table_infos(self) -> dict[str, TableInfo]:
        """Every table for the manifest, in the spec's order."""
        return {n: self.tables[n].info for n in self.spec.tables if n in self.tables} | self.implicit

    @property
    def features(self) -> list[Column]:
        """The features, in the spec's order."""
        return [self.described[name] for name in self.spec.features]

    def side(self, domain: str) -> list[Column]:
        """The side info of a domain, in the spec's order."""
        return [self.described[f"{domain}/{name}"] for name in self.spec.domains[domain].side]

    def of_level(self, level: Level) -> dict[str, pa.Array]:
        """The Arrow columns of the features of one level, a value per impression, in the spec's order."""
        return self._arrays(None, [c for c in self.features if c.level == level])

    def of_domain(self, domain: str) -> dict[str, pa.Array]:
        """The Arrow columns of a domain's side info, by ID table, in the order of the tables."""
        rank = {name: i for i, name in enumerate(self.spec.tables)}
        return self._arrays(
            domain, sorted(self.side(domain), key=lambda c: rank.get(c.table or "", len(rank)))
        )

    def _arrays(self, domain: str | None, columns: list[Column]) -> dict[str, pa.Array]:
        every = self.columns[domain]
        return {n: every[n] for c in columns for kind in _KINDS if (n := f"{kind}.{c.name}") in every}


def all_uses(spec: Spec, log: Log, ranges: SplitRanges) -> list[Use]:
    """Every feature, then the side info of every domain, in the spec's order."""
    in_train = np.arange(log.rows.height) < ranges.valid_start
    uses = [
        Use(None, n, f, log, in_train, "request" if is_request_level(spec, f) else "candidate")
        for n, f in spec.features.items()
    ]
    for name, domain in spec.domains.items():
        for side, feature in domain.side.items():
            clock, bound = known_from(log.events[name], feature), ranges.fit_before
            before = np.ones(len(clock), dtype=bool) if bound is None else clock < bound
            uses.append(Use(name, side, feature, log, before, "event"))
    return uses


def known_from(events: pl.DataFrame, feature: Feature | SincePrevious) -> np.ndarray:
    """The clock at which each event and all columns of a feature are known, int64."""
    late = [c for c in map(known_column, feature_columns(feature)) if c in events.columns]
    return events.select(pl.max_horizontal(CLOCK, *late)).to_series().to_numpy()


def encode_table(name: str, uses: list[Use], encoded: Encoded) -> None:
    """Fit one table on all its uses, and look them up."""
    table, what = encoded.spec.tables[name], f"table {name!r}"
    values = _comparable([_values(use) for use in uses], table, uses)
    training = [(u.domain is None, v.of(u.training)) for u, v in zip(uses, values, strict=True)]
    shown, happened = ([v for is_shown, v in training if is_shown is kind] for kind in (True, False))
    fitted = fit_table(table, shown, happened, what=what)
    encoded.tables[name] = fitted
    encoded.fitted["tables"][name] = {
        "encode": table.encode,
        "fit": _fit_range(uses),
        **fitted.state(),
    }
    if isinstance(fitted, Hash):  # knows no values, and 5 and "5" have different hashes
        types = {
            u.key: str(key_values(v.flat.clear(), what=u.what).dtype)
            for u, v in zip(uses, values, strict=True)
        }
        encoded.fitted["tables"][name]["types"] = types
    for use, value in zip(uses, values, strict=True):
        columns = encoded.columns[use.domain]
        columns[f"id.{use.name}"] = value.arrow(_ids(fitted, value.flat, what=use.what))
        if value.weights is not None:
            columns[f"weight.{use.name}"] = value.arrow_weights()
        encoded.described[use.key] = Column(
            name=use.name,
            level=use.level,
            kind="id" if value.offsets is None else "ids",
            table=name,
            weighted=value.weights is not None,
            known_later=_note_known(use, encoded),
        )


def _ids(fitted: FittedTable, values: pl.Series, *, what: str) -> np.ndarray:
    """Look up a slice at a time: what a search needs beside its result stays small."""
    ids = np.empty(len(values), dtype=id_type(fitted.info.rows))
    for low in range(0, len(values), _SLICE):
        ids[low : low + _SLICE] = fitted.look_up(values.slice(low, _SLICE), what=what)
    return ids


def _values(use: Use) -> Values:
    assert isinstance(use.feature, IdFeature)
    return values_of(use.frame, use.feature, what=use.what)


def _comparable(values: list[Values], table: IdTable, uses: list[Use]) -> list[Values]:
    """Values that are looked up slice by slice, of types that do not depend on what a slice holds.

    Integers up to int64 and texts are IDs as they are. In a hash table all uses have one type, since 5 and
    "5" have different hashes; a vocabulary finds that by itself.
    """
    if table.encode not in ("vocabulary", "hash"):
        return values
    flat = [
        v.flat if v.flat.dtype in _PLAIN else key_values(v.flat, what=u.what)
        for u, v in zip(uses, values, strict=True)
    ]
    if table.encode == "hash" and any(f.dtype == pl.String for f in flat):
        flat = [f.cast(pl.String) for f in flat]
    return [replace(v, flat=f) for v, f in zip(values, flat, strict=True)]


def encode_other(use: Use, encoded: Encoded) -> None:
    """Encode what has no table in the spec: dense numbers, calendar features, gaps between events."""
    encode = _encode_dense if isinstance(use.feature, DenseFeature) else _encode_time
    encoded.described[use.key] = encode(use, encoded)


def _encode_dense(use: Use, encoded: Encoded) -> Column:
    assert isinstance(use.feature, DenseFeature)
    frame = use.frame.select(use.feature.columns)
    training = frame.filter(pl.Series(use.training))
    fitted = fit_dense(training, use.feature, what=use.what, may_be_missing=use.known_later)
    matrix = np.empty((frame.height, len(fitted.fields)), dtype=np.float32)
    for low in range(0, frame.height, _SLICE):
        matrix[low : low + _SLICE] = fitted.apply(frame.slice(low, _SLICE), what=use.what)
    flat = pa.array(matrix.reshape(-1), type=pa.float32())
    encoded.columns[use.domain][f"dense.{use.name}"] = pa.FixedSizeListArray.from_arrays(
        flat, matrix.shape[1]
    )
    encoded.fitted["scalers"][use.key] = {"fit": _fit_range([use]), "columns": fitted.state()}
    if count := count_not_finite(frame, use.feature):
        encoded.counters[f"not_finite.{use.key}"] = count
    return Column(
        name=use.name,
        level=use.level,
        kind="dense",
        dim=matrix.shape[1],
        fields=fitted.fields,
        known_later=_note_known(use, encoded),
    )


def _note_known(use: Use, encoded: Encoded) -> bool:
    """Keep the clocks of a field that is known later, to be written beside it; whether it is one."""
    if use.known_later and use.domain is not None:
        encoded.known.setdefault(use.domain, {})[use.name] = known_from(use.frame, use.feature)
    return use.known_later


def _encode_time(use: Use, encoded: Encoded) -> Column:
    """Calendar features and gaps between events: tables of a fixed size, to which nothing is fitted."""
    if isinstance(use.feature, CalendarFeature):
        ids, table = calendar_ids(use.frame[TIME].to_numpy(), use.feature), f"calendar.{use.feature.calendar}"
        info = TableInfo(rows=_CALENDAR_ROWS[use.feature.calendar], encode="calendar", oov_rows=0)
    else:
        assert isinstance(use.feature, SincePrevious)
        buckets = log_buckets(use.feature.rows, 2.0)
        ids, table, info = buckets.look_up(_gaps(use.frame), what=use.what), f"gap.{use.domain}", buckets.info
    encoded.implicit[table] = info
    encoded.columns[use.domain][f"id.{use.name}"] = pa.array(ids.astype(id_type(info.rows)))
    return Column(name=use.name, level=use.level, kind="id", table=table)


def calendar_ids(seconds: np.ndarray, feature: CalendarFeature) -> np.ndarray:
    """int32 IDs of int64 times: 1 … 24 for the hours from 0, 1 … 7 for Monday to Sunday."""
    local = seconds + round(feature.offset_hours * 3600)
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
