"""Ready-made history lists → an event store: what many rows repeat is stored once, and proved to be the same.

A row's list holds the events of its user strictly before its time, at most the newest `cap`. So the events
that a request is the first to show are those since the user's previous request; all others must be there
already. That is not trusted: the sum of hashes and the number of events of every list are compared with
those of the stored history.

Letters: N rows, V events of the lists of one batch, E stored events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.past.history import pointers
from features.sources.history_columns import HistoryBatch, HistoryColumns, event_hashes, list_sums, read_batch

BATCH_ROWS = 1024  # a thousand rows of a thousand events are 8 MB a column


@dataclass(frozen=True)
class ParquetFiles:
    """The Parquet files of a log, in order.

    Attributes:
        paths: the files.
        rows: int64 (files + 1,): the number of rows before each.
    """

    paths: list[Path]
    rows: np.ndarray

    def locate(self, row: int) -> str:
        """Where a row is, for an error message."""
        file = int(np.searchsorted(self.rows, row, side="right")) - 1
        return f"row {row - self.rows[file]} of {self.paths[file].name}"

    def batches(self, columns: list[str], *, size: int = BATCH_ROWS) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The first row of each batch, and some columns of it."""
        for path, first in zip(self.paths, self.rows[:-1].tolist(), strict=True):
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(batch_size=size, columns=columns):
                        yield first, batch
                        first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} cannot be read: {error}; write it again") from None


@dataclass(frozen=True)
class RequestTimes:
    """The user and the time of every row's request; a request is one (user, time).

    Attributes:
        user: int64 (N,) raw user IDs.
        code: int64 (N,) dense codes of the users.
        time: int64 (N,) seconds.
        is_first: bool (N,): the first row of its request, whose lists are stored.
        previous: int64 (N,) time of the user's previous request, s; the smallest integer where there is none.
    """

    user: np.ndarray
    code: np.ndarray
    time: np.ndarray
    is_first: np.ndarray
    previous: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, time: np.ndarray) -> RequestTimes:
        """Find the requests.

        Example:
            >>> RequestTimes.of(np.array([7, 7, 7]), np.array([50, 50, 80])).is_first.tolist()
            [True, False, True]
        """
        order = np.lexsort((time, user))  # stable: the first row of a request comes first
        by_user, by_time = user[order], time[order]
        same_user = np.concatenate([[False], by_user[1:] == by_user[:-1]])[: len(user)]
        same = same_user & np.concatenate([[False], by_time[1:] == by_time[:-1]])[: len(user)]
        first = np.flatnonzero(~same)
        before = np.full(len(first), np.iinfo(np.int64).min)
        before[1:] = np.where(same_user[first[1:]], by_time[first[:-1]], before[1:])
        is_first, previous, code = np.zeros(len(user), dtype=bool), np.empty_like(time), np.empty_like(user)
        is_first[order[first]] = True
        previous[order] = before[np.cumsum(~same) - 1]
        code[order] = np.cumsum(~same_user) - 1
        return cls(user, code, time, is_first, previous)


@dataclass
class _StoredEvents:
    """The events that are stored, batch by batch, and what is needed to prove them."""

    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    length: list[np.ndarray] = field(default_factory=list)  # int64 (rows of the batch,) of every given list
    total: list[np.ndarray] = field(default_factory=list)  # int64, the sum of its hashes

    def add(self, name: str, values: np.ndarray) -> None:
        self.parts.setdefault(name, []).append(values)

    def take(self, name: str) -> np.ndarray:
        return np.concatenate(self.parts.pop(name))


def read_events(files: ParquetFiles, history: HistoryColumns, requests: RequestTimes) -> pl.DataFrame:
    """The events of a domain, each once, sorted by (user, time), oldest first.

    Args:
        files: the log.
        history: the columns of the domain.
        requests: the requests of the log.

    Returns:
        `user_id`, the time column and the value columns, in the smallest integers that hold them.

    Raises:
        DataError: lists of another order or of unequal lengths, an event that is not earlier than its row, a
            value outside its vocabulary, or lists of one user that contradict each other; names the row.
    """
    stored = _StoredEvents()
    for first, raw in files.batches([history.time, *history.values]):
        _keep(stored, read_batch(raw, first, history, requests.time, files.locate), history, requests)
    if not stored.parts:
        return pl.DataFrame(
            {n: np.empty(0, dtype=np.int64) for n in ("user_id", history.time, *history.values)}
        )
    owner, time = stored.take("__row"), stored.take(history.time)
    # Stable: events of one second stay in the order they were given in.
    order = np.lexsort((time, requests.code[owner]))
    owner, time = owner[order], time[order]
    _prove(stored, requests.code[owner], time, stored.take("__hash")[order], history, requests, files)
    columns = {"user_id": requests.user[owner], history.time: time}
    return pl.DataFrame(columns | {name: stored.take(name)[order] for name in history.values})


def _keep(
    stored: _StoredEvents, batch: HistoryBatch, history: HistoryColumns, requests: RequestTimes
) -> None:
    """Keep the events that the batch is the first to show, and lengths and hashes of all its lists."""
    hashes = event_hashes([batch.time, *batch.values.values()])
    stored.length.append(batch.lengths)
    stored.total.append(list_sums(hashes, batch.lengths))
    new = requests.is_first[batch.row] & (batch.time >= requests.previous[batch.row])
    at = np.flatnonzero(new)
    at = at[::-1] if history.newest_first else at
    stored.add("__row", batch.row[at])
    stored.add("__hash", hashes[at])
    stored.add(history.time, batch.time[at])
    for name, values in batch.values.items():
        stored.add(name, values[at].astype(np.min_scalar_type(history.values[name])))


def _prove(
    stored: _StoredEvents,
    code: np.ndarray,
    time: np.ndarray,
    hashes: np.ndarray,
    history: HistoryColumns,
    requests: RequestTimes,
    files: ParquetFiles,
) -> None:
    """Compare every given list (N,) with the stored history (of E events) of its row."""
    length, total = np.concatenate(stored.length), np.concatenate(stored.total)
    most = np.iinfo(np.int64).max if history.cap is None else history.cap
    start, end = pointers(code, time, at_user=requests.code, at_clock=requests.time, max_len=most)
    sums = np.concatenate([[0], np.cumsum(hashes)])
    wrong = (end - start != length) | (sums[end] - sums[start] != total)
    if not wrong.any():
        return
    row = int(wrong.argmax())
    raise DataError(
        f"{files.locate(row)}, domain {history.domain!r}: a list must hold all events of its user strictly "
        f"before its time{'' if history.cap is None else f', or the newest {history.cap}'}, as the user's "
        f"other rows tell them; it has {length[row]} events, the other rows make it {(end - start)[row]}"
        f"{' with other values' if length[row] == (end - start)[row] else ''}; {int(wrong.sum())} rows "
        "differ. Repair the lists, or correct cap under source.options"
    )
