"""Which values of a candidate meet which values of its user's history, in the training part.

Letters: N impressions, P meetings (impression, event of its history).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.dataset import Column, Dataset, SplitData, id_values


@dataclass(frozen=True)
class Field:
    """A field of events or a list of the request, beside the impressions that have it in their history.

    Attributes:
        name: `domain.field`, or the feature.
        table: its ID table.
        row: int64 (P,) impressions.
        value: int64 (P,) rows of the table.
    """

    name: str
    table: str
    row: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class ShownValues:
    """The candidates' features of the impressions that are looked at.

    Attributes:
        tables: feature → its ID table.
        values: feature → int64 (N,) rows of the table.
        half: bool (N,) in which half of the users each impression's is.
    """

    tables: dict[str, str]
    values: dict[str, np.ndarray]
    half: np.ndarray


@dataclass(frozen=True)
class _Part:
    """The newest requests of a split, and the request of each of their impressions."""

    data: SplitData
    first: int
    request: np.ndarray  # int64 (N,) counted from `first`


def candidates_and_fields(
    dataset: Dataset, splits: list[str], *, rows: int, last: int
) -> tuple[ShownValues, Iterator[Field]]:
    """Candidates of the newest training impressions, and field after field of what lies before them.

    Args:
        dataset: of the run, as it sees it.
        splits: on which the run trains.
        rows: about how many impressions are looked at, of each split the newest.
        last: newest events of a history.
    """
    parts = [_newest(dataset.split(name), rows) for name in splits]
    users = np.concatenate([p.data.requests["user_id"].to_numpy()[p.first :][p.request] for p in parts])
    shown = [c for c in dataset.manifest.features if (c.level, c.kind) == ("candidate", "id")]
    values = {c.name: np.concatenate([_of_rows(p, c) for p in parts]) for c in shown}
    # A user's impressions share a history: only another user's tell whether values belong together.
    half = (users * np.int64(0x9E3779B1) >> np.int64(7)) % 2 == 0
    return ShownValues({c.name: str(c.table) for c in shown}, values, half), _fields(dataset, parts, last)


def _newest(data: SplitData, rows: int) -> _Part:
    counts = data.requests["num_rows"].to_numpy()
    first = int(np.searchsorted(np.cumsum(counts[::-1]), rows, side="right"))
    first = max(len(counts) - first, 0)
    return _Part(data, first, np.repeat(np.arange(len(counts) - first), counts[first:]))


def _of_rows(part: _Part, column: Column) -> np.ndarray:
    values = id_values(part.data.impressions, column).values
    return values[len(values) - len(part.request) :].astype(np.int64)


def _fields(dataset: Dataset, parts: list[_Part], last: int) -> Iterator[Field]:
    for column in (c for c in dataset.manifest.features if (c.level, c.kind) == ("request", "ids")):
        rows, values = zip(*_lists(parts, column), strict=True)
        yield Field(column.name, str(column.table), np.concatenate(rows), np.concatenate(values))
    for domain, info in dataset.manifest.domains.items():
        row, event = _events(parts, domain, last)
        store = dataset.events(domain)
        for column in (c for c in info.side if c.kind == "id" and not c.known_later):
            ids = store.ids[column.name].values
            yield Field(f"{domain}.{column.name}", str(column.table), row, ids[event].astype(np.int64))


def _lists(parts: list[_Part], column: Column) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Impressions and values of a list of the requests."""
    before = 0
    for part in parts:
        ids = id_values(part.data.requests.slice(part.first), column)
        assert ids.offsets is not None
        row, at = _expanded(ids.offsets[:-1][part.request], ids.offsets[1:][part.request])
        yield row + before, ids.values[at].astype(np.int64)
        before += len(part.request)


def _events(parts: list[_Part], domain: str, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Impressions and the newest events of their histories (P,)."""
    start, end = (
        np.concatenate([p.data.requests[f"{what}.{domain}"].to_numpy()[p.first :][p.request] for p in parts])
        for what in ("start", "end")
    )
    return _expanded(np.maximum(start, end - last).astype(np.int64), end.astype(np.int64))


def _expanded(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each owner as often as its range is long, and the positions of the ranges.

    Example:
        >>> [part.tolist() for part in _expanded(np.array([5, 0]), np.array([7, 1]))]
        [[0, 0, 1], [5, 6, 0]]
    """
    size = end - start
    owner = np.repeat(np.arange(len(start)), size)
    return owner, np.repeat(start - (np.cumsum(size) - size), size) + np.arange(size.sum())
