"""From which range of time on each row of a counter's past counts, where its key or value is known later.

    range          0        1        2        3
    a row of 0     happens ─┼─ count ┼─────── ┼─ its label is known ─►

The totals of a key hold a row from the range after the one in which it arrives. In that range itself the row
is one of the counter's past, at the clock at which it is known: it is handed on to it whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from features.partitions.frames import read_frame, write_frame
from features.partitions.items import item_columns
from features.partitions.job import Preparation
from features.past.as_of import AVERAGED, COUNTED, needs_values
from features.read.clock import CLOCK, TIME
from features.read.columns import event_rules, row_rules
from features.read.fraction import FRACTION
from features.read.known_clock import LABEL, OUTCOME, known_column
from features.spec import Counter, Spec


@dataclass(frozen=True)
class Arrivals:
    """The range of time (M,) in which each row of the past arrives; the number of ranges if it never does.

    Attributes:
        count: the row and its key are known.
        value: and its label or value.
        every: its label or value, whatever its key.
    """

    count: np.ndarray
    value: np.ndarray
    every: np.ndarray


def arrivals_of(job: Preparation, part: int, counter: Counter, past: pl.DataFrame) -> Arrivals:
    """The arrivals of the rows of one range."""
    own = np.full(past.height, part)

    def arrives(late: list[str]) -> np.ndarray:
        if not late:
            return own
        return job.clock_part(past.select(pl.max_horizontal(CLOCK, *late)).to_series().to_numpy())

    keys, values = ([c for c in columns if c in past.columns] for columns in _clocks(counter))
    return Arrivals(arrives(keys), arrives([*keys, *values]), arrives(values))


def is_late(spec: Spec, counter: Counter) -> bool:
    """Whether a key or value of a counter is known later than its row."""
    rules = row_rules(spec) if counter.over is None else event_rules(spec.domains[counter.over])
    return any(known_column(column) in columns for column in rules for columns in _clocks(counter))


def counted_columns(counter: Counter, past: pl.DataFrame) -> pl.DataFrame:
    """What is read of a counter's past."""
    late = [c for columns in _clocks(counter) for c in columns]
    columns = [
        *counter.event_by,
        counter.value,
        counter.against,
        LABEL,
        OUTCOME,
        CLOCK,
        TIME,
        FRACTION,
        *late,
    ]
    return past.select(c for c in dict.fromkeys(columns) if c in past.columns)


def past_of(work: Path, job: Preparation, part: int, counter: Counter, rows: pl.DataFrame) -> pl.DataFrame:
    """What a counter counts of one range: its rows, or the events of a domain."""
    if counter.over is None:
        return rows
    paths = [work / "users" / f"{p:05}" / f"over-{counter.over}-{part}.arrow" for p in range(job.parts)]
    events = pl.concat([read_frame(path) for path in paths], how="vertical_relaxed")
    return item_columns(work, job.spec, events, domain=counter.over)


def write_arriving(
    out: Path, job: Preparation, part: int, name: str, past: pl.DataFrame, found: Arrivals
) -> None:
    """Hand the rows of a counter's past on that arrive in a later range, to each of these."""
    for later in range(part + 1, job.parts):
        own = (found.count == later) | (found.value == later) | (found.every == later)
        flags = {COUNTED: found.count < later, AVERAGED: found.every < later}
        arriving = past.with_columns(pl.Series(n, flag) for n, flag in flags.items()).filter(pl.Series(own))
        write_frame(out / f"arriving-{name}-{later}.arrow", arriving)


def with_arriving(folder: Path, part: int, name: str, past: pl.DataFrame) -> pl.DataFrame:
    """The past of a counter in one range, with the rows of earlier ranges that arrive in it.

    Args:
        folder: of the tasks that handed them on.
        part: the range.
        name: of the counter.
        past: of `past_of`.
    """
    paths = [folder / f"{p:05}" / f"arriving-{name}-{part}.arrow" for p in range(part)]
    past = past.with_columns(pl.lit(False).alias(COUNTED), pl.lit(False).alias(AVERAGED))
    arriving = [read_frame(path) for path in paths]
    if not arriving:
        return past
    return pl.concat([past.select(arriving[0].columns), *arriving], how="vertical_relaxed")


def _clocks(counter: Counter) -> tuple[list[str], list[str]]:
    """The columns of the clocks at which the key, and the value, are known, if they are there."""
    value = counter.value or (LABEL if counter.over is None else OUTCOME)
    values = [known_column(value)] if needs_values(counter) else []
    return [known_column(column) for column in counter.event_by], values
