"""Columns of owners (requests or impressions) of all splits, and columns that override others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctr.loader.columns import Columns, ranges
from features.dataset import IdValues
from features.errors import DataError


def overlay(base: Columns, override: Columns) -> Columns:
    """All columns of `base`; where `override` has a column too, its values."""
    return Columns(base.plain | override.plain, base.ids | override.ids, base.dense | override.dense)


class SplitColumns:
    """The columns of all splits, their owners numbered through.

    Args:
        parts: the columns of each split.
        key: the plain column that identifies an owner.
    """

    def __init__(self, parts: Sequence[Columns], key: str) -> None:
        self.parts, self.key = list(parts), key
        self.ends = np.cumsum([len(part.plain[key]) for part in parts])
        keys = self.plain(key)
        self._order = keys.argsort(kind="stable")
        self._sorted = keys[self._order]

    def plain(self, name: str) -> np.ndarray:
        """A plain column of all owners."""
        return np.concatenate([part.plain[name] for part in self.parts])

    def find(self, keys: Sequence[int], *, what: str) -> np.ndarray:
        """The numbers of owners.

        Raises:
            DataError: there is none with one of these keys.
        """
        wanted = np.array(keys, dtype=np.int64)
        slots = np.searchsorted(self._sorted, wanted)
        found = slots < len(self._sorted)
        found[found] = self._sorted[slots[found]] == wanted[found]
        if not found.all():
            raise DataError(
                f"{what} must name what is in the data set, got {wanted[~found][:5].tolist()}, which is not"
            )
        return self._order[slots]

    def take(self, owners: np.ndarray) -> Columns:
        """The columns of the owners with these numbers, in this order."""
        part = np.searchsorted(self.ends, owners, side="right")
        used = np.unique(part)
        order = np.concatenate([np.flatnonzero(part == i) for i in used])
        starts = np.concatenate([[0], self.ends])
        taken = [self.parts[i].take(owners[part == i] - starts[i]) for i in used]
        return taken[0] if len(taken) == 1 else concat_columns(taken).take(order.argsort())


def concat_columns(parts: Sequence[Columns]) -> Columns:
    """The owners of all parts, one part after the other."""
    first = parts[0]
    return Columns(
        {n: np.concatenate([p.plain[n] for p in parts]) for n in first.plain},
        {n: _concat_ids([p.ids[n] for p in parts]) for n in first.ids},
        {n: np.concatenate([p.dense[n] for p in parts]) for n in first.dense},
    )


def _concat_ids(parts: Sequence[IdValues]) -> IdValues:
    values = np.concatenate([p.values for p in parts])
    if parts[0].offsets is None:
        return IdValues(values)
    lengths = np.concatenate([np.diff(p.offsets) for p in parts if p.offsets is not None])
    weights = [p.weights for p in parts if p.weights is not None]
    _, offsets = ranges(np.zeros(len(lengths), np.int64), lengths)
    return IdValues(values, offsets, np.concatenate(weights) if weights else None)
