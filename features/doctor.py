"""`ctr doctor`: does the written data leak, and what is in it? Everything is computed anew from the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from features.dataset import (
    SPLITS,
    Column,
    Dataset,
    EventStore,
    SplitData,
    dense_values,
    id_values,
    sha256_of,
)
from features.history import pointers
from features.names import under
from features.profile import profile

Status = Literal["pass", "warn", "fail"]
Found = tuple[Status, str]


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and whether it does."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and a description of the data as text."""

    checks: list[Check]
    description: str

    @property
    def healthy(self) -> bool:
        """Whether no check failed; warnings are no failures."""
        return all(c.status != "fail" for c in self.checks)

    def summary(self) -> str:
        """One line: how many checks ended how, and the failed ones by name."""
        counts = [
            f"{n} {s}" for s in ("pass", "warn", "fail") if (n := sum(c.status == s for c in self.checks))
        ]
        failed = [c.name for c in self.checks if c.status == "fail"]
        return ", ".join(counts) + (f": {'; '.join(failed)}" if failed else "")

    def text(self) -> str:
        """What `ctr doctor` prints."""
        width = max(len(c.name) for c in self.checks)
        lines = [f"{c.status.upper():4}  {c.name:{width}}  {c.detail}".rstrip() for c in self.checks]
        return "\n".join([self.description, "", *lines, "", self.summary()])


@dataclass(frozen=True)
class Opened:
    """A dataset with everything that the checks share."""

    data: Dataset
    splits: dict[str, SplitData]
    events: dict[str, EventStore]
    fitted: dict[str, Any]

    @property
    def first_outside(self) -> int | None:
        """The first clock outside the train part, from the written rows."""
        clocks = [self.clock(s) for s in SPLITS[1:]]
        return min((int(c.min()) for c in clocks if len(c)), default=None)

    def clock(self, split: str) -> np.ndarray:
        """Clocks of the requests of a split."""
        return self.splits[split].requests["clock"].to_numpy()


def examine(root: Path | str) -> Diagnosis:
    """Check a dataset directory and describe it.

    Args:
        root: the directory that `ctr prepare` wrote.

    Raises:
        DataError: the directory is no dataset, or a file of it cannot be read at all.
    """
    data = Dataset(root)
    fitted = json.loads((under(data.root, "fitted") / "scalers.json").read_text())
    events = {d: data.events(d) for d in data.manifest.domains}
    opened = Opened(data, {s: data.split(s) for s in SPLITS}, events, fitted)
    checks = [Check(name, *found) for name, found in _checks(opened)]
    return Diagnosis(checks, profile(data, opened.splits, opened.events))


def _checks(opened: Opened) -> Iterator[tuple[str, Found]]:
    yield "files are as written", _files(opened)
    yield "rows of a request are contiguous", _rows(opened)
    yield "train, valid and test follow one another in time", _split_order(opened)
    for name, store in opened.events.items():
        yield f"{name}: events sorted by user and clock", _sorted(store)
        yield f"{name}: history strictly before the request", _over_splits(opened, name, _strictly_before)
        yield f"{name}: history complete and newest", _over_splits(opened, name, _complete)
    for name in opened.fitted["tables"]:
        yield (
            f"table {name}: fitted before the validation period",
            _fit_range(opened, opened.fitted["tables"][name]),
        )
        yield f"table {name}: counts equal those of the training data", _counts(opened, name)
    for key, scaler in opened.fitted["scalers"].items():
        yield f"scaler {key}: fitted before the validation period", _fit_range(opened, scaler)
        yield f"scaler {key}: training values have mean 0 and variance 1", _moments(opened, key)
    yield "every part has both labels", _labels(opened)
    yield "no feature is constant in training", _constant(opened)


def _files(opened: Opened) -> Found:
    files = opened.data.manifest.files
    changed = [
        n for n, digest in files.items() if sha256_of(under(opened.data.root, *n.split("/"))) != digest
    ]
    return ("fail", f"changed since: {changed}") if changed else ("pass", f"{len(files)} files")


def _rows(opened: Opened) -> Found:
    """Counts must add up, and row IDs count through all parts."""
    row = 0
    for name, split in opened.splits.items():
        counts, ids = split.requests["num_rows"].to_numpy(), split.impressions["row_id"].to_numpy()
        if counts.sum() != len(ids) or (counts < 1).any():
            return "fail", f"{name}: num_rows sums to {counts.sum()}, there are {len(ids)} impressions"
        if not np.array_equal(ids, np.arange(row, row + len(ids))):
            return "fail", f"{name}: row_id must count from {row}"
        row += len(ids)
    request = np.concatenate([s.requests["request_id"].to_numpy() for s in opened.splits.values()])
    if not np.array_equal(request, np.arange(len(request))):
        return "fail", "request_id must count through all parts"
    return "pass", f"{len(request):,} requests, {row:,} rows"


def _split_order(opened: Opened) -> Found:
    last, before = None, ""
    for name in SPLITS:
        clock = opened.clock(name)
        if (np.diff(clock) < 0).any():
            return "fail", f"{name}: requests are not in time order"
        if len(clock) and last is not None and clock[0] <= last:
            return "fail", f"{name} begins at clock {clock[0]}, {before} ends at {last}"
        last, before = (int(clock[-1]), name) if len(clock) else (last, before)
    return "pass", ""


def _sorted(store: EventStore) -> Found:
    user, clock = np.diff(store.user_id), np.diff(store.clock)
    wrong = np.flatnonzero((user < 0) | ((user == 0) & (clock < 0)))
    return ("fail", f"{len(wrong)} events, the first is {wrong[0] + 1}") if len(wrong) else ("pass", "")


def _over_splits(opened: Opened, domain: str, check: Callable[[SplitData, EventStore, str], Found]) -> Found:
    """The first failure of a check over the splits."""
    found: Found = ("pass", "")
    for name, split in opened.splits.items():
        found = check(split, opened.events[domain], domain)
        if found[0] == "fail":
            return "fail", f"{name}: {found[1]}"
    return found


def _strictly_before(split: SplitData, store: EventStore, domain: str) -> Found:
    """No pointed-to event has the request's clock or a later one, or belongs to someone else."""
    start, end, request = _pointers(split, domain)
    if (start < 0).any() or (end > len(store.clock)).any() or (start > end).any():
        return "fail", "pointers must lie in the event store"
    some = np.flatnonzero(end > start)
    start, end, request = start[some], end[some], {n: c[some] for n, c in request.items()}
    late = _largest(store.clock, start, end) >= request["clock"]
    late |= _largest(store.time, start, end) > request["time"]
    if late.any():
        return (
            "fail",
            f"{late.sum()} requests see an event that is not earlier, the first is {request['request_id'][late][0]}",
        )
    user = request["user_id"]
    other = (_largest(store.user_id, start, end) != user) | (-_largest(-store.user_id, start, end) != user)
    if other.any():
        return (
            "fail",
            f"{other.sum()} requests see events of another user, the first is {request['request_id'][other][0]}",
        )
    return "pass", ""


def _complete(split: SplitData, store: EventStore, domain: str) -> Found:
    """The pointers are those of a new search."""
    start, end, request = _pointers(split, domain)
    wanted = pointers(
        store.user_id,
        store.clock,
        at_user=request["user_id"],
        at_clock=request["clock"],
        max_len=store.info.max_len,
    )
    wrong = (end - start != wanted[1] - wanted[0]) | ((end != wanted[1]) & (end > start))
    if wrong.any():
        return (
            "fail",
            f"{wrong.sum()} requests have another history, the first is {request['request_id'][wrong][0]}",
        )
    return "pass", ""


def _pointers(split: SplitData, domain: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    names = ("request_id", "user_id", "time", "clock")
    start, end = (split.requests[f"{part}.{domain}"].to_numpy() for part in ("start", "end"))
    return start, end, {n: split.requests[n].to_numpy() for n in names}


def _largest(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The largest of values[start:end], which are not empty; looks at every one, sorted or not."""
    if not len(start):
        return np.empty(0, dtype=values.dtype)
    # reduceat takes pairs of bounds; the number at the end is only there to be a bound.
    padded = np.append(values, values[-1:])
    return np.maximum.reduceat(padded, np.stack([start, end], axis=1).reshape(-1))[::2]


def _fit_range(opened: Opened, fitted: dict[str, Any]) -> Found:
    span, bound = fitted["fit"]["clock"], opened.first_outside
    if span is None:
        return "warn", "fitted on nothing: there were no training values"
    if bound is not None and span[1] >= bound:
        return "fail", f"fitted up to clock {span[1]}, but the rest begins at {bound}"
    return "pass", f"{fitted['fit']['rows']:,} rows"


def _counts(opened: Opened, table: str) -> Found:
    """What the vocabulary says it saw is what the training part of the written data holds."""
    info = opened.data.manifest.tables[table]
    seen = np.zeros(info.rows, dtype=np.int64)
    for column, values, weight in _uses(opened, table):
        if len(values) and not 0 <= values.min() <= values.max() < info.rows:
            return (
                "fail",
                f"{column.name}: IDs must lie in [0, {info.rows}), got {values.min()} to {values.max()}",
            )
        seen += np.bincount(values, weights=weight, minlength=info.rows).astype(np.int64)
    if info.encode != "vocabulary":
        return "pass", f"{info.encode}: nothing was counted; all IDs lie in the table"
    book = pq.read_table(under(opened.data.root, "fitted") / f"{table}.parquet")
    wrong = np.flatnonzero(seen[book["id"].to_numpy()] != book["count"].to_numpy())
    if len(wrong):
        return "fail", f"{len(wrong)} values, the first is {book['value'][int(wrong[0])].as_py()!r}"
    return "pass", f"{len(book):,} values"


def _uses(opened: Opened, table: str) -> Iterator[tuple[Column, np.ndarray, np.ndarray | None]]:
    """The written IDs of a table in the training period, with how often each counts."""
    train, bound = opened.splits["train"], opened.first_outside
    for column in opened.data.manifest.features:
        if column.table == table:
            request = column.level == "request"
            ids = id_values(train.requests if request else train.impressions, column)
            weight = train.requests["num_rows"].to_numpy() if request else None
            if weight is not None and ids.offsets is not None:
                weight = np.repeat(weight, np.diff(ids.offsets))
            yield column, ids.values, weight
    for store in opened.events.values():
        before = store.clock < bound if bound is not None else np.ones(len(store.clock), dtype=bool)
        for column in store.info.side:
            if column.table == table:
                events = store.ids[column.name]
                mask = before if events.offsets is None else np.repeat(before, np.diff(events.offsets))
                yield column, events.values[mask], None


def _moments(opened: Opened, key: str) -> Found:
    """A scaler that was fitted on the training values alone leaves them with mean 0 and variance 1."""
    column, values, weight = _dense_training(opened, key)
    for field, state in opened.fitted["scalers"][key]["columns"].items():
        x, flag = values[:, column.fields.index(field)].astype(np.float64), f"{field}.missing"
        known = (
            values[:, column.fields.index(flag)] == 0
            if flag in column.fields
            else np.ones(len(x), dtype=bool)
        )
        x, w = x[known], weight[known]
        clipped = (np.abs(x) > state["clip"] - 1e-6).any()
        if state["kind"] not in ("standard", "log") or not len(x) or clipped:
            continue
        mean = np.average(x, weights=w)
        variance = np.average((x - mean) ** 2, weights=w)
        if abs(mean) > 1e-3 or min(abs(variance - 1), variance) > 1e-3:
            return "fail", f"{field}: mean {mean:.4f}, variance {variance:.4f}: fitted on other rows"
    return "pass", "where not clipped"


def _dense_training(opened: Opened, key: str) -> tuple[Column, np.ndarray, np.ndarray]:
    """A dense column of features or side info in the training period, and how often each row counts."""
    domain, _, name = key.rpartition("/")
    if domain:
        store, bound = opened.events[domain], opened.first_outside
        column = next(c for c in store.info.side if c.name == name)
        values = store.dense[name][store.clock < bound] if bound is not None else store.dense[name]
        return column, values, np.ones(len(values))
    column, train = opened.data.manifest.column(name), opened.splits["train"]
    if column.level == "request":
        return (
            column,
            dense_values(train.requests, column),
            train.requests["num_rows"].to_numpy().astype(np.float64),
        )
    values = dense_values(train.impressions, column)
    return column, values, np.ones(len(values))


def _labels(opened: Opened) -> Found:
    single = [n for n, s in opened.splits.items() if len(np.unique(s.impressions["label"].to_numpy())) == 1]
    return ("warn", f"one label only in {single}: AUC is undefined there") if single else ("pass", "")


def _constant(opened: Opened) -> Found:
    train, constant = opened.splits["train"], []
    for column in opened.data.manifest.features:
        table = train.requests if column.level == "request" else train.impressions
        if not table.num_rows:
            continue
        if column.kind == "dense":
            spread = np.ptp(dense_values(table, column), axis=0)
            constant += [f"{column.name}: {f}" for f, s in zip(column.fields, spread, strict=True) if s == 0]
        elif len(np.unique(id_values(table, column).values)) <= 1:
            constant.append(column.name)
    return ("warn", f"constant: {constant}") if constant else ("pass", "")
