"""Features that a question gives: encoded ones, and raw columns, which are encoded as `ctr prepare` does.

C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.question import Question
from ctr.serving.values import laid_over
from features.dataset import Column, Dataset, IdValues, Manifest
from features.errors import DataError

if TYPE_CHECKING:
    from features.raw import Level, Raw, RawEncoder

_CALENDAR = "calendar."  # the tables of features that follow from the time


class GivenFeatures:
    """What questions say about features, as columns."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.manifest = dataset, dataset.manifest

    def of_request(self, question: Question) -> Columns:
        """The given features of the request, and those that follow from its time, if it has one.

        Raises:
            DataError: an unknown name, a value that does not fit, or a feature that is given twice.
        """
        encoded = {name: [value] for name, value in question.request_features.items()}
        raw = {name: [value] for name, value in question.request_columns.items()}
        given = self._given("request", encoded, raw, {}, of="request_")
        return laid_over(self._calendar(question.time), given)

    def of_candidates(self, question: Question) -> Columns:
        """The given features of the C candidates.

        Raises:
            DataError: as of `of_request`.
        """
        shared = {name: [value] * question.candidates for name, value in question.request_columns.items()}
        return self._given("candidate", question.features, question.columns, shared)

    def _given(
        self, level: Level, encoded: Mapping[str, Sequence[Any]], raw: Raw, beside: Raw, *, of: str = ""
    ) -> Columns:
        given = given_columns(self.manifest, level, encoded, what=f"{of}features")
        if not raw:
            return given
        found = self.encoder.encode(level, raw, beside=beside, what=f"{of}columns")
        if twice := sorted((found.ids.keys() | found.dense.keys()) & encoded.keys()):
            raise DataError(
                f"{of}columns and {of}features must give different features, both give {twice}; drop one"
            )
        return laid_over(Columns({}, found.ids, found.dense), given)

    def _calendar(self, time: int | None) -> Columns:
        follow = [c for c in self.manifest.features if c.table is not None and c.table.startswith(_CALENDAR)]
        if time is None or not follow:
            return Columns({}, {}, {})
        ids = self.encoder.calendar(time)
        return Columns({}, {name: IdValues(np.array([row], np.int32)) for name, row in ids.items()}, {})

    @cached_property
    def encoder(self) -> RawEncoder:
        """Of the raw columns."""
        from features.raw import RawEncoder  # loads Polars

        return RawEncoder(self.dataset)


def given_columns(
    manifest: Manifest, level: str, given: Mapping[str, Sequence[Any]], *, what: str
) -> Columns:
    """The columns of given values, one per owner: a row of a table, several rows, or the numbers of a vector.

    Args:
        manifest: of the data set.
        level: of the owners, request or candidate.
        given: name → values.
        what: names them in messages.

    Raises:
        DataError: an unknown name, or values that its kind of feature cannot have.
    """
    known = {c.name: c for c in manifest.features if c.level == level}
    if unknown := sorted(set(given) - set(known)):
        raise DataError(f"{what} must name features of {sorted(known)}, got {unknown}")
    ids, dense = {}, {}
    for name, values in given.items():
        column = known[name]
        try:
            if column.kind == "dense":
                dense[name] = _numbers(column, values)
            else:
                ids[name] = _ids(column, values, rows=manifest.tables[str(column.table)].rows)
        except (ValueError, TypeError, OverflowError):
            raise DataError(
                f"{what}.{name} must hold for each {_expected(column)}, got {list(values)[:3]!r:.120}"
            ) from None
    return Columns({}, ids, dense)


def _expected(column: Column) -> str:
    if column.kind == "dense":
        return f"{column.dim} finite numbers"
    one = f"a row of table {column.table!r}"
    return one if column.kind == "id" else f"a list of rows of table {column.table!r}"


def _numbers(column: Column, values: Sequence[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        matrix = np.array([v if isinstance(v, list) else [v] for v in values], dtype=np.float32)
    if matrix.shape != (len(values), column.dim) or not np.isfinite(matrix).all():
        raise ValueError
    return matrix


def _ids(column: Column, values: Sequence[Any], *, rows: int) -> IdValues:
    """A weighted list is given without weights: all of its values count 1."""
    lists = [v if isinstance(v, list) else [v] for v in values]
    flat = [value for part in lists for value in part]
    if not all(isinstance(value, int) and 0 <= value < rows for value in flat):
        raise ValueError
    array = np.array(flat, dtype=np.int32)
    if column.kind == "id":
        if any(isinstance(v, list) for v in values):
            raise ValueError
        return IdValues(array)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in lists])]).astype(np.int64)
    weights = np.ones(len(array), np.float32) if column.weighted else None
    return IdValues(array, offsets, weights)


def fingerprint(columns: Columns) -> str:
    """Tells the features of an owner from all others."""
    values = {name: [v.values, v.weights] for name, v in columns.ids.items()}
    values |= {name: [v] for name, v in columns.dense.items()}
    return repr([(name, [a.tolist() for a in values[name] if a is not None]) for name in sorted(values)])
