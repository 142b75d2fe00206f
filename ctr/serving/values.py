"""Columns of a few owners: from given values, from parts, and one laid over another.

V values of all owners together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctr.loader.columns import Columns, ranges
from features.dataset import Column, IdValues, Manifest
from features.errors import DataError


def given_columns(
    manifest: Manifest, level: str, given: Mapping[str, Sequence[Any]], *, what: str
) -> Columns:
    """The columns of given values, one per owner: a row of a table, several rows, or the numbers of a vector.

    Args:
        manifest: of the data set.
        level: of the owners, request or candidate.
        given: name → values.
        what: names them in messages.

    Raises:
        DataError: an unknown name, or values that its kind of feature cannot have.
    """
    known = {c.name: c for c in manifest.features if c.level == level}
    if unknown := sorted(set(given) - set(known)):
        raise DataError(f"{what} must name features of {sorted(known)}, got {unknown}")
    ids, dense = {}, {}
    for name, values in given.items():
        column = known[name]
        try:
            if column.kind == "dense":
                dense[name] = _numbers(column, values)
            else:
                ids[name] = _ids(column, values, rows=manifest.tables[str(column.table)].rows)
        except (ValueError, TypeError, OverflowError):
            raise DataError(
                f"{what}.{name} must hold for each {_expected(column)}, got {list(values)[:3]!r:.120}"
            ) from None
    return Columns({}, ids, dense)


def _expected(column: Column) -> str:
    if column.kind == "dense":
        return f"{column.dim} finite numbers"
    one = f"a row of table {column.table!r}"
    return one if column.kind == "id" else f"a list of rows of table {column.table!r}"


def _numbers(column: Column, values: Sequence[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        matrix = np.array([v if isinstance(v, list) else [v] for v in values], dtype=np.float32)
    if matrix.shape != (len(values), column.dim) or not np.isfinite(matrix).all():
        raise ValueError
    return matrix


def _ids(column: Column, values: Sequence[Any], *, rows: int) -> IdValues:
    """A weighted list is given without weights: all of its values count 1."""
    lists = [v if isinstance(v, list) else [v] for v in values]
    flat = [value for part in lists for value in part]
    if not all(isinstance(value, int) and 0 <= value < rows for value in flat):
        raise ValueError
    array = np.array(flat, dtype=np.int32)
    if column.kind == "id":
        if any(isinstance(v, list) for v in values):
            raise ValueError
        return IdValues(array)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in lists])]).astype(np.int64)
    weights = np.ones(len(array), np.float32) if column.weighted else None
    return IdValues(array, offsets, weights)


def laid_over(below: Columns, above: Columns) -> Columns:
    """All columns of `below`, but for those that `above` has too."""
    return Columns(below.plain | above.plain, below.ids | above.ids, below.dense | above.dense)


class Parts:
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
        places = np.searchsorted(self._sorted, wanted)
        found = places < len(self._sorted)
        found[found] = self._sorted[places[found]] == wanted[found]
        if not found.all():
            raise DataError(
                f"{what} must name what is in the data set, got {wanted[~found][:5].tolist()}, which is not"
            )
        return self._order[places]

    def take(self, owners: np.ndarray) -> Columns:
        """The columns of the owners with these numbers, in this order."""
        part = np.searchsorted(self.ends, owners, side="right")
        used = np.unique(part)
        order = np.concatenate([np.flatnonzero(part == i) for i in used])
        starts = np.concatenate([[0], self.ends])
        taken = [self.parts[i].take(owners[part == i] - starts[i]) for i in used]
        return taken[0] if len(taken) == 1 else concatenated(taken).take(order.argsort())


def concatenated(parts: Sequence[Columns]) -> Columns:
    """The owners of all parts, one part after the other."""
    first = parts[0]
    return Columns(
        {n: np.concatenate([p.plain[n] for p in parts]) for n in first.plain},
        {n: _concatenated_ids([p.ids[n] for p in parts]) for n in first.ids},
        {n: np.concatenate([p.dense[n] for p in parts]) for n in first.dense},
    )


def _concatenated_ids(parts: Sequence[IdValues]) -> IdValues:
    values = np.concatenate([p.values for p in parts])
    if parts[0].offsets is None:
        return IdValues(values)
    lengths = np.concatenate([np.diff(p.offsets) for p in parts if p.offsets is not None])
    weights = [p.weights for p in parts if p.weights is not None]
    _, offsets = ranges(np.zeros(len(lengths), np.int64), lengths)
    return IdValues(values, offsets, np.concatenate(weights) if weights else None)
