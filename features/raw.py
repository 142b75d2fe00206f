"""Raw columns of a few requests or candidates → features, encoded as `ctr prepare` encoded the log.

Columns are named as in the spec: `price`, `user.age`, `count.item.rate`; their values are those of the log,
None for missing ones. What was fitted is read from the data set, and the code that applies it is prepare's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from features.dataset import Column, Dataset, IdValues
from features.encode.crosses import cross_of
from features.encode.fitted import Fitted
from features.encode.raw_values import WrongValue, numbers, series, vectors
from features.encode.scale import are_known
from features.encode.tables import Bucketizer, FittedTable, Vocabulary
from features.encode.transform import calendar_ids
from features.encode.values import values_of
from features.errors import DataError
from features.names import under
from features.read.columns import computed_from, feature_columns, is_of_request, origin
from features.spec import CalendarFeature, DenseFeature, IdFeature, load_spec

RawLevel = Literal["request", "candidate"]
Raw = Mapping[str, Sequence[Any]]  # column → a value per owner


@dataclass(frozen=True)
class EncodedFeatures:
    """Features by name, a value per owner."""

    ids: dict[str, IdValues] = field(default_factory=dict)
    dense: dict[str, np.ndarray] = field(default_factory=dict)  # float32 (owners, dim)


class RawEncoder:
    """Encodes raw columns with what the preparation of a data set fitted.

    Args:
        dataset: a prepared one; features that its view leaves out are not encoded.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.manifest = dataset.manifest
        self.spec = load_spec(under(dataset.root, "spec.yaml"))
        self.fitted = Fitted(dataset)
        self._reads = {c.name: self._columns(c) for c in self.manifest.features}
        self._made_of = {name: self._sources(reads) for name, reads in self._reads.items()}

    def encode(
        self,
        level: RawLevel,
        given: Raw,
        *,
        beside: Raw | None = None,
        without: Collection[str] = (),
        only: Collection[str] | None = None,
        texts: bool = False,
        what: str,
    ) -> EncodedFeatures:
        """The features of one level that read any of the given columns, or have all of theirs beside these.

        Args:
            level: of the owners.
            given: all columns of each of these features.
            beside: further columns that they may read.
            without: features that are not made of what is `beside` alone.
            only: these features alone.
            texts: IDs may be texts where the log has numbers: new ones, which no number can be.
            what: names `given` in messages.

        Raises:
            DataError: a column that nothing reads, a feature of which a column is missing, or a value that
                its column cannot hold.
        """
        self._refuse_unread(level, given, what)
        every, result = {**(beside or {}), **given}, EncodedFeatures()
        for column in self.manifest.features:
            reads = self._reads[column.name].keys()
            if column.level != level or (only is not None and column.name not in only):
                continue
            if not reads.isdisjoint(given):
                self._refuse_incomplete(column, every, what)
            elif column.name in without or reads.isdisjoint(every) or self._missing(column, every):
                continue
            if column.kind == "dense":
                result.dense[column.name] = self._dense(column, every, what)
            else:
                result.ids[column.name] = self._ids(column, every, what, texts=texts)
        return result

    def refuse_outdated(self, level: RawLevel, given: Collection[str], *, done: Collection[str]) -> None:
        """No feature that is taken from the data set may be made of given columns.

        Be it directly or through a computed column: the counts of one `device` are not those of another one.

        Args:
            level: of the owners.
            given: columns.
            done: features that were made of them, or are given themselves.

        Raises:
            DataError: one that would tell of another value than the one that is given.
        """
        for column in self.manifest.features:
            own = sorted(self._made_of[column.name] & set(given))
            if own and column.level == level and column.name not in done:
                missing = self._missing(column, given)
                raise DataError(
                    f"feature {column.name!r} of the {level} is made of {own}, given here, and must not stay "
                    f"as the data set has it: give its columns {missing} too, or drop {own}"
                )

    def readable(self, level: RawLevel) -> list[str]:
        """The columns that features read: of a request all that its candidates share, and they theirs."""
        mine = [c for c in self.manifest.features if level == "request" or c.level == level]
        names = {name for column in mine for name in self._reads[column.name]}
        return sorted(n for n in names if self._is_of_request(n) == (level == "request"))

    def calendar(self, time: int) -> dict[str, int]:
        """The IDs of a request's calendar features at a time in seconds."""
        features = {c.name: self.spec.features[c.name] for c in self.manifest.features}
        times = np.array([time], dtype=np.int64)
        return {
            name: int(calendar_ids(times, feature)[0])
            for name, feature in features.items()
            if isinstance(feature, CalendarFeature)
        }

    def columns_of(self, features: Collection[str]) -> list[str]:
        """The columns that some features read; of a vector the whole, not its numbers."""
        reads = {name: scalars for column in features for name, scalars in self._reads[column].items()}
        numbers = {number for name, scalars in reads.items() for number in scalars if scalars != [name]}
        return sorted(reads.keys() - numbers)

    def _columns(self, column: Column) -> dict[str, list[str]]:
        """What a feature may be given as: column → the scalar columns that it brings."""
        if column.kind != "dense":
            read = feature_columns(self.spec.features[column.name])
            return {name: [name] for c in read for name in self._crossed(c) or [c]}
        scalars = self.fitted.dense(column).scalers
        found = {name: [name] for name in scalars}
        for name in scalars:
            vector, _, index = name.rpartition(".")
            if index.isdecimal():  # of a column whose values are vectors
                found.setdefault(vector, []).append(name)
        return found

    def _crossed(self, column: str) -> list[str]:
        """The columns of a cross; none of other columns."""
        return computed_from(self.spec, column) if origin(column)[0] == "cross" else []

    def _sources(self, columns: Iterable[str]) -> set[str]:
        """Columns, and those that they are made of, however far back."""
        found: set[str] = set()
        left = list(columns)
        while left:
            if (column := left.pop()) not in found:
                found.add(column)
                left += computed_from(self.spec, column)
        return found

    def _is_of_request(self, column: str) -> bool:
        """Whether a column, or the vector of which it is a number, is the same for the whole request."""
        vector, _, index = column.rpartition(".")
        own = index.isdecimal() and is_of_request(self.spec, vector)
        return own or is_of_request(self.spec, column)

    def _refuse_unread(self, level: RawLevel, given: Collection[str], what: str) -> None:
        """Names that no feature of the level reads, with what is meant by those that are known otherwise."""
        unread = sorted(set(given) - set(known := self.readable(level)))
        shared = [] if level == "request" else sorted(set(unread) & set(self.readable("request")))
        if shared:
            raise DataError(
                f"{what} must not name {shared}, which belong to the request: give them once, as "
                "request_columns"
            )
        if crosses := [c for c in unread if origin(c)[1] in self.spec.crosses and self._crossed(c)]:
            own = self._crossed(crosses[0])
            raise DataError(f"{what} must give a cross by its columns, {own}, got {crosses[0]!r}")
        if unread:
            raise DataError(f"{what} must name columns of {known}, got {unread}")

    def completed_by(
        self, level: RawLevel, more: Collection[str], *, given: Collection[str], without: Collection[str]
    ) -> list[str]:
        """The columns among `more` that features of a level read which have all of theirs with them.

        Features in `without` do not count.
        """
        every = [c for c in self.manifest.features if c.level == level and c.name not in without]
        mine = [c for c in every if not self._missing(c, {*given, *more})]
        return sorted({name for column in mine for name in self._reads[column.name]} & set(more))

    def _missing(self, column: Column, given: Collection[str]) -> list[str]:
        """The scalar columns that a feature lacks."""
        reads = self._reads[column.name]
        there = {scalar for name in reads.keys() & set(given) for scalar in reads[name]}
        return sorted({scalar for scalars in reads.values() for scalar in scalars} - there)

    def _refuse_incomplete(self, column: Column, given: Raw, what: str) -> None:
        if missing := self._missing(column, given):
            raise DataError(f"{what} must give all columns of feature {column.name!r}, {missing} are missing")

    def _dense(self, column: Column, given: Raw, what: str) -> np.ndarray:
        found: dict[str, np.ndarray] = {}
        for name, scalars in self._reads[column.name].items():
            if name in given:
                if twice := sorted(found.keys() & set(scalars)):
                    raise DataError(f"{what} must give {twice} once, either so or in {name!r}, got both")
                with _naming(f"{what}.{name}"):
                    if scalars == [name]:
                        found[name] = numbers(given[name])
                    else:
                        found |= zip(scalars, vectors(given[name], len(scalars)).T, strict=True)
        self._refuse_missing(column, found, what)
        return self.fitted.dense(column).scale(found)

    def _refuse_missing(self, column: Column, found: Mapping[str, np.ndarray], what: str) -> None:
        feature = self.spec.features[column.name]
        if isinstance(feature, DenseFeature) and feature.missing == "error":
            for name, values in found.items():
                if not are_known(values).all():
                    raise DataError(
                        f"{what}.{name} must hold a finite number for each (the spec says missing: error), "
                        f"got {values[~are_known(values)][0]}"
                    )

    def _ids(self, column: Column, given: Raw, what: str, *, texts: bool) -> IdValues:
        feature = self.spec.features[column.name]
        assert isinstance(feature, IdFeature) and column.table is not None
        table, crossed = self.fitted.table(column.table), self._crossed(feature.column)
        raw = self._cross(feature.column, given, what, texts=texts) if crossed else given[feature.column]
        joined = feature.separator is not None and not any(isinstance(v, list) for v in raw)
        with _naming(f"{what}.{feature.column}"):
            dtype = "String" if joined else self._type(table, column)
            dtype = "String" if texts and any(isinstance(v, str) for v in raw) else dtype
            frame = {feature.column: series(raw, dtype, lists=column.kind == "ids" and not joined)}
        if feature.weights is not None:
            with _naming(f"{what}.{feature.weights}"):
                frame[feature.weights] = series(given[feature.weights], "Float64", lists=True)
        values = values_of(pl.DataFrame(frame), feature, what=what)
        ids = table.look_up(values.flat, what=f"{what}.{feature.column}").astype(np.int32)
        return IdValues(ids, values.offsets, values.weights)

    def _cross(self, cross: str, given: Raw, what: str, *, texts: bool) -> list[str | None]:
        """The categories of a cross, each of its columns read as what it is in the log."""
        parts, types = [], self.fitted.parts.get(origin(cross)[1], {})
        for column in self._crossed(cross):
            words = texts and any(isinstance(v, str) for v in given[column])
            with _naming(f"{what}.{column}"):
                dtype = "String" if words else types.get(column, "String")
                parts.append(series(given[column], dtype, lists=False))
        return cross_of(parts).to_list()

    def _type(self, table: FittedTable, column: Column) -> str | None:
        if isinstance(table, Bucketizer):
            return "Float64"
        if isinstance(table, Vocabulary):
            return "Int64" if table.values.dtype == pl.Int64 else "String"
        return self.fitted.hashed_type(str(column.table), column.name)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which column holds a wrong value."""
    try:
        yield
    except WrongValue as error:
        raise DataError(f"{what} {error}") from None
