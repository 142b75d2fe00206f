"""Which requests make batch number `step` of an epoch: a pure function of (seed, epoch, step).

    requests on disk   | window 0 | window 1 | window 2 |     a window: consecutive requests of the file
    windows shuffled   | window 2 | window 0 | window 1 |
    requests shuffled inside each window, then packed whole into batches of at most batch_rows rows

With `order: windows` the windows stay in order of time, and with `order: time` the requests too. There are
two ways to pack a window, which `loader.plan` names. Both keep requests whole and batches about equally full,
and to skip to a step nothing has to be read.

    requests   one request after the other as long as it fits: how many batches a window makes depends on the
               order of its requests, so the plan of an epoch draws the order of all of them
    windows    at equal shares of the rows: how many batches a window makes follows from its rows alone, so
               the plan takes a moment, and the order is drawn when a window is opened
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctr.config import LoaderConfig
from ctr.loader.row_counts import Window, WindowTotals

# Keys, after the seed, of the two independent streams of random numbers.
_WINDOWS, _REQUESTS = 0, 1


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch."""

    windows: list[Window]  # in the order of this epoch
    # int64 (windows + 1,): window i makes the steps first_step[i] … first_step[i + 1] − 1
    first_step: np.ndarray
    # window i: batch j takes its requests cuts[j] … cuts[j + 1] − 1, in window order; None: at equal shares
    known_cuts: list[np.ndarray] | None

    @property
    def steps(self) -> int:
        """Number of batches."""
        return int(self.first_step[-1])

    def locate(self, step: int) -> tuple[int, int]:
        """The window that makes a step, and which of its batches that is."""
        window = int(np.searchsorted(self.first_step, step, side="right")) - 1
        return window, step - int(self.first_step[window])

    def cuts(self, window: int, rows: np.ndarray) -> np.ndarray:
        """Where the batches of a window begin, and the end.

        Args:
            window: its number in the order of this epoch.
            rows: int64 (requests,) of its requests in window order.
        """
        if self.known_cuts is not None:
            return self.known_cuts[window]
        return even_cuts(rows, int(self.first_step[window + 1] - self.first_step[window]))


def plan_epoch(
    windows: Sequence[Window],
    rows: Callable[[Window], np.ndarray],
    config: LoaderConfig,
    *,
    seed: int,
    epoch: int,
    drawn: bool = False,
) -> EpochPlan:
    """Plan an epoch.

    Args:
        windows: of `find_windows`.
        rows: how many rows this epoch has of each request of a window, int64 (requests,).
        config: batch_rows, order and plan, which must be decided.
        seed: of the shuffle.
        epoch: counted from 0; another epoch, another shuffle.
        drawn: whether an epoch has only some of the rows, so that `rows` has to be asked in any case.

    Example:
        >>> counts = np.array([2, 2, 2, 5])
        >>> config = LoaderConfig(batch_rows=4, order="time", plan="requests")
        >>> plan = plan_epoch([Window(0, 0, 4)], lambda window: counts, config, seed=1, epoch=0)
        >>> plan.steps, plan.cuts(0, counts).tolist()
        (3, [0, 2, 3, 4])
    """
    windows = list(windows)
    if config.order == "shuffle":
        order = _random(seed, epoch, _WINDOWS).permutation(len(windows))
        windows = [windows[i] for i in order]
    if config.plan == "windows":
        totals = (WindowTotals.of(rows(window)) if drawn else window.totals for window in windows)
        sizes = [batches_of(own, config.batch_rows) for own in totals]
        return EpochPlan(windows, np.cumsum([0, *sizes], dtype=np.int64), None)
    cuts = []
    for window in windows:
        own = rows(window)
        order = window_order(window, config, own, seed=seed, epoch=epoch)
        cuts.append(_cuts(own[order], config.batch_rows))
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


def batches_of(window: WindowTotals, batch_rows: int) -> int:
    """How many batches a window makes, whatever the order of its requests.

    Cut at equal shares, a batch exceeds its share by less than the longest request. A share leaves room for
    that, but is at least half of `batch_rows`: a batch is larger only where a request is longer than a half.

    Example:
        >>> batches_of(WindowTotals(requests=100, rows=1000, longest=20), 100)
        13
    """
    share = max(batch_rows - window.longest, math.ceil(batch_rows / 2))
    return min(window.requests, math.ceil(window.rows / share))


def even_cuts(rows: np.ndarray, batches: int) -> np.ndarray:
    """Pack whole requests in their order into so many batches, of at least one request, at equal shares.

    Args:
        rows: int64 (requests,).
        batches: at most as many as requests.

    Example:
        >>> even_cuts(np.array([1, 1, 9, 1, 1, 1]), 3).tolist()
        [0, 2, 3, 6]
    """
    if not len(rows):
        return np.zeros(1, dtype=np.int64)
    ends = np.cumsum(rows, dtype=np.int64)
    inner = np.arange(1, batches)
    cuts = np.searchsorted(ends, ends[-1] * inner // batches, side="right")
    # A request that is longer than a share makes a batch of its own, and the others move on.
    cuts = np.maximum.accumulate(np.maximum(cuts - inner, 0)) + inner
    cuts = np.minimum(cuts, len(rows) - batches + inner)
    return np.concatenate([[0], cuts, [len(rows)]]).astype(np.int64)


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
