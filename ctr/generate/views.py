"""Other splits of a data set: chosen requests, and requests with other candidates.

R requests, B candidates.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ctr.loader.view import make_split
from features.dataset import SPLITS, Dataset, Manifest, SplitData
from features.errors import ConfigError


def last_requests(data: SplitData) -> np.ndarray:
    """Positions of each user's last request, ascending."""
    users, clock = data.requests["user_id"].to_numpy(), data.requests["clock"].to_numpy()
    order = np.lexsort((clock, users))
    last = np.append(users[order][1:] != users[order][:-1], True)
    return np.sort(order[last[: len(order)]])


def covering_requests(data: SplitData, domain: str, every: int) -> np.ndarray:
    """Positions of few requests whose histories and targets together are all events of each user.

    A user's events are cut into pieces of `every`; of each piece the last request is taken, so with histories
    of `every` events nothing is read twice.

    Example:
        >>> requests = pa.table({"user_id": [0] * 5, "clock": range(5), "end.v": [7, 8, 9, 10, 11]})
        >>> covering_requests(SplitData(None, requests, None), "v", 2).tolist()
        [1, 3, 4]
    """
    users, clock = data.requests["user_id"].to_numpy(), data.requests["clock"].to_numpy()
    order = np.lexsort((clock, users))
    end = data.requests[f"end.{domain}"].to_numpy().astype(np.int64)[order]
    changes = users[order][1:] != users[order][:-1]
    first = np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)
    begin = np.repeat(end[first], np.diff(np.append(first, len(end)))) if len(end) else end
    piece = (end - begin) // every
    last = np.append(changes | (piece[1:] != piece[:-1]), True)
    return np.sort(order[last[: len(order)]])


def spread(positions: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the positions, evenly; 0 = all."""
    if not limit or limit >= len(positions):
        return positions
    return positions[np.linspace(0, len(positions) - 1, limit).round().astype(np.int64)]


class Donors:
    """Features of candidates that were not shown, taken from the item's newest impression before the request.

    Hot-deck imputation calls such rows donors. Features of the item alone, its counts too, then have the
    values of a moment strictly before the request. Features of item and user together belong to another user
    there: `blind` names those, and they become missing and 0.

    Args:
        dataset: an opened data set.
        candidate: the feature that names the item.
        blind: candidate features that become missing; * stands for any text.
    """

    def __init__(self, dataset: Dataset, *, candidate: str, blind: Sequence[str] = ()) -> None:
        self.dataset = dataset
        self.blind = _matching(dataset.manifest, blind)
        parts = [dataset.split(name) for name in SPLITS]
        self.impressions = pa.concat_tables([part.impressions for part in parts])
        clocks = [np.repeat(part.requests["clock"].to_numpy(), np.diff(part.row_offsets)) for part in parts]
        clock, item = np.concatenate(clocks), self.impressions[f"id.{candidate}"].to_numpy().astype(np.int64)
        self._order = np.lexsort((clock, item))
        self._item, self._clock = item[self._order], clock[self._order]
        self._starts = np.searchsorted(self._item, np.arange(int(item.max()) + 2))

    def find(self, items: np.ndarray, clock: np.ndarray) -> np.ndarray:
        """Row of the newest impression of each item with a smaller clock, −1 where there is none."""
        found = np.full(len(items), -1, dtype=np.int64)
        for i, (item, moment) in enumerate(zip(items.tolist(), clock.tolist(), strict=True)):
            low, high = self._starts[item : item + 2] if item + 1 < len(self._starts) else (0, 0)
            newest = int(np.searchsorted(self._clock[low:high], moment)) - 1
            found[i] = self._order[low + newest] if newest >= 0 else -1
        return found

    def split(
        self, data: SplitData, positions: np.ndarray, counts: np.ndarray, rows: np.ndarray
    ) -> SplitData:
        """ChosenRequests whose candidates are other rows.

        Args:
            data: where the requests are.
            positions: (R,) which, each with at least one row.
            counts: (R,) rows of each.
            rows: (Σ counts,) of `find`.
        """
        requests = data.requests.take(positions)
        requests = _replace_column(requests, "num_rows", pa.array(counts, requests["num_rows"].type))
        impressions = self.impressions.take(rows)
        for name in self.blind:
            impressions = _replace_column(impressions, name, _nothing(impressions[name]))
        numbers = pa.array(np.arange(len(rows)), impressions["row_id"].type)
        return make_split(requests, _replace_column(impressions, "row_id", numbers))


def _replace_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _nothing(column: pa.ChunkedArray) -> pa.Array:
    """As many zeros: IDs and numbers that are missing."""
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        return pa.FixedSizeListArray.from_arrays(np.zeros(len(column) * width, np.float32), width)
    if pa.types.is_large_list(column.type):
        offsets = pa.array(np.zeros(len(column) + 1, np.int64))
        return pa.LargeListArray.from_arrays(offsets, pa.array([], column.type.value_type))
    return pa.array(np.zeros(len(column), np.int64)).cast(column.type)


def _matching(manifest: Manifest, patterns: Sequence[str]) -> list[str]:
    """Column names of the candidate features that the patterns name."""
    columns = {c.name: c for c in manifest.features if c.level == "candidate"}
    found: dict[str, None] = {}
    for pattern in patterns:
        names = fnmatch.filter(columns, pattern)
        if not names:
            raise ConfigError(
                f"generation.ranker_blind must name candidate features, {', '.join(columns)}, got {pattern!r}"
            )
        for name in names:
            column = columns[name]
            found[f"dense.{name}" if column.kind == "dense" else f"id.{name}"] = None
            found |= {f"weight.{name}": None} if column.weighted else {}
    return list(found)
