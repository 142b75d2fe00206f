"""Scores of chosen rows of a data set, as `ctr predict` computes them: whole requests, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ctr.batch import Batch
from ctr.loader.view import DatasetView, pick_requests
from features.dataset import SPLITS, Dataset, SplitData
from features.errors import DataError


def score_rows(
    dataset: Dataset,
    row_id: np.ndarray,
    *,
    score: Callable[[Dataset, str], Iterable[tuple[Batch, np.ndarray]]],
) -> np.ndarray:
    """Logits of rows, float32 (N,) or (N, K), in the order in which they are named; a row may be named twice.

    Args:
        dataset: as the run sees it.
        row_id: int64 (N,), of any part.
        score: gives the batches of a part of a data set with their logits.

    Raises:
        DataError: rows that the data set does not have.
    """
    wanted, places = np.unique(row_id, return_inverse=True)
    found: np.ndarray | None = None
    missing = np.ones(len(wanted), dtype=bool)
    for name in SPLITS:
        data = dataset.split(name)
        at = _positions(data, wanted)
        if not (at >= 0).any():
            continue
        missing &= at < 0
        chosen = DatasetView(dataset, {name: _requests_of(data, at[at >= 0])})
        for batch, logits in score(chosen, name):
            ids = batch.row_id.numpy()
            place = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            asked = wanted[place] == ids
            found = np.zeros((len(wanted), *logits.shape[1:]), dtype=np.float32) if found is None else found
            found[place[asked]] = logits[asked]
    if missing.any():
        raise DataError(
            f"row_id must name rows of {dataset.root}, got {wanted[missing][:5].tolist()}, which it lacks "
            f"({int(missing.sum())} of {len(wanted)}); take them from a table of predictions"
        )
    if found is None:  # no row was named
        return np.zeros(0, dtype=np.float32)
    result: np.ndarray = found[places.reshape(-1)]
    return result


def _positions(data: SplitData, wanted: np.ndarray) -> np.ndarray:
    """The position of each wanted row in a part, −1 where it is not there."""
    ids = data.impressions["row_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order)
    at = order[np.minimum(place, max(len(ids) - 1, 0))] if len(ids) else np.full(len(wanted), -1)
    return np.where(ids[at] == wanted, at, -1) if len(ids) else at


def _requests_of(data: SplitData, rows: np.ndarray) -> SplitData:
    """The whole requests that some rows belong to, in their order."""
    requests = np.unique(np.searchsorted(data.row_offsets, rows, side="right") - 1)
    return pick_requests(data, requests)
