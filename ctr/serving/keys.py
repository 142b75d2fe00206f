"""Raw keys of users and items, and the features that belong to an item alone by the data set's spec."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.dataset import Dataset
from features.errors import DataError
from features.names import under
from features.spec import DenseFeature, IdFeature, load_spec

Owners: TypeAlias = Literal["users", "items"]
DIGITS = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)  # a number of 64 bits as a log writes it


class RawKeys:
    """The dense codes of raw keys, from the data set's `keys/`."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._read: dict[str, pa.Array] = {}

    def codes(self, what: Owners, keys: Sequence[int | str]) -> np.ndarray:
        """int64 codes of the keys of `users` or `items`; −1 for those that the data set does not know.

        A number meets its own digits, as in logs: 7 and "7" are one key, "007" is another.
        """
        known = self._keys(what)
        as_known = _whole if pa.types.is_integer(known.type) else str
        found = pc.index_in(pa.array([as_known(key) for key in keys], type=known.type), value_set=known)
        missing = np.array(found.is_null()) | np.array([as_known(key) is None for key in keys])
        return np.where(missing, -1, found.fill_null(-1).to_numpy().astype(np.int64))

    def key(self, what: Owners, code: int) -> int | str | None:
        """The raw key of a code; None for −1."""
        found: int | str | None = None if code < 0 else self._keys(what)[code].as_py()
        return found

    def _keys(self, what: Owners) -> pa.Array:
        """The raw key of every code."""
        if what not in self._read:
            found = self._dataset.keys(what)
            if found is None:
                raise DataError(
                    f"{self._dataset.root}/keys/{what}.parquet must hold the keys of {what}; name request_id "
                    "and row_ids instead"
                )
            self._read[what] = found
        return self._read[what]


def _whole(key: int | str) -> int | None:
    """The whole number of 64 bits that a key is, or whose digits it is."""
    if isinstance(key, str) and not DIGITS.fullmatch(key):
        return None
    number = int(key)
    return number if -(2**63) <= number < 2**63 else None


def items_own_features(dataset: Dataset) -> frozenset[str]:
    """Candidate features that read columns of the item alone: the same for every request."""
    spec = load_spec(under(dataset.root, "spec.yaml"))
    item = spec.impressions.item
    crosses = {f"cross.{name}": parts for name, parts in spec.crosses.items()}
    own = set()
    for name, feature in spec.features.items():
        if isinstance(feature, IdFeature):
            columns = [feature.column, *([feature.weights] if feature.weights else [])]
        else:
            columns = feature.columns if isinstance(feature, DenseFeature) else []
        parts = [part for column in columns for part in crosses.get(column, [column])]
        if parts and all(c == item or c.startswith("item.") for c in parts):
            own.add(name)
    return frozenset(own)
