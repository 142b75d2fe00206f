"""Values → integer IDs: vocabulary, hash, quantile and log buckets. Fitting and looking up are apart.

Row 0 of every table means missing. A vocabulary keeps rows 1 … oov_rows for unknown values, so that an
unknown value and a missing one differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import polars as pl

from features.past.keys import hashes
from features.read.ids import common_keys, key_values
from features.read.numbers import numeric
from features.spec import IdTable
from features.store.manifest import TableInfo


class FittedTable(Protocol):
    """An ID space that is ready to be looked up."""

    @property
    def info(self) -> TableInfo:
        """Rows and kind, for the manifest."""

    def look_up(self, values: pl.Series, *, what: str) -> np.ndarray:
        """int32 IDs of the values; 0 for missing ones."""

    def state(self) -> dict[str, Any]:
        """What was fitted, as plain data."""


@dataclass(frozen=True)
class Vocabulary:
    """IDs of the values seen often enough in training; the others share the unknown rows by their hash."""

    oov_rows: int
    values: pl.Series  # int64 or string, by count (descending), then value
    counts: pl.Series  # int64

    @property
    def info(self) -> TableInfo:
        """Rows and kind, for the manifest."""
        return TableInfo(
            rows=1 + self.oov_rows + len(self.values), encode="vocabulary", oov_rows=self.oov_rows
        )

    def look_up(self, values: pl.Series, *, what: str) -> np.ndarray:
        """int32 IDs of the values; 0 for missing ones."""
        keys = key_values(values, what=what)
        few = len(keys) < len(self.values) and keys.dtype == self.values.dtype
        keys, found = (keys, self._search(keys)) if few else self._join(keys)
        unknown = found.is_null() & keys.is_not_null()
        ids = found.fill_null(0).to_numpy().astype(np.int32)
        rows = unknown.arg_true().to_numpy()
        ids[rows] = 1 + (hashes(keys.gather(rows)) % self.oov_rows if self.oov_rows > 1 else 0)
        return ids

    def _join(self, keys: pl.Series) -> tuple[pl.Series, pl.Series]:
        """The keys in the type of both, and their IDs, null where unknown; reads every value of the table."""
        keys, known = common_keys([keys, self.values])
        book = pl.DataFrame({"key": known}).with_row_index("id", offset=1 + self.oov_rows)
        joined = pl.DataFrame({"key": keys}).join(book, on="key", how="left", maintain_order="left")
        return keys, joined["id"]

    def _search(self, keys: pl.Series) -> pl.Series:
        """The same IDs for a few keys, such as those of one request, without reading the whole table."""
        values, ids = self._in_order
        index = values.search_sorted(keys).clip(0, len(values) - 1)
        ids = ids.gather(index)
        return ids.zip_with((values.gather(index) == keys).fill_null(False), ids.clear(len(ids)))

    @cached_property
    def _in_order(self) -> tuple[pl.Series, pl.Series]:
        """The values in order, and the ID of each."""
        order = self.values.arg_sort()
        return self.values.gather(order), order + 1 + self.oov_rows

    def state(self) -> dict[str, Any]:
        """What was fitted, as plain data; the values have a file of their own."""
        return {"values": len(self.values)}


@dataclass(frozen=True)
class Hash:
    """IDs by hash: nothing is fitted, and any value has a row."""

    rows: int

    @property
    def info(self) -> TableInfo:
        """Rows and kind, for the manifest."""
        return TableInfo(rows=1 + self.rows, encode="hash", oov_rows=0)

    def look_up(self, values: pl.Series, *, what: str) -> np.ndarray:
        """int32 IDs of the values; 0 for missing ones."""
        keys = key_values(values, what=what)
        ids = np.zeros(len(keys), dtype=np.int32)
        known = keys.is_not_null().arg_true().to_numpy()
        ids[known] = 1 + hashes(keys.gather(known)) % self.rows
        return ids

    def state(self) -> dict[str, Any]:
        """Nothing is fitted."""
        return {}


@dataclass(frozen=True)
class Bucketizer:
    """IDs of the intervals between rising boundaries; a boundary belongs to the interval above it."""

    encode: str
    rows: int
    boundaries: np.ndarray  # float64, at most rows − 1

    @property
    def info(self) -> TableInfo:
        """Rows and kind, for the manifest."""
        return TableInfo(rows=1 + self.rows, encode=self.encode, oov_rows=0)

    def look_up(self, values: pl.Series, *, what: str) -> np.ndarray:
        """int32 IDs of the values; 0 for missing ones and NaN."""
        numbers = numeric(values, what=what)
        ids = 1 + np.searchsorted(self.boundaries, numbers, side="right")
        return np.where(np.isnan(numbers), 0, ids).astype(np.int32)

    def state(self) -> dict[str, Any]:
        """The boundaries."""
        return {"boundaries": self.boundaries.tolist()}


def fit_table(
    table: IdTable, shown: list[pl.Series], happened: list[pl.Series] | None = None, *, what: str
) -> FittedTable:
    """Fit an ID table on the values of all its uses in the training period.

    A vocabulary counts how often a value was *shown*; events count only for values that were never shown. A
    click is an event too: if it counted, a rare item would be known if clicked and unknown if not, and in
    training (nowhere else) "unknown" would tell the label.

    Args:
        table: how to encode.
        shown: the values of each use in an impression or a request, lists flattened.
        happened: the same of each use in an event.
        what: the table, for the error message.

    Example:
        >>> shown, happened = [pl.Series(["a", "b", "a"])], [pl.Series(["b", "c", "c"])]
        >>> table = fit_table(IdTable(min_count=2), shown, happened, what="table 't'")
        >>> table.look_up(pl.Series(["a", "b", "c", None]), what="t").tolist()
        [2, 1, 3, 0]
    """
    training = [*shown, *(happened or [])]
    if table.encode == "vocabulary":
        counts = [count_values(v, what=what) for v in training]
        return fit_vocabulary(table, counts[: len(shown)], counts[len(shown) :])
    assert table.rows is not None  # the spec demands it
    if table.encode == "hash":
        return Hash(table.rows)
    if table.encode == "log":
        return log_buckets(table.rows, table.log_base)
    numbers = np.concatenate([numeric(v, what=what) for v in training])
    numbers = numbers[np.isfinite(numbers)]
    inner = inner_levels(table.rows)
    return quantile_buckets(table.rows, np.quantile(numbers, inner) if len(numbers) else np.empty(0))


def inner_levels(rows: int) -> np.ndarray:
    """The levels of the quantiles that bound so many buckets."""
    return np.arange(1, rows) / rows


def quantile_buckets(rows: int, quantiles: np.ndarray) -> Bucketizer:
    """Buckets between the distinct ones of the quantiles at `inner_levels`."""
    return Bucketizer("quantile", rows, np.unique(quantiles))


def log_buckets(rows: int, base: float) -> Bucketizer:
    """Bucketizer floor(log_base(1 + x)), the last one open; what is below 0 falls into the first.

    Example:
        >>> log_buckets(4, 2.0).look_up(pl.Series([0, 1, 2, 3, 1000]), what="gap").tolist()
        [1, 2, 2, 3, 4]
    """
    with np.errstate(over="ignore"):
        # Boundaries, not logarithms: log(8) / log(2) may round to just below 3.
        boundaries = np.power(base, np.arange(1, rows, dtype=np.float64)) - 1
    return Bucketizer("log", rows, boundaries[np.isfinite(boundaries)])


def count_values(values: pl.Series, *, what: str) -> pl.DataFrame:
    """How often each value occurs: value (an ID), count (int64)."""
    keys = key_values(values, what=what).drop_nulls().rename("value")
    return keys.value_counts(name="count").with_columns(pl.col("count").cast(pl.Int64))


def fit_vocabulary(table: IdTable, shown: list[pl.DataFrame], happened: list[pl.DataFrame]) -> Vocabulary:
    """The vocabulary of values that were counted, as `fit_table` says; of any number of parts."""
    keys = common_keys([counts["value"] for counts in (*shown, *happened)])
    parts = [c.with_columns(k.alias("value")) for c, k in zip((*shown, *happened), keys, strict=True)]
    own, others = _added_up(parts[: len(shown)]), _added_up(parts[len(shown) :])
    if own is not None and others is not None:
        others = others.join(own, on="value", how="anti")
    counts = pl.concat([c for c in (own, others) if c is not None])
    kept = counts.filter(pl.col("count") >= table.min_count).sort("count", "value", descending=[True, False])
    kept = kept.head(table.max_size) if table.max_size is not None else kept
    return Vocabulary(table.oov_rows, kept["value"], kept["count"])


def _added_up(parts: list[pl.DataFrame]) -> pl.DataFrame | None:
    """How often each value occurs in all parts together; None without parts."""
    return pl.concat(parts).group_by("value").agg(pl.col("count").sum()) if parts else None
