"""Encode columns: tables and scalers are fitted on the training period and applied to everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features.encode.encoded import Encoded
from features.encode.scale import FittedDense, count_not_finite, fit_dense, missing_in
from features.encode.tables import FittedTable, Hash, fit_table, log_buckets
from features.encode.uses import Use, known_from
from features.encode.values import Values, values_of
from features.errors import DataError
from features.read.clock import CLOCK, TIME
from features.read.ids import key_values
from features.read.locate import locate
from features.spec import (
    CalendarFeature,
    DenseFeature,
    IdFeature,
    IdTable,
    SincePrevious,
)
from features.store.columns import Column, id_type
from features.store.manifest import TableInfo

_CALENDAR_ROWS = {"hour": 25, "weekday": 8}
_SLICE = 2**18  # rows that are encoded at a time
_PLAIN = (pl.String, pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt32, pl.UInt16, pl.UInt8)


def encode_table(name: str, uses: list[Use], encoded: Encoded) -> None:
    """Fit one table on all its uses, and look them up."""
    table, what = encoded.spec.tables[name], f"table {name!r}"
    values = comparable([id_values_of(use) for use in uses], table, uses)
    fitted = fit_table(table, *training_values(uses, values), what=what)
    state = {"encode": table.encode, "fit": fit_range([fit_span(use) for use in uses]), **fitted.state()}
    if isinstance(fitted, Hash):  # knows no values, and 5 and "5" have different hashes
        state["types"] = {u.key: key_type(v, what=u.what) for u, v in zip(uses, values, strict=True)}
    encoded.fitted["tables"][name] = state
    look_up_table(name, fitted, uses, values, encoded)


def training_values(uses: list[Use], values: list[Values]) -> tuple[list[pl.Series], list[pl.Series]]:
    """The values of the training period: those that were shown, and those of events."""
    training = [(u.domain is None, v.of(u.training)) for u, v in zip(uses, values, strict=True)]
    shown, happened = ([v for is_shown, v in training if is_shown is kind] for kind in (True, False))
    return shown, happened


def key_type(values: Values, *, what: str) -> str:
    """What the IDs of a hashed column are: Int64 or String."""
    return str(key_values(values.flat.clear(), what=what).dtype)


def look_up_table(
    name: str, fitted: FittedTable, uses: list[Use], values: list[Values], encoded: Encoded
) -> None:
    """The columns of all uses of a fitted table."""
    encoded.tables[name] = fitted
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


def id_values_of(use: Use) -> Values:
    """The values of an ID feature."""
    assert isinstance(use.feature, IdFeature)
    return values_of(use.frame, use.feature, what=use.what)


def comparable(
    values: list[Values], table: IdTable, uses: list[Use], *, as_text: bool = False
) -> list[Values]:
    """Values that are looked up slice by slice, of types that do not depend on what a slice holds.

    Integers up to int64 and texts are IDs as they are. In a hash table all uses have one type, since 5 and
    "5" have different hashes; a vocabulary finds that by itself. `as_text`: a use elsewhere is text.
    """
    if table.encode not in ("vocabulary", "hash"):
        return values
    flat = [
        v.flat if v.flat.dtype in _PLAIN else key_values(v.flat, what=u.what)
        for u, v in zip(uses, values, strict=True)
    ]
    if table.encode == "hash" and (as_text or any(f.dtype == pl.String for f in flat)):
        flat = [f.cast(pl.String) for f in flat]
    return [replace(v, flat=f) for v, f in zip(values, flat, strict=True)]


def encode_other(use: Use, encoded: Encoded) -> None:
    """Encode what has no table in the spec: dense numbers, calendar features, gaps between events."""
    if isinstance(use.feature, DenseFeature):
        training = use.frame.select(use.feature.columns).filter(pl.Series(use.training))
        fitted = fit_dense(training, use.feature, what=use.what, may_be_missing=use.known_later)
        state = {"fit": fit_range([fit_span(use)]), "columns": fitted.state()}
        encoded.fitted["scalers"][use.key] = state
        scale_dense(use, fitted, encoded)
    else:
        encoded.described[use.key] = _encode_time(use, encoded)


def scale_dense(use: Use, fitted: FittedDense, encoded: Encoded) -> None:
    """The column of a fitted dense feature."""
    assert isinstance(use.feature, DenseFeature)
    frame = use.frame.select(use.feature.columns)
    if use.feature.missing == "error":
        _refuse_missing(use, missing_in(frame, use.feature, what=use.what))
    matrix = np.empty((frame.height, len(fitted.fields)), dtype=np.float32)
    for low in range(0, frame.height, _SLICE):
        matrix[low : low + _SLICE] = fitted.apply(frame.slice(low, _SLICE), what=use.what)
    flat = pa.array(matrix.reshape(-1), type=pa.float32())
    encoded.columns[use.domain][f"dense.{use.name}"] = pa.FixedSizeListArray.from_arrays(
        flat, matrix.shape[1]
    )
    if count := count_not_finite(frame, use.feature):
        encoded.counters[f"not_finite.{use.key}"] = count
    encoded.described[use.key] = Column(
        name=use.name,
        level=use.level,
        kind="dense",
        dim=matrix.shape[1],
        fields=fitted.fields,
        known_later=_note_known(use, encoded),
    )


def _refuse_missing(use: Use, wrong: np.ndarray) -> None:
    if wrong.any():
        rows = use.log.origin.rows() if use.domain is None else use.frame
        raise DataError(
            f"{use.what} must hold a finite number in every row (missing: error), but "
            f"{locate(rows, pl.Series(wrong))} hold null, NaN or an infinite one; mend the log, or leave "
            "missing out for an indicator"
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


FitSpan = tuple[int, int, int]  # how many rows, and their first and last clock


def fit_span(use: Use) -> FitSpan:
    """The rows that a use is fitted on."""
    clocks = use.frame[CLOCK].to_numpy()[use.training]
    low, high = (int(clocks.min()), int(clocks.max())) if len(clocks) else (0, 0)
    return len(clocks), low, high


def fit_range(spans: list[FitSpan]) -> dict[str, Any]:
    """How many rows were fitted on, and their first and last clock."""
    some = [(low, high) for rows, low, high in spans if rows]
    clock = [min(low for low, _ in some), max(high for _, high in some)] if some else None
    return {"rows": sum(rows for rows, _, _ in spans), "clock": clock}
