"""Data sets some of whose splits are replaced: other requests or candidates, read by the same loader."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from features.dataset import Dataset, SplitData, SplitInfo

_MANY = 10_000  # runs of rows


class DatasetView(Dataset):
    """A data set some of whose splits are replaced.

    Args:
        dataset: an opened data set.
        splits: name → the split that replaces it.
    """

    def __init__(self, dataset: Dataset, splits: Mapping[str, SplitData]) -> None:
        self.root, self.place, self.row_maps = dataset.root, dataset.place, dataset.row_maps
        self._dataset, self._splits = dataset, dict(splits)
        infos = {**dataset.manifest.splits, **{name: data.info for name, data in splits.items()}}
        self.manifest = dataset.manifest.model_copy(update={"splits": infos})

    def split(self, name: str) -> SplitData:
        """See `Dataset.split`."""
        return copy.copy(self._splits[name]) if name in self._splits else self._dataset.split(name)


def sample_view(dataset: Dataset, rows: Mapping[str, int]) -> DatasetView:
    """A data set of a few rows: whole requests, evenly spaced over each part.

    Args:
        dataset: an opened data set.
        rows: split → about so many of its rows.
    """
    return DatasetView(dataset, {name: _sample(dataset.split(name), some) for name, some in rows.items()})


def _sample(split: SplitData, rows: int) -> SplitData:
    requests, offsets = split.requests.num_rows, split.row_offsets
    wanted = min(requests, max(1, round(rows * requests / max(int(offsets[-1]), 1))))
    picked = np.unique(np.linspace(0, max(requests - 1, 0), wanted).astype(np.int64))
    return pick_requests(split, picked)


def pick_requests(split: SplitData, picked: np.ndarray) -> SplitData:
    """The requests at these positions with all of their rows, in this order."""
    starts, ends = split.row_offsets[picked].tolist(), split.row_offsets[picked + 1].tolist()
    requests = [(request, request + 1) for request in picked.tolist()]
    return make_split(
        _slices(split.requests, requests), _slices(split.impressions, list(zip(starts, ends, strict=True)))
    )


def _slices(table: pa.Table, runs: list[tuple[int, int]]) -> pa.Table:
    """Copies of these runs of rows alone.

    `Table.take` is faster for many runs, but joins the chunks of every list column first: on a large part
    that is minutes and gigabytes for a few rows.
    """
    if len(runs) > _MANY:
        return table.take(pa.array(np.concatenate([np.arange(start, end) for start, end in runs])))
    return pa.concat_tables([table.slice(0, 0), *(table.slice(a, b - a) for a, b in runs)]).combine_chunks()


def make_split(requests: pa.Table, impressions: pa.Table) -> SplitData:
    """A split of these requests and, request by request, their impressions; counted as `ctr prepare` does."""
    time, clock = (requests[name].to_numpy() for name in ("time", "clock"))
    some = requests.num_rows > 0
    info = SplitInfo(
        requests=requests.num_rows,
        impressions=impressions.num_rows,
        positives=int((impressions["label"].to_numpy() > 0).sum()),
        time_range=(int(time.min()), int(time.max())) if some else None,
        clock_range=(int(clock.min()), int(clock.max())) if some else None,
    )
    return SplitData(info, requests, impressions)
