"""Checks of what was fitted: on the training period only, computed again from the written data.

Letters: N rows or events of the training period.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from features.dataset import Column, IdValues, dense_values, id_values
from features.doctor.opened import CheckResult, Opened
from features.names import under


def fitted_before(opened: Opened, fitted: dict[str, Any]) -> CheckResult:
    """The last clock that was fitted on, as recorded, lies before everything outside the train part."""
    span, bound = fitted["fit"]["clock"], opened.first_outside
    if span is None:
        return "warn", "fitted on nothing: there were no training values"
    if bound is not None and span[1] >= bound:
        return "fail", f"fitted up to clock {span[1]}, but the rest begins at {bound}"
    return "pass", f"{fitted['fit']['rows']:,} rows"


def counts_equal(opened: Opened, table: str) -> CheckResult:
    """All IDs lie in the table, and a vocabulary counted what the training part of the written data holds."""
    info = opened.data.manifest.tables[table]
    for name, values in _all_ids(opened, table):
        if len(values) and not 0 <= values.min() <= values.max() < info.rows:
            return "fail", f"{name}: IDs must lie in [0, {info.rows}), got {values.min()} to {values.max()}"
    if info.encode != "vocabulary":
        return "pass", f"{info.encode}: nothing is counted"
    if opened.data.manifest.lineage is not None:
        return "pass", "counted over all days, of which this is one"
    shown, happened = np.zeros((2, info.rows), dtype=np.int64)
    for values, weight in _shown_ids(opened, table):
        shown += np.bincount(values, weights=weight, minlength=info.rows).astype(np.int64)
    for values in _happened_ids(opened, table):
        happened += np.bincount(values, minlength=info.rows)
    seen = np.where(shown > 0, shown, happened)  # as features.encode.tables.fit_table counts
    book = pq.read_table(under(opened.data.root, "fitted", f"{table}.parquet"))
    wrong = np.flatnonzero(seen[book["id"].to_numpy()] != book["count"].to_numpy())
    if len(wrong):
        return "fail", f"{len(wrong)} values, the first is {book['value'][int(wrong[0])].as_py()!r}"
    return "pass", f"{len(book):,} values"


def moments(opened: Opened, key: str) -> CheckResult:
    """A scaler that was fitted on the training values alone leaves them with mean 0 and variance 1."""
    if opened.data.manifest.lineage is not None:
        return "pass", "fitted on the first day"
    column, values, weight = _dense_training(opened, key)
    for field, state in opened.fitted["scalers"][key]["columns"].items():
        x = values[:, column.fields.index(field)].astype(np.float64)
        known = np.ones(len(x), dtype=bool)
        if (flag := f"{field}.missing") in column.fields:
            known = values[:, column.fields.index(flag)] == 0
        clipped = (np.abs(x[known]) > state["clip"] - 1e-6).any()
        if state["kind"] not in ("standard", "log") or not known.any() or clipped:
            continue
        mean = np.average(x[known], weights=weight[known])
        variance = np.average((x[known] - mean) ** 2, weights=weight[known])
        # A constant column keeps its variance of 0.
        if abs(mean) > 1e-3 or min(abs(variance - 1), variance) > 1e-3:
            return "fail", f"{field}: mean {mean:.4f}, variance {variance:.4f}: fitted on other rows"
    return "pass", "where standardised and not clipped"


def constant_features(opened: Opened) -> CheckResult:
    """Features of one value in training teach nothing."""
    constant = []
    for column in opened.data.manifest.features:
        table, _ = opened.training(column)
        if not table.num_rows:
            continue
        if column.kind == "dense":
            spread = np.ptp(dense_values(table, column), axis=0)
            constant += [f"{column.name}: {f}" for f, s in zip(column.fields, spread, strict=True) if s == 0]
        elif len(np.unique(id_values(table, column).values)) <= 1:
            constant.append(column.name)
    return ("warn", f"constant: {constant}") if constant else ("pass", "")


def _all_ids(opened: Opened, table: str) -> Iterator[tuple[str, np.ndarray]]:
    """All written IDs of a table, and where they are."""
    for column in (c for c in opened.data.manifest.features if c.table == table):
        for name, split in opened.splits.items():
            rows = split.requests if column.level == "request" else split.impressions
            yield f"{name}, {column.name}", id_values(rows, column).values
    for domain, store in opened.events.items():
        for column in (c for c in store.info.side if c.table == table):
            yield f"{domain}, {column.name}", store.ids[column.name].values


def _shown_ids(opened: Opened, table: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The IDs of a table in the training impressions, and how often each counts."""
    for column in (c for c in opened.data.manifest.features if c.table == table):
        rows, weight = opened.training(column)
        ids = id_values(rows, column)
        yield ids.values, _spread(ids, weight)


def _happened_ids(opened: Opened, table: str) -> Iterator[np.ndarray]:
    """The IDs of a table in the events of the training period."""
    for store in opened.events.values():
        for column in (c for c in store.info.side if c.table == table):
            ids = store.ids[column.name]
            yield ids.values[_spread(ids, opened.before(store, column.name))]


def _spread(ids: IdValues, per_owner: np.ndarray) -> np.ndarray:
    """A number per owner as a number per ID."""
    return per_owner if ids.offsets is None else np.repeat(per_owner, np.diff(ids.offsets))


def _dense_training(opened: Opened, key: str) -> tuple[Column, np.ndarray, np.ndarray]:
    """A dense column of features or side info (N, dim) in the training period, and each row's weight (N,)."""
    domain, _, name = key.rpartition("/")
    if domain:
        store = opened.events[domain]
        column = next(c for c in store.info.side if c.name == name)
        values = store.dense[name][opened.before(store, name)]
        return column, values, np.ones(len(values))
    column = opened.data.manifest.column(name)
    rows, weight = opened.training(column)
    return column, dense_values(rows, column), weight
