"""The clock at which a logged value is known: labels, outcomes and columns with a rule (`Known`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from features.errors import DataError
from features.known import Known
from features.read.locate import locate

LABEL, OUTCOME, TARGET = "__label", "__outcome", "__target."


def known_column(value: str) -> str:
    """The reserved column of the clocks at which the values of a column are known.

    Example:
        >>> known_column(LABEL), known_column("rating")
        ('__known.__label', '__known.rating')
    """
    return f"__known.{value}"


def known_clocks(
    frame: pl.DataFrame,
    rules: Mapping[str, Known],
    *,
    end: pl.Series,
    ends_at: Mapping[str, pl.Series],
    per_second: int,
    what: str,
) -> Iterator[pl.Series]:
    """The clock at which each value with a rule is known; it is past for every larger clock.

        known = max(end of the row's tick, end of the tick of known_at, else end + delay) − 1

    Args:
        frame: has the values.
        rules: column of values → when they are known; those that the frame does not have are left out.
        end: int64 end of the tick of each row's time, in clock units.
        ends_at: column of values → the same of its `known_at`, null where that is missing.
        per_second: clock units.
        what: table and column of the time, for messages.

    Raises:
        DataError: a value without a time at which it is known.
    """
    for value, rule in ((v, r) for v, r in rules.items() if v in frame.columns):
        known = ends_at.get(value, pl.Series([None] * frame.height, dtype=pl.Int64))
        if rule.delay is not None:
            known = known.fill_null(end + math.ceil(rule.delay * per_second))
        if (never := known.is_null() & frame[value].is_not_null()).any():
            raise DataError(
                f"{what}: every value needs the time at which it is known, {locate(frame, never)} lack "
                f"{rule.known_at!r}; fill it, or give a delay too, which holds where it is missing"
            )
        later = pl.DataFrame({"end": end, "known": known}).select(pl.max_horizontal("end", "known") - 1)
        yield later.to_series().alias(known_column(value))


def known_ranks(frame: pl.DataFrame, clock: np.ndarray, rank: np.ndarray) -> list[pl.Series]:
    """Clocks at which values are known as ranks: that of the last row whose clock is not later.

    Args:
        frame: may have columns of `known_clocks`.
        clock: int64 of all rows of all tables.
        rank: int64 of the same, rising with the clock.
    """
    names = [c for c in frame.columns if c.startswith(known_column(""))]
    if not names:
        return []
    order = np.argsort(rank)
    clock, rank = clock[order], rank[order]
    return [pl.Series(n, rank[np.searchsorted(clock, frame[n].to_numpy(), side="right") - 1]) for n in names]
