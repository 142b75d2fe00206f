"""What a data set and its training did not know of a score request: it is scored all the same, and named.

An unknown value is read as `ctr prepare` reads it: as an unknown row of its table. Names are those of
features, and user_key and item_key for users and items of which the data set has no request or impression.

C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.requests import Request
from features.dataset import Column, IdValues, Manifest


@dataclass(frozen=True)
class Unknown:
    """What was not known.

    Attributes:
        request: of the request, its user included.
        candidates: name → bool (C,), those of which it was not known.
    """

    request: tuple[str, ...]
    candidates: dict[str, np.ndarray]

    @classmethod
    def of(cls, manifest: Manifest, request: Request, candidates: Columns) -> Unknown:
        """Of a request and its candidates, as they are scored."""
        levels = (("request", request.columns), ("candidate", candidates))
        of_request, of_candidates = (dict(_features(manifest, level, columns)) for level, columns in levels)
        names = [*request.unknown, *(name for name, unknown in of_request.items() if unknown[0])]
        found = {name: unknown for name, unknown in of_candidates.items() if unknown.any()}
        items = candidates.plain.get("item_id")
        if items is not None and (items < 0).any():
            found = {"item_key": items < 0, **found}
        return cls(tuple(dict.fromkeys(names)), found)

    def plain(self) -> dict[str, Any]:
        """For JSON: the names of the request's, and position → names of the candidates that have any."""
        found: dict[str, list[str]] = {}
        for name, unknown in self.candidates.items():
            for position in np.flatnonzero(unknown).tolist():
                found.setdefault(str(position), []).append(name)
        return {"request": list(self.request), "candidates": found}

    def of_each(self, count: int) -> list[list[str]]:
        """For tables: the names of each of C candidates, those of its request first."""
        rows = [list(self.request) for _ in range(count)]
        for position, names in self.plain()["candidates"].items():
            rows[int(position)] += names
        return rows


def _features(manifest: Manifest, level: str, columns: Columns) -> Iterator[tuple[str, np.ndarray]]:
    """The features of vocabularies, and which owners have a value that training never saw, bool (owners,)."""
    for column in manifest.features:
        if column.level == level and column.name in columns.ids:
            yield column.name, _unknown(manifest, column, columns.ids[column.name])


def _unknown(manifest: Manifest, column: Column, ids: IdValues) -> np.ndarray:
    info = manifest.tables[str(column.table)]
    rows = info.oov_rows if info.encode == "vocabulary" else 0
    unknown = (ids.values >= 1) & (ids.values <= rows)
    if ids.offsets is None:
        return unknown
    before = np.concatenate([[0], np.cumsum(unknown)])
    return np.diff(before[ids.offsets]) > 0
