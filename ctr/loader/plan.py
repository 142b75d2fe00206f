"""Which requests make batch number `step` of an epoch: a pure function of (seed, epoch, step).

    requests on disk   | window 0 | window 1 | window 2 |     a window: consecutive requests of the file
    windows shuffled   | window 2 | window 0 | window 1 |
    requests shuffled inside each window, then packed whole into batches of at most batch_rows rows

The plan keeps only the cuts between batches; the order inside a window is drawn again when the window is
opened. To skip to a step, nothing has to be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ctr.config import LoaderConfig

# Keys, after the seed, of the two independent streams of random numbers.
_WINDOWS, _REQUESTS = 0, 1


@dataclass(frozen=True)
class Window:
    """The requests `start` … `stop − 1` of one split."""

    split: int
    start: int
    stop: int


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch."""

    windows: list[Window]  # in the order of this epoch
    # int64 (windows + 1,): window i makes the steps first_step[i] … first_step[i + 1] − 1
    first_step: np.ndarray
    cuts: list[np.ndarray]  # window i: batch j takes its requests cuts[j] … cuts[j + 1] − 1, in window order

    @property
    def steps(self) -> int:
        """Number of batches."""
        return int(self.first_step[-1])

    def locate(self, step: int) -> tuple[int, slice]:
        """The window that makes a step, and which of its ordered requests."""
        window = int(np.searchsorted(self.first_step, step, side="right")) - 1
        batch = step - int(self.first_step[window])
        return window, slice(*self.cuts[window][batch : batch + 2].tolist())


def plan_epoch(counts: Sequence[np.ndarray], config: LoaderConfig, *, seed: int, epoch: int) -> EpochPlan:
    """Plan an epoch.

    Args:
        counts: per split, the number of rows of each request.
        config: batch_rows, order and window.
        seed: of the shuffle.
        epoch: counted from 0; another epoch, another shuffle.

    Example:
        >>> config = LoaderConfig(batch_rows=4, order="time")
        >>> plan = plan_epoch([np.array([2, 2, 2, 5])], config, seed=1, epoch=0)
        >>> [plan.locate(step)[1] for step in range(plan.steps)]
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    windows = [w for split, rows in enumerate(counts) for w in _windows(split, len(rows), config.window)]
    if config.order == "shuffle":
        order = _random(seed, epoch, _WINDOWS).permutation(len(windows))
        windows = [windows[i] for i in order]
    cuts = []
    for window in windows:
        rows = counts[window.split][window.start : window.stop]
        order = window_order(window, config, rows, seed=seed, epoch=epoch)
        cuts.append(_cuts(rows[order], config.batch_rows))
    first_step = np.cumsum([0, *(len(c) - 1 for c in cuts)], dtype=np.int64)
    return EpochPlan(windows, first_step, cuts)


def window_order(
    window: Window, config: LoaderConfig, rows: np.ndarray | None = None, *, seed: int, epoch: int
) -> np.ndarray:
    """The order of a window's requests in an epoch, as positions in the window.

    Args:
        window: which requests.
        config: whether they are shuffled.
        rows: int64, how many rows the epoch has of each; those of none are left out. None: all have some.
        seed: of the shuffle.
        epoch: counted from 0.
    """
    size = window.stop - window.start
    if config.order == "time":
        order = np.arange(size)
    else:
        order = _random(seed, epoch, _REQUESTS, window.split, window.start).permutation(size)
    return order if rows is None else order[rows[order] > 0]


def _windows(split: int, requests: int, size: int) -> list[Window]:
    """Windows of near-equal size, none larger than `size`."""
    edges = np.linspace(0, requests, math.ceil(requests / size) + 1).astype(np.int64).tolist()
    return [Window(split, start, stop) for start, stop in pairwise(edges)]


def _cuts(rows: np.ndarray, batch_rows: int) -> np.ndarray:
    """Pack whole requests in their order into near-equal batches of at most batch_rows rows."""
    if not len(rows):
        return np.zeros(1, dtype=np.int64)
    ends = np.cumsum(rows, dtype=np.int64)
    # Batches are about equally full: the few rows of a small last one would weigh as much as a full batch.
    batches = max(1, math.ceil(ends[-1] / batch_rows))
    limit = math.ceil(ends[-1] / batches)
    cuts, taken = [0], 0
    while cuts[-1] < len(ends):
        cut = max(int(np.searchsorted(ends, taken + limit, side="right")), cuts[-1] + 1)
        cuts.append(cut)
        taken = int(ends[cut - 1])
    return np.array(cuts, dtype=np.int64)


def _random(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng([seed % 2**64, *stream])
