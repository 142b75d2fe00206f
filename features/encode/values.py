"""The values of an ID feature: one per owner, or a list per owner, cleaned and flattened.

owner       0      1     2          kept: values  a b c    offsets  0 2 2 3
raw        "a|b"  null  "|c"        (an empty part is no value)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from features.errors import DataError
from features.read.lists import TEXT, as_list, trimmed, warn_of_brackets
from features.spec import IdFeature


@dataclass(frozen=True)
class Values:
    """Values of consecutive owners; without offsets each owner has one."""

    flat: pl.Series
    offsets: np.ndarray | None = None  # int64 (owners + 1,)
    weights: np.ndarray | None = None  # float32, as flat

    def of(self, owners: np.ndarray) -> pl.Series:
        """The values of the owners whose mask (owners,) is true."""
        if self.offsets is None:
            return self.flat.filter(pl.Series(owners))
        return self.flat.filter(pl.Series(np.repeat(owners, np.diff(self.offsets))))

    def arrow(self, ids: np.ndarray) -> pa.Array:
        """The IDs of the values, or a list of them per owner."""
        return self._wrap(pa.array(ids))

    def arrow_weights(self) -> pa.Array:
        """The weights as a list per owner."""
        return self._wrap(pa.array(self.weights, type=pa.float32()))

    def _wrap(self, flat: pa.Array) -> pa.Array:
        return flat if self.offsets is None else pa.LargeListArray.from_arrays(pa.array(self.offsets), flat)


def values_of(frame: pl.DataFrame, feature: IdFeature, *, what: str) -> Values:
    """Take the values of a feature from a frame.

    Of a list, missing values and empty strings are dropped (with their weights); then the first
    `max_values` are kept.

    Args:
        frame: has the feature's columns.
        feature: which column, and how it holds several values.
        what: the feature, for the error message.

    Raises:
        DataError: a column of the wrong type, or weights that do not fit the list.
    """
    column = as_list(frame[feature.column])
    parts = feature.separator is not None and not isinstance(column.dtype, pl.List)
    if parts:
        if not isinstance(column.dtype, (*TEXT, pl.Null)):
            raise DataError(
                f"{what}: a separator needs strings, {feature.column!r} is {column.dtype}; delete it"
            )
        column = column.cast(pl.String).str.split(feature.separator or "")
    if not isinstance(column.dtype, pl.List):
        if feature.weights is not None:
            raise DataError(
                f"{what}: weights need a list, {feature.column!r} is {column.dtype}; delete weights"
            )
        return Values(column)
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = _flatten(column)
    if parts:
        flat = trimmed(flat)
        warn_of_brackets(flat, what=what)
    weights = _weights(frame, feature, lengths, what) if feature.weights is not None else None
    keep = flat.is_not_null() & ((flat != "").fill_null(False) if flat.dtype == pl.String else True)
    return _kept(flat, lengths, weights, keep.to_numpy(), feature.max_values)


def _flatten(column: pl.Series) -> pl.Series:
    return column.explode(empty_as_null=False, keep_nulls=False)


def _weights(frame: pl.DataFrame, feature: IdFeature, lengths: np.ndarray, what: str) -> np.ndarray:
    assert feature.weights is not None
    column = as_list(frame[feature.weights])
    if column.dtype == pl.List(pl.String):  # of JSON
        numbers = column.cast(pl.List(pl.Float64), strict=False)
        column = numbers if numbers.explode().null_count() == column.explode().null_count() else column
    if not (isinstance(column.dtype, pl.List) and column.dtype.inner.is_numeric()):
        raise DataError(f"{what}: weights must be lists of numbers, {feature.weights!r} is {column.dtype}")
    other = column.list.len().fill_null(0).to_numpy()
    if len(wrong := np.flatnonzero(other != lengths)):
        first = wrong[:5].tolist()
        raise DataError(
            f"{what}: {feature.weights!r} must be as long as {feature.column!r} in every row, "
            f"{len(wrong)} rows differ, in time order the first are {first}; repair the lists"
        )
    # A missing or infinite weight counts nothing: the value stays, without effect on the sum.
    weights = _flatten(column).cast(pl.Float32).fill_null(0.0).to_numpy()
    return np.where(np.isfinite(weights), weights, np.float32(0.0))


def _kept(
    flat: pl.Series, lengths: np.ndarray, weights: np.ndarray | None, keep: np.ndarray, limit: int | None
) -> Values:
    """Drop values, then all of an owner beyond the limit."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    if limit is not None:
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        start = np.repeat(kept_before[np.cumsum(lengths) - lengths], lengths)
        keep = keep & (kept_before[1:] - start <= limit)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner[keep], minlength=len(lengths)), out=offsets[1:])
    return Values(flat.filter(pl.Series(keep)), offsets, weights[keep] if weights is not None else None)
