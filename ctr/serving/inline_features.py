"""Features that come inside a score request: encoded values, or raw columns, encoded as by `ctr prepare`.

C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.score_request import ScoreRequest
from ctr.serving.split_columns import overlay
from features.dataset import Column, Dataset, IdValues, Manifest
from features.errors import DataError

if TYPE_CHECKING:
    from features.raw import Raw, RawEncoder, RawLevel

_CALENDAR = "calendar."  # the tables of features that follow from the time


class InlineFeatures:
    """The features inside score requests, as columns."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.manifest = dataset, dataset.manifest

    def of_request(self, score_request: ScoreRequest) -> Columns:
        """The features that the score request holds for the request, and the calendar features of its time.

        Raises:
            DataError: an unknown name, a value that does not fit, or a feature given twice.
        """
        encoded = {name: [value] for name, value in score_request.request_features.items()}
        raw = {name: [value] for name, value in score_request.request_columns.items()}
        inline = self._columns("request", encoded, raw, {}, prefix="request_")
        return overlay(self._calendar(score_request.time), inline)

    def of_candidates(self, score_request: ScoreRequest) -> Columns:
        """The features that the score request holds for its C candidates.

        Raises:
            DataError: as of `of_request`.
        """
        shared = {
            name: [value] * score_request.candidates for name, value in score_request.request_columns.items()
        }
        return self._columns("candidate", score_request.features, score_request.columns, shared)

    def _columns(
        self,
        level: RawLevel,
        encoded: Mapping[str, Sequence[Any]],
        raw: Raw,
        beside: Raw,
        *,
        prefix: str = "",
    ) -> Columns:
        inline = inline_columns(self.manifest, level, encoded, what=f"{prefix}features")
        if not raw:
            return inline
        found = self.encoder.encode(level, raw, beside=beside, what=f"{prefix}columns")
        if twice := sorted((found.ids.keys() | found.dense.keys()) & encoded.keys()):
            raise DataError(
                f"{prefix}columns and {prefix}features must hold different features, both hold {twice}; "
                "drop one"
            )
        return overlay(Columns({}, found.ids, found.dense), inline)

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


def inline_columns(
    manifest: Manifest, level: str, values: Mapping[str, Sequence[Any]], *, what: str
) -> Columns:
    """Encoded values as columns; an owner has a table row, a list of table rows, or the numbers of a vector.

    Args:
        manifest: of the data set.
        level: of the owners, request or candidate.
        values: feature → a value for each owner.
        what: names them in messages.

    Raises:
        DataError: an unknown name, or values that its kind of feature cannot have.
    """
    known = {c.name: c for c in manifest.features if c.level == level}
    if unknown := sorted(set(values) - set(known)):
        raise DataError(f"{what} must name features of {sorted(known)}, got {unknown}")
    ids, dense = {}, {}
    for name, own in values.items():
        column = known[name]
        try:
            if column.kind == "dense":
                dense[name] = _numbers(column, own)
            else:
                ids[name] = _ids(column, own, rows=manifest.tables[str(column.table)].rows)
        except (ValueError, TypeError, OverflowError):
            raise DataError(
                f"{what}.{name} must hold for each {_expected(column)}, got {list(own)[:3]!r:.120}"
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
    """IDs of the owners; a weighted list comes without weights here, each of its values counts 1."""
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
    """A text that is equal for two owners exactly if their features are."""
    values = {name: [v.values, v.weights] for name, v in columns.ids.items()}
    values |= {name: [v] for name, v in columns.dense.items()}
    return repr([(name, [a.tolist() for a in values[name] if a is not None]) for name in sorted(values)])
