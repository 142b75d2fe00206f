"""A sample of a part's rows, with their labels and the values of any feature.

Letters: S sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from features.dataset import Column, IdValues, SplitData, dense_values, id_values

ROWS = 20_000  # of a part, at most: the error of an AUC is then about 0.005


@dataclass(frozen=True)
class Sample:
    """Rows spread evenly over a part.

    Attributes:
        split: the part.
        row: int64 (S,) position of each row, rising.
        request: int64 (S,) position of its request.
        label: bool (S,).
    """

    split: SplitData
    row: np.ndarray
    request: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, split: SplitData, *, rows: int = ROWS) -> Sample:
        """At most so many rows of a part."""
        size = split.impressions.num_rows
        row = np.unique(np.linspace(0, max(size - 1, 0), min(rows, size)).astype(np.int64))
        request = np.searchsorted(split.row_offsets, row, side="right") - 1
        label = split.impressions["label"].take(pa.array(row)).to_numpy() == 1
        return cls(split, row, request, label)

    def plain(self, name: str) -> np.ndarray:
        """A plain column of the requests, or of the impressions where those do not have it, (S,)."""
        if name in self.split.requests.column_names:
            return self.split.requests[name].take(pa.array(self.request)).to_numpy()
        return self.split.impressions[name].take(pa.array(self.row)).to_numpy()

    def ids(self, column: Column) -> IdValues:
        """The IDs of a feature."""
        return id_values(self._table(column), column)

    def dense(self, column: Column) -> np.ndarray:
        """float32 (S, dim) values of a dense feature."""
        return dense_values(self._table(column), column)

    def _table(self, column: Column) -> pa.Table:
        of_request = column.level == "request"
        table = self.split.requests if of_request else self.split.impressions
        names = [f"{kind}.{column.name}" for kind in ("id", "weight", "dense")]
        own = table.select([n for n in names if n in table.column_names])
        return own.take(pa.array(self.request if of_request else self.row))


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the ROC curve; ties count half. NaN with one label only.

    Example:
        >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
        0.875
    """
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return float("nan")
    rank = pl.Series(score).rank("average").to_numpy()
    return float((rank[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auc_error(label: np.ndarray) -> float:
    """Standard error of the AUC of scores that do not tell the label; infinite with one label only."""
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return float("inf")
    return float(np.sqrt((len(label) + 1) / (12 * positive * negative)))
