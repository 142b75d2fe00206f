"""The requests that items are generated for: histories, items seen before, and items that came next.

R requests, I items (rows of the item table).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ctr.generate.config import GenerateConfig
from ctr.generate.training import narrow
from ctr.generate.views import last_requests, spread
from ctr.loader.columns import ranges
from ctr.loader.view import DatasetView, pick_requests
from features.dataset import Dataset, SplitData
from features.errors import DataError


@dataclass(frozen=True)
class ChosenRequests:
    """R requests in file order; lists hold one entry for each.

    Args:
        positions: (R,) their positions in the split.
        view: the data set in which the split is these requests alone, as a generator reads it.
        data: the split of the view.
        wanted: rows of the items that came next; 1 is an item that is new after training.
        history: the newest events before the request, oldest first, as many as a generator reads.
        seen: the items of all events before the request.
    """

    positions: np.ndarray
    view: Dataset
    data: SplitData
    wanted: list[set[int]]
    history: list[np.ndarray]
    seen: list[np.ndarray]


def choose_requests(dataset: Dataset, config: GenerateConfig) -> ChosenRequests:
    """The requests that `generation` names, without those that nothing came next for.

    Raises:
        DataError: none is left.
    """
    how, generator = config.generation, config.generator
    data = dataset.split(how.split)
    positions = last_requests(data) if how.requests == "last" else np.arange(data.requests.num_rows)
    wanted = _targets(data, generator.candidate, positive=generator.targets == "positive")
    positions = spread(positions[[bool(wanted[p]) for p in positions.tolist()]], how.limit)
    if not len(positions):
        raise DataError(f"generation.split must hold requests with a next behaviour, {how.split} has none")
    picked = pick_requests(data, positions)
    events = dataset.events(generator.domain)
    item = events.ids[generator.event].values.astype(np.int64)
    stop = picked.requests[f"end.{generator.domain}"].to_numpy().astype(np.int64)
    longest = config.loader.max_len.get(generator.domain, events.info.max_len)
    start = np.maximum(picked.requests[f"start.{generator.domain}"].to_numpy(), stop - longest)
    first = np.searchsorted(events.user_id, picked.requests["user_id"].to_numpy())
    return ChosenRequests(
        positions,
        DatasetView(narrow(dataset, config), {how.split: picked}),
        picked,
        [wanted[p] for p in positions.tolist()],
        _slices(item, start.astype(np.int64), stop),
        [np.unique(own) for own in _slices(item, np.minimum(first, stop), stop)],
    )


def item_codes(dataset: Dataset, candidate: str, rows: int) -> np.ndarray:
    """(I,): the code of each item in the data set's keys, −1 for rows that no training row shows."""
    table = dataset.split("train").impressions
    codes = np.full(rows, -1, dtype=np.int64)
    codes[table[f"id.{candidate}"].to_numpy()] = table["item_id"].to_numpy()
    return codes


def interactions(dataset: Dataset, config: GenerateConfig) -> tuple[np.ndarray, np.ndarray]:
    """User and item of every next behaviour of the training split."""
    data = dataset.split("train")
    users = np.repeat(data.requests["user_id"].to_numpy(), np.diff(data.row_offsets)).astype(np.int64)
    items = data.impressions[f"id.{config.generator.candidate}"].to_numpy().astype(np.int64)
    if config.generator.targets == "shown":
        return users, items
    good = data.impressions["label"].to_numpy() > 0
    return users[good], items[good]


def _targets(data: SplitData, candidate: str, *, positive: bool) -> list[set[int]]:
    """For each request of a split, the rows of its target items."""
    items = data.impressions[f"id.{candidate}"].to_numpy().tolist()
    counts = data.impressions["label"].to_numpy() > 0 if positive else np.ones(len(items), dtype=bool)
    cuts = data.row_offsets.tolist()
    return [{items[row] for row in range(low, high) if counts[row]} for low, high in pairwise(cuts)]


def _slices(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
    entries, offsets = ranges(start, stop - start)
    return np.split(values[entries], offsets[1:-1])
