"""Rolling origin over a prepared data set: train to a moment t, test on what follows, the files as they are.

    data set      | train                    | valid | test                    |
    window 0      | train                    | valid | test  .        .        |
    window 1      | train                    . train | valid | test  .        |
    window 2      | train                    . train . train | valid | test  |

The test part is cut into windows of equally many requests. A window is tested by the model whose training
ends before the window in front of it, which is its validation part; the first one has the data set's own. So
each training grows, no label of a window or of its validation part enters it, and the windows together are
the test part. A request is never cut, nor a tie of the clock.

Vocabularies, buckets and scalers are those that `ctr prepare` fitted on the data set's training part, which
lies before every window: nothing leaks, but a value first seen later stays unknown in every window. To see
what newer vocabularies are worth, prepare the data set again with a later split.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctr.config import PeriodConfig
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
    return dataset if period == PeriodConfig() else _PeriodView(dataset, period)


class _PeriodView(Dataset):
    """A data set whose splits are put together from stretches of those on disk."""

    def __init__(self, dataset: Dataset, period: PeriodConfig) -> None:
        self.root = dataset.root
        on_disk = {name: dataset.split(name) for name in SPLITS}
        clocks = {name: data.requests["clock"].to_numpy() for name, data in on_disk.items()}
        self._pieces = {name: pieces for name, pieces in zip(SPLITS, _parts(clocks, period), strict=True)}
        self._splits = {name: _join(on_disk, pieces) for name, pieces in self._pieces.items()}
        infos = {name: data.info for name, data in self._splits.items()}
        _refuse_overlap(infos)
        self.manifest = dataset.manifest.model_copy(update={"splits": infos})

    def split(self, name: str) -> SplitData:
        """The requests and impressions of `train`, `valid` or `test` of this window."""
        if name not in self._splits:
            raise DataError(f"split must be one of {sorted(self._splits)}, got {name!r}")
        return copy.copy(self._splits[name])


def _parts(clocks: dict[str, np.ndarray], period: PeriodConfig) -> list[list[Piece]]:
    """Stretches of train, valid and test of a window."""
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
    """The newest part of consecutive stretches, whole requests; a tie of the clock at the cut is left out."""
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
    """The stretches one after the other; nothing is copied."""
    requests, impressions = [], []
    for name, start, stop in pieces:
        data = on_disk[name]
        rows = data.row_offsets[[start, stop]].tolist()
        requests.append(data.requests.slice(start, stop - start))
        impressions.append(data.impressions.slice(rows[0], rows[1] - rows[0]))
    joined = pa.concat_tables(requests), pa.concat_tables(impressions)
    return SplitData(_info(*joined), *joined)


def _info(requests: pa.Table, impressions: pa.Table) -> SplitInfo:
    time, clock = (requests[name].to_numpy() for name in ("time", "clock"))
    some = len(time) > 0
    return SplitInfo(
        requests=requests.num_rows,
        impressions=impressions.num_rows,
        positives=int(pc.sum(impressions["label"]).as_py() or 0),
        time_range=(int(time.min()), int(time.max())) if some else None,
        clock_range=(int(clock.min()), int(clock.max())) if some else None,
    )


def _refuse_overlap(infos: dict[str, SplitInfo]) -> None:
    """The promise of this file, checked on what a run will see: every part ends before the next begins."""
    ranges = [(name, infos[name].clock_range) for name in SPLITS]
    known = [(name, span) for name, span in ranges if span is not None]
    for (one, first), (other, second) in pairwise(known):
        if first[1] >= second[0]:
            raise DataError(
                f"{one} must end before {other} begins, but its last clock is {first[1]} and the first of "
                f"{other} is {second[0]}; prepare the data set with parts that follow each other in time"
            )
