"""Which rows of two vocabularies are the same value.

old   0 missing   1 unknown   2 a   3 b   4 c           what is new to the old one has its unknown row:
new   0 missing   1 unknown   2 c   3 a   4 d           old rows of the new table   0 1 4 2 1
                                                        new rows of the old one     0 1 3 −1 2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.dataset import Dataset
from features.encode.encoding import TableEncoding, values_digest
from features.encode.fitted import Fitted
from features.encode.tables import Vocabulary
from features.errors import DataError


@dataclass(frozen=True)
class RowMap:
    """The rows of one table, numbered by an old vocabulary and by a new one.

    Example:
        >>> import polars as pl
        >>> counts = pl.Series([1, 1, 1])
        >>> old = Vocabulary(1, pl.Series(["a", "b", "c"]), counts)
        >>> rows = RowMap(old, Vocabulary(1, pl.Series(["c", "a", "d"]), counts))
        >>> rows.old_rows.tolist(), rows.new_rows.tolist(), rows.forgotten
        ([0, 1, 4, 2, 1], [0, 1, 3, -1, 2], 1)
    """

    old: Vocabulary
    new: Vocabulary
    grown: bool = False  # the first values of the new one are those of the old: they need no search

    @cached_property
    def old_rows(self) -> np.ndarray:
        """For each row of the new table, int32 (new rows,), the row that the old one looks its value up in.

        Rows of missing and unknown values are themselves. It is what the old vocabulary would have encoded,
        if `why_not_exact` says nothing.
        """
        first = np.arange(1 + self.new.oov_rows, dtype=np.int32)
        return np.concatenate([first, self._found])

    @cached_property
    def new_rows(self) -> np.ndarray:
        """For each row of the old table, int64 (old rows,), the row of its value in the new; −1 without one.

        Rows of unknown values go on only where both tables have as many: another number would mix the values
        that share them.
        """
        rows = np.full(self.old.info.rows, -1, dtype=np.int64)
        rows[0] = 0
        if self.old.oov_rows == self.new.oov_rows:
            rows[: 1 + self.old.oov_rows] = np.arange(1 + self.old.oov_rows)
        known = self._found > self.old.oov_rows
        rows[self._found[known]] = 1 + self.new.oov_rows + np.flatnonzero(known)
        return rows

    @property
    def forgotten(self) -> int:
        """How many values of the old vocabulary the new one lacks."""
        return int((self.new_rows[1 + self.old.oov_rows :] < 0).sum())

    def why_not_exact(self) -> str | None:
        """Why rows of the new table do not tell what the old vocabulary would have made of their values."""
        if self.old.oov_rows != self.new.oov_rows:
            return f"it has {self.new.oov_rows} rows for unknown values instead of {self.old.oov_rows}"
        if self.old.values.dtype != self.new.values.dtype and self.old.oov_rows > 1:
            return f"its values are {self.new.values.dtype} instead of {self.old.values.dtype}"
        if self.forgotten:
            return f"it lacks {self.forgotten:,} of the {len(self.old.values):,} values that the run knows"
        return None

    @cached_property
    def _found(self) -> np.ndarray:
        """The old rows of the new vocabulary's values, int32."""
        kept = len(self.old.values) if self.grown else 0
        same = np.arange(self.old.info.rows - kept, self.old.info.rows, dtype=np.int32)
        return np.concatenate([same, self.old.look_up(self.new.values[kept:], what="a vocabulary")])


def map_rows(dataset: Dataset, table: str, known: TableEncoding, earlier: Callable[[], Dataset]) -> RowMap:
    """The rows of a vocabulary of a data set, against those of an earlier one.

    Args:
        dataset: the new one.
        table: name of the table, a vocabulary in both.
        known: the earlier table. If the new one has only grown, its first values are the earlier ones.
        earlier: opens the earlier data set; called only where the table was renumbered.

    Raises:
        DataError: the earlier data set holds another vocabulary.
    """
    new = Fitted(dataset).table(table)
    assert isinstance(new, Vocabulary)
    old = _first_values(new, known)
    grown = old is not None
    if old is None:
        trained_on = earlier()
        found = Fitted(trained_on).table(table) if table in trained_on.manifest.tables else None
        if not isinstance(found, Vocabulary) or values_digest(found.values) != known.sha256:
            raise DataError(
                f"table {table!r} of {trained_on.root} must hold the values that the run was trained with, "
                "but holds others; name the data set of that run"
            )
        old = found
    return RowMap(old, new, grown)


def _first_values(table: Vocabulary, known: TableEncoding) -> Vocabulary | None:
    """The vocabulary that a table has grown from, if its first values are those of `known`; else None."""
    if len(table.values) < known.values:
        return None
    values = table.values.head(known.values)
    if values_digest(values) != known.sha256:
        return None
    return Vocabulary(known.oov_rows, values, table.counts.head(known.values))
