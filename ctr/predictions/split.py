"""The rows of a split as a table of predictions has them, a piece at a time, without what a model adds.

R requests; rows [start, stop) of a split in file order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctr.predictions.keys import RowKeys
from ctr.predictions.outputs import label_columns
from ctr.predictions.weights import metric_weight, own_weight
from features.dataset import SPLITS, Dataset, SplitData
from features.errors import DataError

HISTORY_BUCKETS = (0, 1, 5, 20, 50, 100)
AGE_BUCKETS = (0, 1, 3, 7, 14, 30)  # days
DAY = 86_400


class SplitRows:
    """What is known of the rows of a split.

    Args:
        dataset: an opened one.
        split: train, valid or test.

    Raises:
        DataError: the split has no rows.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.data = dataset, dataset.split(split)
        self.rows = self.data.info.impressions
        if not self.rows:
            raise DataError(
                f"a split to score must have rows; {split} of {dataset.root} is empty: name another"
            )
        self._keys = RowKeys(dataset)

    def columns(self, start: int, stop: int) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Codes, time and labels of the rows [start, stop)."""
        request, shown = self._request_of(start, stop), self._shown(start, stop)
        of_request = {
            name: pa.array(self._of_request(name)[request]) for name in ("request_id", "user_id", "time")
        }
        return {
            "row_id": shown["row_id"],
            "request_id": of_request["request_id"],
            "user_id": of_request["user_id"],
            "item_id": shown["item_id"],
            "time": of_request["time"],
            **label_columns(shown, self.dataset.manifest),
        }

    def sampled_weight(self, start: int, stop: int) -> dict[str, pa.Array]:
        """What the rows [start, stop) weigh as if the log held all there were, where rows have weights."""
        shown, manifest = self._shown(start, stop), self.dataset.manifest
        first = manifest.tasks[0].name
        if metric_weight(manifest, first, shown) is None:
            return {}
        weight = own_weight(first, shown)
        return {"sampled_weight": pa.array(np.ones(len(shown)) if weight is None else weight)}

    def keys(self, start: int, stop: int) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Raw keys of the rows [start, stop), and where they stood in the log."""
        shown = self._shown(start, stop)
        return self._keys.columns(
            user_id=self._of_request("user_id")[self._request_of(start, stop)],
            item_id=shown["item_id"].to_numpy(),
            row_id=shown["row_id"].to_numpy(),
        )

    def slices(self, start: int, stop: int) -> dict[str, pa.Array | pa.ChunkedArray]:
        """The slice_* columns of the rows [start, stop)."""
        request, shown = self._request_of(start, stop), self._shown(start, stop)
        time, item = self._of_request("time")[request], shown["item_id"].to_numpy()
        age = (time - self._first_shown[item]) // DAY
        columns = {
            "slice_history": pa.array(_bucket_labels(self._history[request], HISTORY_BUCKETS)),
            "slice_known_user": pa.array(np.where(self._known[request], "known", "new")),
            "slice_known_item": pa.array(np.where(self._first_trained[item] < time, "known", "new")),
            "slice_item_age": pa.array(_bucket_labels(age, AGE_BUCKETS)),
        }
        named = {
            f"slice_{n}": pc.cast(shown[f"slice.{n}"], pa.string()) for n in self.dataset.manifest.slices
        }
        return columns | named

    def _shown(self, start: int, stop: int) -> pa.Table:
        return self.data.impressions.slice(start, stop - start)

    def _request_of(self, start: int, stop: int) -> np.ndarray:
        """The position of each row's request, int64."""
        return np.searchsorted(self.data.row_offsets, np.arange(start, stop), side="right") - 1

    def _of_request(self, name: str) -> np.ndarray:
        values: np.ndarray = self.data.requests[name].to_numpy()
        return values

    @cached_property
    def _known(self) -> np.ndarray:
        return np.asarray(self.data.requests["known_user"].to_numpy(zero_copy_only=False))

    @cached_property
    def _history(self) -> np.ndarray:
        """Events of each request, all domains together, int64 (R,)."""
        lengths = (
            self._of_request(f"end.{d}") - self._of_request(f"start.{d}")
            for d in self.dataset.manifest.domains
        )
        return sum(lengths, np.zeros(self.data.requests.num_rows, dtype=np.int64))

    @cached_property
    def _first_shown(self) -> np.ndarray:
        """When each item was first shown in any split, seconds."""
        return self._first_in(SPLITS)

    @cached_property
    def _first_trained(self) -> np.ndarray:
        """When each item was first shown in the training part, seconds."""
        return self._first_in(("train",))

    def _first_in(self, splits: Iterable[str]) -> np.ndarray:
        first = np.full(self.dataset.manifest.items, np.iinfo(np.int64).max)
        for name in splits:
            np.minimum.at(first, *_items_and_times(self.dataset.split(name)))
        return first


def _items_and_times(data: SplitData) -> tuple[np.ndarray, np.ndarray]:
    """Item code and time of every row of a split."""
    time = np.repeat(data.requests["time"].to_numpy(), np.diff(data.row_offsets))
    return data.impressions["item_id"].to_numpy(), time


def _bucket_labels(values: np.ndarray, bounds: tuple[int, ...]) -> np.ndarray:
    """Each value's bucket in words; they sort by name, so the bounds are padded.

    Example:
        >>> _bucket_labels(np.array([0, 3, 9]), (0, 1, 5)).tolist()
        ['000', '001-004', '005+']
    """
    ends = [f"-{high - 1:03d}" if high - low > 1 else "" for low, high in pairwise(bounds)]
    labels = np.array([f"{low:03d}{end}" for low, end in zip(bounds, [*ends, "+"], strict=True)])
    return labels[np.searchsorted(bounds, values, side="right") - 1]
