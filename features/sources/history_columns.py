"""The list columns of one batch of rows as flat arrays, checked: lengths, order, time, range of values.

Letters: N rows of the batch, V events of their lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.errors import DataError

LocateRow = Callable[[int], str]  # number of a row → where it is


@dataclass(frozen=True)
class HistoryColumns:
    """The list columns of one domain, and what is declared of them.

    Attributes:
        domain: its name.
        time: the column of the events' seconds.
        values: column → size of its vocabulary; values lie in [0, size).
        newest_first: the order of the events in a list.
        cap: the most events of a list; longer histories hold the newest.
    """

    domain: str
    time: str
    values: dict[str, int]
    newest_first: bool
    cap: int | None = None


@dataclass(frozen=True)
class HistoryBatch:
    """The events of a batch of lists, one list after the other, each in the order it was given.

    Attributes:
        lengths: int64 (N,).
        row: int64 (V,) number of the row, in the whole log, that each event belongs to.
        time: int64 (V,) seconds.
        values: column → int64 (V,).
    """

    lengths: np.ndarray
    row: np.ndarray
    time: np.ndarray
    values: dict[str, np.ndarray]


def read_batch(
    raw: pa.RecordBatch, first_row: int, history: HistoryColumns, asked: np.ndarray, locate: LocateRow
) -> HistoryBatch:
    """Flatten and check the lists of consecutive rows.

    Args:
        raw: the domain's list columns.
        first_row: number of the first row in the log.
        history: the domain's list columns and what is declared of them.
        asked: int64 (rows of the log,) time of every row, s.
        locate: says where a row is.

    Raises:
        DataError: naming row, column and remedy.
    """
    lengths, time = _flat(raw, history.time, first_row, locate)
    row = np.repeat(np.arange(first_row, first_row + len(lengths)), lengths)
    values = {}
    for name, size in history.values.items():
        own, values[name] = _flat(raw, name, first_row, locate)
        if len(differ := np.flatnonzero(own != lengths)):
            at = int(differ[0])
            raise DataError(
                f"{locate(first_row + at)}: the lists of domain {history.domain!r} must be of one length, "
                f"but {history.time} has {lengths[at]} and {name} has {own[at]} values; repair the row"
            )
        _check_range(values[name], size, row, name, locate)
    _check_order(time, row, history, locate)
    _check_before(time, row, history, asked, locate)
    _check_cap(lengths, first_row, history, locate)
    return HistoryBatch(lengths, row, time, values)


def event_hashes(columns: Iterable[np.ndarray]) -> np.ndarray:
    """A 64-bit hash of every event over its columns, as int64 (V,); sums of hashes wrap around.

    Example:
        >>> one, two = np.array([1, 2]), np.array([2, 1])
        >>> bool((event_hashes([one, two]) == event_hashes([two, one])).any())
        False
    """
    total: np.ndarray | None = None
    for j, column in enumerate(columns):
        # An odd constant of the column's own, then splitmix64's finish over the sum.
        part = column.view(np.uint64) * np.uint64((0x9E3779B97F4A7C15 * (2 * j + 1)) % 2**64)
        if total is None:
            total = part
        else:
            total += part
            total ^= total >> np.uint64(29)
            total *= np.uint64(0xBF58476D1CE4E5B9)
    assert total is not None
    total ^= total >> np.uint64(27)
    total *= np.uint64(0x94D049BB133111EB)
    total ^= total >> np.uint64(31)
    return total.view(np.int64)


def list_sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The sum (N,) of each list's values (V,), modulo 2^64."""
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(lengths)
    return sums[ends] - sums[ends - lengths]


def _flat(raw: pa.RecordBatch, name: str, first_row: int, locate: LocateRow) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (N,) and values (V,) of a list column; a missing list is empty."""
    column = raw.column(name)
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(
        kind.value_type
    ):
        raise DataError(f"{locate(first_row)}: column {name!r} must hold lists of integers, got {kind}")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.flatten()
    if values.null_count:
        missing = int(values.is_null().to_numpy(zero_copy_only=False).argmax())
        at = int(np.searchsorted(np.cumsum(lengths), missing, side="right"))
        raise DataError(
            f"{locate(first_row + at)}: a list of {name!r} holds a missing value; fill or drop it"
        )
    return lengths, values.to_numpy().astype(np.int64, copy=False)


def _check_range(values: np.ndarray, size: int, row: np.ndarray, name: str, locate: LocateRow) -> None:
    if not len(values) or (values.min() >= 0 and values.max() < size):
        return
    at = int(((values < 0) | (values >= size)).argmax())
    raise DataError(
        f"{locate(int(row[at]))}: values of {name!r} must lie in [0, {size}), as schema.json says, "
        f"got {values[at]}; correct the vocabulary in schema.json or the value"
    )


def _check_order(time: np.ndarray, row: np.ndarray, history: HistoryColumns, locate: LocateRow) -> None:
    step = np.diff(time)
    wrong = ((step > 0) if history.newest_first else (step < 0)) & (row[1:] == row[:-1])
    if not wrong.any():
        return
    at = int(wrong.argmax())
    said, other = ("newest", "oldest") if history.newest_first else ("oldest", "newest")
    raise DataError(
        f"{locate(int(row[at]))}: lists must be {said} first, as source.options.order says, but "
        f"{history.time} has {time[at]} and then {time[at + 1]}; if they are {other} first, set order: "
        f"{other}_first"
    )


def _check_before(
    time: np.ndarray, row: np.ndarray, history: HistoryColumns, asked: np.ndarray, locate: LocateRow
) -> None:
    if (late := time >= asked[row]).any():
        at = int(late.argmax())
        raise DataError(
            f"{locate(int(row[at]))}: every event must be strictly before its row, but {history.time} holds "
            f"{time[at]} and the row's time is {asked[row[at]]}; drop these events from the lists"
        )


def _check_cap(lengths: np.ndarray, first_row: int, history: HistoryColumns, locate: LocateRow) -> None:
    if history.cap is not None and (longer := lengths > history.cap).any():
        at = int(longer.argmax())
        raise DataError(
            f"{locate(first_row + at)}: source.options.cap says that lists of domain {history.domain!r} hold "
            f"at most {history.cap} events, got {lengths[at]}; correct the option"
        )
