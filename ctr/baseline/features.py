"""The features of a split as a matrix of numbers, a row per impression.

N rows; W dense values of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctr.predictions.weights import metric_weight
from features.dataset import Column, Dataset, SplitData, dense_values, id_values
from features.errors import DataError

MAX_CATEGORIES = 1_000
MIN_ROWS = 10
REST = 0


def dense_matrix(dataset: Dataset, data: SplitData) -> np.ndarray:
    """All dense features of a split, float32 (N, W); those of a request are repeated for its candidates.

    Raises:
        DataError: the data set has none.
    """
    dense = [c for c in dataset.manifest.features if c.kind == "dense"]
    if not dense:
        raise DataError(
            f"a baseline needs dense features; data set {dataset.manifest.name!r} has none: add counters"
        )
    return np.concatenate([_per_row(data, c, dense_values(_table(data, c), c)) for c in dense], axis=1)


def labels(data: SplitData) -> np.ndarray:
    """(N,) of the first task, 0 and 1."""
    return np.asarray(data.impressions["label"].to_numpy())


def weights(dataset: Dataset, data: SplitData) -> np.ndarray | None:
    """How much each row counts, float64 (N,), as in the metrics; None where each counts once."""
    return metric_weight(dataset.manifest, dataset.manifest.tasks[0].name, data.impressions)


@dataclass(frozen=True)
class Categories:
    """ID features of one value, as categories that were counted in the training part.

    A feature keeps the `MAX_CATEGORIES` IDs with the most training rows, of equally many the smaller ID, and
    of these only those with at least `MIN_ROWS` rows. All others, among them every value that came after the
    training part, are one category, `REST`: so a model has learnt what a rare or new value means. A missing
    value (row 0 of each table) is missing. Features of several values are left out.

    Args:
        columns: the features.
        category_of: of each feature: ID → category, float32 (rows of its table,), NaN for missing.
    """

    columns: list[Column]
    category_of: list[np.ndarray]

    @classmethod
    def counted(cls, dataset: Dataset, train: SplitData) -> Categories:
        """The categories of a data set's training part."""
        columns = [c for c in dataset.manifest.features if c.kind == "id" and c.table is not None]
        return cls(columns, [_categories(dataset, train, column) for column in columns])

    def matrix(self, data: SplitData) -> np.ndarray:
        """float32 (N, features)."""
        found = [of[_ids(data, c)] for c, of in zip(self.columns, self.category_of, strict=True)]
        rows = data.info.impressions
        return np.stack(found, axis=1) if found else np.empty((rows, 0), dtype=np.float32)


def _categories(dataset: Dataset, train: SplitData, column: Column) -> np.ndarray:
    rows = dataset.manifest.tables[str(column.table)].rows
    unknown = dataset.manifest.tables[str(column.table)].oov_rows
    counts = np.bincount(_ids(train, column), minlength=rows)
    counts[: 1 + unknown] = 0  # missing, and the rows of unknown values
    often = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    often = often[counts[often] >= MIN_ROWS]
    found = np.full(rows, REST, dtype=np.float32)
    found[often] = np.arange(1, len(often) + 1)
    found[0] = np.nan
    return found


def _ids(data: SplitData, column: Column) -> np.ndarray:
    return _per_row(data, column, id_values(_table(data, column), column).values)


def _table(data: SplitData, column: Column) -> pa.Table:
    return data.requests if column.level == "request" else data.impressions


def _per_row(data: SplitData, column: Column, values: np.ndarray) -> np.ndarray:
    """Values of requests repeated for their candidates; those of candidates as they are."""
    if column.level != "request":
        return values
    repeated: np.ndarray = np.repeat(values, np.diff(data.row_offsets), axis=0)
    return repeated
