"""Train, then valid, then test: contiguous in time, never inside a clock, so never inside a request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.errors import ConfigError, DataError
from features.read.clock import seconds_of
from features.spec import Split


@dataclass(frozen=True)
class SplitRanges:
    """The parts as ranges of the rows, which are sorted by clock."""

    valid_start: int
    test_start: int
    rows: int
    fit_before: int | None  # the clock of the first row outside train: only what is earlier may be fitted on

    def of(self, name: str) -> tuple[int, int]:
        """First row of the part and the row after its last."""
        bounds = (0, self.valid_start, self.test_start, self.rows)
        index = ("train", "valid", "test").index(name)
        return bounds[index], bounds[index + 1]


def split_rows(clock: np.ndarray, time: np.ndarray, split: Split) -> SplitRanges:
    """Cut rows in time order into train, valid and test.

    A share is a share of all rows; a tie of the clock at a cut belongs to the earlier part. A time is the
    first one of its part. 0 leaves a part out.

    Args:
        clock: int64 (N,), sorted.
        time: int64 (N,) seconds, sorted.
        split: shares or times.

    Raises:
        ConfigError: shares that leave nothing for training, or times in the wrong order.
        DataError: a part that is asked for is empty.
    """
    rows = len(clock)
    test_start = _start(split.test, clock, time, end=rows, what="test")
    valid_start = _start(split.valid, clock, time, end=test_start, what="valid", reserved=split.test)
    if valid_start > test_start:
        raise ConfigError(
            f"split.valid must begin before split.test, got {split.valid!r} and {split.test!r}: the parts "
            "would overlap; swap or correct the times"
        )
    ranges = SplitRanges(
        valid_start, test_start, rows, int(clock[valid_start]) if valid_start < rows else None
    )
    for name, wanted in (("train", 1), ("valid", split.valid), ("test", split.test)):
        low, high = ranges.of(name)
        if wanted != 0 and low == high:
            raise DataError(
                f"the {name} part is empty: {rows} rows, split at {split.valid!r} and {split.test!r}; "
                "choose other shares or times, or 0 for no such part"
            )
    return ranges


def _start(
    bound: float | int | str,
    clock: np.ndarray,
    time: np.ndarray,
    *,
    end: int,
    what: str,
    reserved: float | int | str = 0,
) -> int:
    """The first row of a part that ends before row `end`."""
    if bound == 0:
        return end
    if isinstance(bound, float) and bound < 1:
        after = (
            reserved
            if isinstance(reserved, float) and reserved < 1
            else (len(clock) - end) / max(len(clock), 1)
        )
        share = bound + after
        if bound < 0 or share >= 1:
            raise ConfigError(
                f"split.{what}: shares must be positive and sum to less than 1, got {bound}; lower them"
            )
        # Rounded first: 0.7 · 10 is 7.000000000000001 or 6.999999999999999.
        cut = int(round(len(clock) * (1 - share), 6))
        return min(int(np.searchsorted(clock, clock[cut - 1], side="right")), end) if cut else 0
    return int(np.searchsorted(time, seconds_of(bound)))
