"""Raw keys of users and items, and the features that belong to an item alone by the data set's spec."""

from __future__ import annotations

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


class RawKeys:
    """The dense codes of raw keys, from the data set's `keys/`."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._read: dict[str, pa.Array] = {}

    def codes(self, what: Owners, keys: Sequence[int | str], *, unknown: int | None = None) -> np.ndarray:
        """int64 codes of the keys of `users` or `items`.

        Args:
            what: users or items.
            keys: raw ones.
            unknown: the code of keys that the data set does not know; None refuses them.

        Raises:
            DataError: keys of another type, or unknown ones.
        """
        known = self._keys(what)
        try:
            found = pc.index_in(pa.array(list(keys), type=known.type), value_set=known)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            raise DataError(f"keys of {what} must be of type {known.type}, got {list(keys)[:5]}") from None
        if found.null_count and unknown is None:
            missing = [key for key, code in zip(keys, found.to_pylist(), strict=True) if code is None]
            raise DataError(f"keys of {what} must be in the data set, got {missing[:5]}, which are not")
        return found.fill_null(-1 if unknown is None else unknown).to_numpy().astype(np.int64)

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


def items_own_features(dataset: Dataset) -> frozenset[str]:
    """Candidate features that read columns of the item alone: the same for every request."""
    spec = load_spec(under(dataset.root, "spec.yaml"))
    item = spec.impressions.item
    own = set()
    for name, feature in spec.features.items():
        if isinstance(feature, IdFeature):
            columns = [feature.column, *([feature.weights] if feature.weights else [])]
        else:
            columns = feature.columns if isinstance(feature, DenseFeature) else []
        if columns and all(c == item or c.startswith("item.") for c in columns):
            own.add(name)
    return frozenset(own)
