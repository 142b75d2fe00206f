"""What Polars asks of a reader of its own: some columns, of the first rows, where a condition holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl


def served(
    frames: Iterable[pl.DataFrame], columns: list[str] | None, predicate: pl.Expr | None, rows: int | None
) -> Iterator[pl.DataFrame]:
    """The part of the frames of a source that Polars asks for; no more frames are made than that takes.

    Args:
        frames: of the source, in order.
        columns: in this order; None for all.
        predicate: which rows.
        rows: how many rows to look at, before the predicate; None for all.

    Example:
        >>> frames = (pl.DataFrame({"a": [i, i + 1], "b": [0, 0]}) for i in range(0, 6, 2))
        >>> [f["a"].to_list() for f in served(frames, ["a"], pl.col("a") > 0, 3)]
        [[1], [2]]
    """
    left = rows
    for frame in frames:
        part = frame if left is None else frame.head(left)
        left = None if left is None else left - part.height
        part = part if columns is None else part.select(columns)
        yield part if predicate is None else part.filter(predicate)
        if left is not None and left <= 0:
            return
