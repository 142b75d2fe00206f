"""Rolling origin over a prepared data set: train up to a moment, test on what follows; no file changes.

    data set      | train                    | valid | test                    |
    window 0      | train                    | valid | test  .        .        |
    window 1      | train                    . train | valid | test  .        |
    window 2      | train                    . train . train | valid | test  |

The test part is cut into windows of equally many requests. A window is tested by the model whose training
ends before the window in front of it, which is its validation part; the first one has the data set's own. So
training parts grow from window to window, no label of a window or of its validation part is trained on, and
the windows together are the test part. Neither a request nor a tie of the clock is ever cut.

Vocabularies, buckets and scalers are those that `ctr prepare` fitted on the data set's training part, which
lies before every window: nothing leaks, but a value first seen later stays unknown in every window. To see
what newer vocabularies are worth, prepare the data set again with a later split.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa

from ctr.config import PeriodConfig
from ctr.loader.view import DatasetView, make_split
from features.dataset import SPLITS, Dataset, SplitData, SplitInfo
from features.errors import ConfigError, DataError

Piece = tuple[str, int, int]  # requests start … stop − 1 of a split on disk


def restrict(dataset: Dataset, period: PeriodConfig) -> Dataset:
    """The data set as a run with this `period` sees it.

    Args:
        dataset: an opened data set, also one without some features.
        period: which window, and how much of the training period.

    Raises:
        ConfigError: no such window, or more windows than the test part has moments.
        DataError: the parts of the data set overlap in time.
    """
    if period == PeriodConfig():
        return dataset
    on_disk = {name: dataset.split(name) for name in SPLITS}
    clocks = {name: data.requests["clock"].to_numpy() for name, data in on_disk.items()}
    window = zip(SPLITS, _parts(clocks, period), strict=True)
    splits = {name: _join(on_disk, pieces) for name, pieces in window}
    _refuse_overlap({name: data.info for name, data in splits.items()})
    return DatasetView(dataset, splits)


def _parts(clocks: dict[str, np.ndarray], period: PeriodConfig) -> list[list[Piece]]:
    """The pieces of splits on disk that make the train, valid and test parts of a window."""
    whole: dict[str, Piece] = {name: (name, 0, len(clock)) for name, clock in clocks.items()}
    cuts = window_cuts(clocks["test"], period.windows)
    if not period.window < period.windows:
        raise ConfigError(
            f"period.window must be less than period.windows, which is {period.windows}, got {period.window}"
        )
    tests: list[Piece] = [("test", a, b) for a, b in pairwise(cuts)]
    # In time: what comes before the tested window, its validation part last.
    before = [whole["train"], whole["valid"], *tests[: period.window]]
    train = _newest(before[:-1], clocks, period.train_fraction)
    return [train, [before[-1]], [tests[period.window]]]


def window_cuts(clock: np.ndarray, windows: int) -> list[int]:
    """Where windows of about equally many requests begin, and the end; a tie of the clock is never cut.

    Args:
        clock: int64 (requests,), sorted.
        windows: how many.

    Raises:
        ConfigError: a window would be empty.

    Example:
        >>> window_cuts(np.array([1, 2, 2, 2, 3, 4]), 2)
        [0, 4, 6]
    """
    wanted = [round(len(clock) * i / windows) for i in range(1, windows)]
    cuts = [0, *(int(np.searchsorted(clock, clock[at - 1], side="right")) for at in wanted if at), len(clock)]
    if windows > 1 and (len(cuts) != windows + 1 or min(np.diff(cuts)) < 1):
        raise ConfigError(
            f"period.windows must leave requests in every window, got {windows} windows of a test part with "
            f"{len(clock)} requests at {len(np.unique(clock))} moments; use fewer"
        )
    return cuts


def _newest(pieces: list[Piece], clocks: dict[str, np.ndarray], fraction: float) -> list[Piece]:
    """The newest fraction of consecutive pieces: whole requests; a tie of the clock at the cut is dropped."""
    total = sum(stop - start for _, start, stop in pieces)
    skip = total - max(1, round(total * fraction)) if total else 0
    kept: list[Piece] = []
    for name, start, stop in pieces:
        first = start + min(skip, stop - start)
        skip -= first - start
        if start < first < stop:
            clock = clocks[name]
            first = min(int(np.searchsorted(clock, clock[first - 1], side="right")), stop)
        if first < stop:
            kept.append((name, first, stop))
    return kept or pieces[-1:]


def _join(on_disk: dict[str, SplitData], pieces: list[Piece]) -> SplitData:
    """The pieces one after the other; nothing is copied."""
    requests, impressions = [], []
    for name, start, stop in pieces:
        data = on_disk[name]
        rows = data.row_offsets[[start, stop]].tolist()
        requests.append(data.requests.slice(start, stop - start))
        impressions.append(data.impressions.slice(rows[0], rows[1] - rows[0]))
    return make_split(pa.concat_tables(requests), pa.concat_tables(impressions))


def _refuse_overlap(infos: dict[str, SplitInfo]) -> None:
    """Check what the head of this file promises: every part ends before the next begins."""
    ranges = [(name, infos[name].clock_range) for name in SPLITS]
    known = [(name, span) for name, span in ranges if span is not None]
    for (one, first), (other, second) in pairwise(known):
        if first[1] >= second[0]:
            raise DataError(
                f"{one} must end before {other} begins, but its last clock is {first[1]} and the first of "
                f"{other} is {second[0]}; prepare the data set with parts that follow each other in time"
            )
