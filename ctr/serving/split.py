"""The requests of a prepared split, each with its own candidates, in file order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.source import Request, read_candidates, read_requests
from features.dataset import Dataset


def split_requests(dataset: Dataset, split: str) -> Iterator[tuple[Request, Columns]]:
    """Every request and its candidates."""
    requests, offsets = read_requests(dataset, split)
    shown = read_candidates(dataset, split)
    for position in range(len(offsets) - 1):
        rows = np.arange(offsets[position], offsets[position + 1])
        yield Request.of(requests.take(np.array([position]))), shown.take(rows)
