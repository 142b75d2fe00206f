"""Features that come inside a score request: encoded values, or raw columns, encoded as by `ctr prepare`.

C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.counters import Asker, CounterFill
from ctr.serving.score_request import INT64, Key, ScoreRequest
from ctr.serving.split_columns import overlay
from features.dataset import Column, Dataset, IdValues, Manifest
from features.errors import DataError
from features.past.counter_files import CounterFile
from features.read.moment import SECOND
from features.spec import Impressions

if TYPE_CHECKING:
    from features.raw import Raw, RawEncoder, RawLevel

_CALENDAR = "calendar."  # the tables of features that follow from the time


class InlineFeatures:
    """The features inside score requests, as columns."""

    def __init__(self, dataset: Dataset, counters: CounterFile | None = None) -> None:
        self.dataset, self.manifest, self.counters = dataset, dataset.manifest, counters

    def of_request(self, score_request: ScoreRequest, asker: Asker | None) -> Columns:
        """The features that the score request holds for the request, and the calendar features of its time.

        Args:
            score_request: what was asked.
            asker: the user and the time; None where it names a prepared request.

        Raises:
            DataError: an unknown name, a value that does not fit, or a feature given twice.
        """
        encoded = {name: [value] for name, value in score_request.request_features.items()}
        raw: dict[str, Sequence[Any]] = {n: [value] for n, value in score_request.request_columns.items()}
        if asker is not None and self._fill is not None:
            raw |= self._fill.columns("request", raw, encoded=encoded, items=None, asker=asker, count=1)
        inline = self._columns("request", encoded, raw, {}, prefix="request_")
        return overlay(self._calendar(None if asker is None else asker.moment // SECOND), inline)

    def of_candidates(self, score_request: ScoreRequest, asker: Asker | None) -> Columns:
        """The features that the score request holds for its C candidates, and those of counters.

        Args:
            score_request: what was asked.
            asker: the user and the time; None where its candidates are prepared ones.

        Raises:
            DataError: as of `of_request`.
        """
        count, encoded = score_request.candidates, score_request.features
        raw: Raw = score_request.columns
        beside: dict[str, Sequence[Any]] = {n: [v] * count for n, v in score_request.request_columns.items()}
        if asker is not None and self._fill is not None:
            beside |= self._fill.columns(
                "candidate",
                {**beside, **raw},
                encoded=encoded,
                items=score_request.items,
                asker=asker,
                count=count,
            )
        return self._columns("candidate", encoded, raw, beside)

    def refuse_outdated(self, level: RawLevel, score_request: ScoreRequest, inline: Columns) -> None:
        """Where the other features are those of the data set, none of them may be made of a given column.

        Args:
            level: request or candidate.
            score_request: what was asked.
            inline: the features of that level that follow from it.

        Raises:
            DataError: a feature would tell of another value than the one that is given.
        """
        of_level: Sequence[str] = [*score_request.columns] if level == "candidate" else []
        if given := [*score_request.request_columns, *of_level]:
            self.encoder.refuse_outdated(level, given, done=inline.ids.keys() | inline.dense.keys())

    def of_new_user(self, score_request: ScoreRequest, features: Sequence[str]) -> Columns:
        """Features of the request of a user of whom nothing is known but the key: the others are missing."""
        return self._of_keys("request", self._roles.user, [score_request.user], features)

    def of_new_items(self, keys: Sequence[Key], features: Sequence[str]) -> Columns:
        """Features of items of which nothing is known but the key, as without a row in the item table."""
        return self._of_keys("candidate", self._roles.item, keys, features)

    def _of_keys(
        self, level: RawLevel, column: str, keys: Sequence[Key | None], features: Sequence[str]
    ) -> Columns:
        given: dict[str, Sequence[Any]] = {n: [None] * len(keys) for n in self.encoder.columns_of(features)}
        if column in given:
            # What no number of 64 bits is, is a text of its digits, as in a log.
            wide = (isinstance(k, int) and not -INT64 <= k < INT64 for k in keys)
            given[column] = [str(k) if w else k for k, w in zip(keys, wide, strict=True)]
        found = self.encoder.encode(level, given, only=features, texts=True, what="keys")
        return Columns({}, found.ids, found.dense)

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
        if not (raw or beside):
            return inline
        found = self.encoder.encode(level, raw, beside=beside, without=encoded, what=f"{prefix}columns")
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
    def _roles(self) -> Impressions:
        """Which columns hold the keys of users and items."""
        return self.encoder.spec.impressions

    @cached_property
    def _fill(self) -> CounterFill | None:
        return None if self.counters is None else CounterFill(self.counters, self.encoder)

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
