"""A vocabulary from one day to the next: its values keep their rows, and new ones are appended.

counted      how often a value was shown in the training parts of all days, or, if it never was, how often
             it was in an event of them
enters       a value that is counted `min_count` times, the most frequent first, as long as there is room
             (`max_size`)
retires      at `max_size`, with `retire`: values that the day's training part lacks, the rarest first, give
             their rows to values of it that wait
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from features.encode.tables import Vocabulary, count_values
from features.errors import DataError
from features.read.ids import common_keys
from features.spec import IdTable
from features.store.manifest import Grown

_COUNTS = ("shown", "happened")


@dataclass(frozen=True)
class Counted:
    """How often each value was counted: value (an ID, sorted), shown and happened (int64)."""

    frame: pl.DataFrame

    @classmethod
    def of(cls, shown: list[pl.Series], happened: list[pl.Series], *, what: str) -> Counted:
        """Count the values of a day's training part."""
        parts = [
            count_values(v, what=what).rename({"count": kind})
            for kind, values in zip(_COUNTS, (shown, happened), strict=True)
            for v in values
        ]
        return cls(_added(parts))

    def plus(self, other: Counted) -> Counted:
        """The counts of both."""
        return Counted(_added([self.frame, other.frame]))

    def without(self, values: pl.Series) -> Counted:
        """Without some values, which have to be counted anew."""
        return Counted(self.frame.filter(~pl.col("value").is_in(values.implode())))

    @property
    def counts(self) -> pl.DataFrame:
        """value, count: shown where it ever was, else in events."""
        count = pl.when(pl.col("shown") > 0).then("shown").otherwise("happened")
        return self.frame.select("value", count.alias("count"))


def grow(
    old: Vocabulary, table: IdTable, before: Counted, day: Counted, *, what: str
) -> tuple[Vocabulary, Counted, Grown]:
    """The vocabulary of a new day, all counts, and how it has grown.

    Args:
        old: of the day before.
        table: how its values are chosen.
        before: the counts of all days before.
        day: those of the new day.
        what: the table, for the error message.

    Raises:
        DataError: numbers have become texts, so that old values would be other ones.

    Example:
        >>> seen = lambda *values: Counted.of([pl.Series(values)], [], what="t")
        >>> old = Vocabulary(1, pl.Series("value", ["b"]), pl.Series("count", [2]))
        >>> grown, _, how = grow(old, IdTable(min_count=2), seen("b", "b", "a"), seen("a", "c"), what="t")
        >>> grown.values.to_list(), grown.counts.to_list(), how.new
        (['b', 'a'], [2, 2], 1)
    """
    _check_type(old, day, what)
    total = before.plus(day)
    known = old.values.cast(total.frame["value"].dtype)
    waiting = total.counts.filter(pl.col("count") >= table.min_count, ~pl.col("value").is_in(known.implode()))
    waiting = waiting.sort("count", "value", descending=[True, False])
    room = waiting.height if table.max_size is None else max(table.max_size - len(known), 0)
    entering, waiting = waiting.head(room), waiting[room:]
    asking = waiting.filter(pl.col("value").is_in(day.frame["value"].implode()))["value"]
    retired = _unseen(known, total, day).head(len(asking)) if table.retire else known.clear()
    values = pl.concat([_with_rows(known, retired, asking), entering["value"]]).alias("value")
    total = total.without(retired)
    counts = values.to_frame().join(total.counts, on="value", how="left", maintain_order="left")["count"]
    grown = Grown(
        new=entering.height + len(retired), retired=len(retired), full=waiting.height - len(retired)
    )
    return Vocabulary(old.oov_rows, values, counts.fill_null(0)), total, grown


def _check_type(old: Vocabulary, day: Counted, what: str) -> None:
    if len(old.values) and day.frame.height and old.values.dtype != day.frame["value"].dtype:
        raise DataError(
            f"{what}: its values must be {old.values.dtype} as in the data set before, the new day has "
            f"{day.frame['value'].dtype}; correct the column"
        )


def _unseen(known: pl.Series, total: Counted, day: Counted) -> pl.Series:
    """Old values that the day lacks, the rarest first, then by row."""
    found = known.to_frame("value").join(total.counts, on="value", how="left", maintain_order="left")
    unseen = found.filter(~pl.col("value").is_in(day.frame["value"].implode()))
    return unseen.sort("count", maintain_order=True)["value"]


def _with_rows(known: pl.Series, retired: pl.Series, new: pl.Series) -> pl.Series:
    """Old values, with the new ones in the rows of those that retire."""
    book = pl.DataFrame({"value": retired, "new": new.head(len(retired))})
    found = known.to_frame("value").join(book, on="value", how="left", maintain_order="left")
    return found.select(pl.coalesce("new", "value").alias("value")).to_series()


def _added(parts: list[pl.DataFrame]) -> pl.DataFrame:
    keys = common_keys([part["value"] for part in parts])
    parts = [p.with_columns(k.alias("value")) for p, k in zip(parts, keys, strict=True)]
    empty = pl.DataFrame(schema={"value": keys[0].dtype, **dict.fromkeys(_COUNTS, pl.Int64)})
    every = pl.concat([empty, *parts], how="diagonal")
    return every.group_by("value").agg(pl.col(c).fill_null(0).sum() for c in _COUNTS).sort("value")
