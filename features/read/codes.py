"""Raw keys as dense codes 0, 1, 2, … in the order of the values."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.read.ids import common_keys


def all_keys(columns: list[pl.Series]) -> pl.Series:
    """The sorted distinct values of key columns of one type, without missing ones."""
    return pl.concat([c.unique().rename("key") for c in columns]).unique().drop_nulls().sort()


def code_of(values: pl.Series, keys: pl.Series) -> np.ndarray:
    """The position of each value in `keys`, int64; −1 for missing and unknown ones."""
    values, keys = common_keys([values, keys])
    book = pl.DataFrame({"key": keys}).with_row_index("code").with_columns(pl.col("code").cast(pl.Int64))
    found = pl.DataFrame({"key": values}).join(book, on="key", how="left", maintain_order="left")
    return found["code"].fill_null(-1).to_numpy()
