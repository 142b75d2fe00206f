"""From dense codes back to the log: raw keys of users and items, and where rows stood."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from features.dataset import Dataset


class RowKeys:
    """The raw keys and places of rows of a data set, as far as it has them.

    The keys of all users and items are held in memory; places are read from the mapped file.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._users, self._items = dataset.keys("users"), dataset.keys("items")
        self._origin = dataset.origin()

    def columns(
        self, *, user_id: np.ndarray, item_id: np.ndarray, row_id: np.ndarray
    ) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Columns user_key, item_key, log_row, log_line and log_file of N rows, those that are known.

        Args:
            user_id, item_id, row_id: int64 (N,), codes of the data set; −1 is none, and becomes null.
        """
        found = {
            name: _taken(keys, codes)
            for name, keys, codes in (
                ("user_key", self._users, user_id),
                ("item_key", self._items, item_id),
            )
            if keys is not None
        }
        return found if self._origin is None else found | self._places(self._origin, row_id)

    def _places(self, origin: pa.Table, row_id: np.ndarray) -> dict[str, pa.ChunkedArray]:
        known = row_id[row_id >= 0]
        low, high = (int(known.min()), int(known.max()) + 1) if len(known) else (0, 0)
        near = origin.slice(low, high - low).take(_nullable(np.where(row_id < 0, -1, row_id - low)))
        return {name: near[name] for name in near.column_names}


def _taken(keys: pa.Array, codes: np.ndarray) -> pa.Array:
    values = keys.take(_nullable(codes))
    if pa.types.is_integer(values.type):
        return values
    return values.cast(pa.string()).dictionary_encode()


def _nullable(codes: np.ndarray) -> pa.Array:
    return pa.array(codes, pa.int64(), mask=codes < 0)
