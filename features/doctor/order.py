"""Checks of the order in time: rows, parts, events, and above all that no history holds what is not earlier.

Letters: R requests of one part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.dataset import SPLITS, EventStore, SplitData
from features.doctor.opened import CheckResult, Opened
from features.past.history import pointers

OrderCheck = Callable[[SplitData, EventStore, str], CheckResult]


def rows_of_requests(opened: Opened) -> CheckResult:
    """Counts add up, and row and request IDs count through all parts."""
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


def parts_in_order(opened: Opened) -> CheckResult:
    """Requests are in time order, and a part begins after the one before it has ended."""
    last, before = None, ""
    for name in SPLITS:
        clock = opened.clock(name)
        if (np.diff(clock) < 0).any():
            return "fail", f"{name}: requests are not in time order"
        if len(clock) and last is not None and clock[0] <= last:
            return "fail", f"{name} begins at clock {clock[0]}, {before} ends at {last}"
        last, before = (int(clock[-1]), name) if len(clock) else (last, before)
    return "pass", ""


def events_sorted(store: EventStore) -> CheckResult:
    """Events are sorted by (user, clock), oldest first."""
    user, clock = np.diff(store.user_id), np.diff(store.clock)
    wrong = np.flatnonzero((user < 0) | ((user == 0) & (clock < 0)))
    return ("fail", f"{len(wrong)} events, the first is {wrong[0] + 1}") if len(wrong) else ("pass", "")


def over_splits(opened: Opened, domain: str, check: OrderCheck) -> CheckResult:
    """The first failure of a check over the parts."""
    for name, split in opened.splits.items():
        status, detail = check(split, opened.events[domain], domain)
        if status == "fail":
            return "fail", f"{name}: {detail}"
    return "pass", ""


def strictly_before(split: SplitData, store: EventStore, domain: str) -> CheckResult:
    """No event of a history has the request's clock or a later one, or belongs to someone else."""
    start, end, request = _pointers(split, domain)
    if (start < 0).any() or (end > len(store.clock)).any() or (start > end).any():
        return "fail", f"pointers must lie in the event store, [0, {len(store.clock)}]"
    some = np.flatnonzero(end > start)
    start, end, request = start[some], end[some], {n: c[some] for n, c in request.items()}
    late = _largest(store.clock, start, end) >= request["clock"]
    late |= _largest(store.time, start, end) > request["time"]
    if late.any():
        return _which(late, request, "see an event that is not earlier")
    user = request["user_id"]
    other = (_largest(store.user_id, start, end) != user) | (-_largest(-store.user_id, start, end) != user)
    return _which(other, request, "see events of another user")


def complete(split: SplitData, store: EventStore, domain: str) -> CheckResult:
    """The pointers are those of a new search."""
    start, end, request = _pointers(split, domain)
    first, last = pointers(
        store.user_id,
        store.clock,
        at_user=request["user_id"],
        at_clock=request["clock"],
        max_len=store.info.max_len,
    )
    wrong = (end - start != last - first) | ((end != last) & (end > start))
    return _which(wrong, request, "have another history than a new search finds")


def lists_in_order(opened: Opened, domain: str) -> CheckResult:
    """Lists of a user go on from one another at the end that is said to be the new one."""
    counters = opened.data.manifest.counters
    changed = counters.get(f"events.{domain}.lists_that_changed", 0)
    anew = counters.get(f"events.{domain}.lists_stored_anew", 0)
    if not changed:
        return "warn", "no list differs from the one before of its user, so that nothing shows their order"
    told = (
        f"{anew:,} of {changed:,} lists that differ from the one before of their user share nothing with it"
    )
    return ("warn", f"{told}: compare from_list.order with the log") if 2 * anew > changed else ("pass", told)


def some_history(opened: Opened, domain: str) -> CheckResult:
    """Not every history is empty, as it is when two tables give their times in different units."""
    for split in opened.splits.values():
        start, end, _ = _pointers(split, domain)
        if (end > start).any():
            return "pass", ""
    return "warn", "no event precedes a request of its user: compare times and user keys of both tables"


def _which(wrong: np.ndarray, request: dict[str, np.ndarray], what: str) -> CheckResult:
    """Fail if any request (R,) is wrong, with their number and the first."""
    if not wrong.any():
        return "pass", ""
    return "fail", f"{wrong.sum()} requests {what}, the first is request {request['request_id'][wrong][0]}"


def _pointers(split: SplitData, domain: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    names = ("request_id", "user_id", "time", "clock")
    start, end = (split.requests[f"{part}.{domain}"].to_numpy() for part in ("start", "end"))
    return start, end, {n: split.requests[n].to_numpy() for n in names}


def _largest(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The largest of values[start:end], which are not empty; looks at every one, sorted or not."""
    if not len(start):
        return np.empty(0, dtype=values.dtype)
    # reduceat also reduces what lies between two histories: sorted, that is little. It takes pairs of bounds;
    # the number at the end is only there to be a bound.
    order = np.argsort(start, kind="stable")
    bounds = np.stack([start[order], end[order]], axis=1).reshape(-1)
    largest = np.empty(len(start), dtype=values.dtype)
    largest[order] = np.maximum.reduceat(np.append(values, values[-1:]), bounds)[::2]
    return largest
