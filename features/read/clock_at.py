"""The clock that an impression would have at a moment, in a log that was read."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.read.clock import CLOCK, TIME
from features.read.log import Log
from features.read.moment import SECOND
from features.read.resolution import PER_SECOND
from features.spec import Spec


def tick_start(log: Log, moment: int) -> int:
    """Where the tick of the impressions begins in which a moment lies, nanoseconds since 1970."""
    tick = round(log.ticks[None] * SECOND)
    return moment // tick * tick


def clock_at(spec: Spec, log: Log, moment: int) -> tuple[int, int]:
    """The clock and the time (s) of an impression at a moment: what lies strictly before is its past.

    Between two ticks of the impressions it is the earlier one, as they are logged. With `order`, nothing of
    the moment's own tick is past.

    Args:
        spec: of the log.
        log: as it was read.
        moment: nanoseconds since 1970.

    Raises:
        DataError: a log without rows.
    """
    start = tick_start(log, moment)
    if not log.rows.height:
        raise DataError("the log must have impressions, got none; name another source")
    if spec.order:
        return _rank(log, start), start // SECOND
    clock, time = log.rows[CLOCK], log.rows[TIME]
    per_second = next(size for size in PER_SECOND.values() if (clock // size == time).all())
    return start * per_second // SECOND, start // SECOND


def _rank(log: Log, start: int) -> int:
    """The smallest rank of what is not over before `start`; behind all ranks where everything is."""
    later, behind = [], 0
    for name, tick in log.ticks.items():
        frame = log.frame(name)
        length = SECOND if name is None else max(round(tick * SECOND), SECOND)
        later.append(frame.filter(pl.col(TIME) * SECOND + length > start)[CLOCK].min())
        behind = max(behind, int(str(frame[CLOCK].max() or 0)) + 1)
    return min((int(str(rank)) for rank in later if rank is not None), default=behind)
