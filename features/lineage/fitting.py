"""Features of a new day, encoded as those of the days before: with their scales; vocabularies grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from features.dataset import Column, Dataset, Manifest
from features.encode.crosses import PartTypes, common_types
from features.encode.encoded import Encoded
from features.encode.fitted import Fitted
from features.encode.scale import FittedDense, Scaler
from features.encode.stages import keep_parts
from features.encode.tables import FittedTable, Hash, Vocabulary
from features.encode.transform import (
    comparable,
    encode_other,
    encode_table,
    fit_range,
    fit_span,
    id_values_of,
    key_type,
    look_up_table,
    scale_dense,
    training_values,
)
from features.encode.uses import Use
from features.encode.values import Values
from features.errors import DataError
from features.lineage.vocabulary import Counted, grow
from features.read.clock import TIME
from features.spec import DenseFeature, IdTable
from features.store.manifest import Grown


class CountingFit:
    """Fits as a data set of its own, and keeps the counts of all values for the days that follow."""

    def __init__(self) -> None:
        self.counted: dict[str, Counted] = {}
        self.grew: dict[str, Grown] = {}

    def table(self, name: str, uses: list[Use], encoded: Encoded) -> None:
        """Encode all uses of an ID table."""
        table = encoded.spec.tables[name]
        if table.encode == "vocabulary":
            values = comparable([id_values_of(use) for use in uses], table, uses)
            self.counted[name] = Counted.of(*training_values(uses, values), what=f"table {name!r}")
        encode_table(name, uses, encoded)

    def other(self, use: Use, encoded: Encoded) -> None:
        """Encode a feature that has no table in the spec."""
        encode_other(use, encoded)

    def parts(self, found: PartTypes, encoded: Encoded) -> None:
        """Keep the types of the columns of crosses, found in this log."""
        keep_parts(found, encoded)


class InheritedFit(CountingFit):
    """Encodes with what the data set before was fitted to.

    Args:
        parent: the data set before.
        counted: table → how often its values were counted in all days before.
        end: the last second of the days before; later events are those of the day.
    """

    def __init__(self, parent: Dataset, counted: Mapping[str, Counted], end: int) -> None:
        super().__init__()
        self._manifest, self._fitted, self._before, self._end = (
            parent.manifest,
            Fitted(parent),
            counted,
            end,
        )

    def table(self, name: str, uses: list[Use], encoded: Encoded) -> None:
        """Encode all uses of an ID table."""
        table, what = encoded.spec.tables[name], f"table {name!r}"
        state = dict(self._fitted.plain["tables"][name])
        as_text = "String" in state.get("types", {}).values()
        values = comparable([id_values_of(use) for use in uses], table, uses, as_text=as_text)
        fitted = self._fitted.table(name)
        if isinstance(fitted, Vocabulary):
            fitted = self._grown(name, table, fitted, uses, values, state)
        elif isinstance(fitted, Hash):
            _check_types(state["types"], uses, values, what)
        encoded.fitted["tables"][name] = state
        look_up_table(name, fitted, uses, values, encoded)

    def other(self, use: Use, encoded: Encoded) -> None:
        """Encode a feature that has no table in the spec."""
        if not isinstance(use.feature, DenseFeature):
            encode_other(use, encoded)
            return
        column, states = _column(self._manifest, use), self._fitted.scalers(use.key)
        fitted = FittedDense({c: Scaler.of(states[c]) for c in column.fields[: len(states)]})
        if [*fitted.scalers] != use.feature.columns:
            raise DataError(
                f"{use.what} must have the columns of the data set before, {[*fitted.scalers]}, got "
                f"{use.feature.columns}; correct the raw tables"
            )
        encoded.fitted["scalers"][use.key] = self._fitted.plain["scalers"][use.key]
        scale_dense(use, fitted, encoded)

    def parts(self, found: PartTypes, encoded: Encoded) -> None:
        """Keep the types of the columns of crosses, of all days."""
        keep_parts(common_types([found, self._fitted.parts]), encoded)

    def _grown(
        self,
        name: str,
        table: IdTable,
        old: Vocabulary,
        uses: list[Use],
        values: list[Values],
        state: dict[str, object],
    ) -> FittedTable:
        """The vocabulary with the new values of the day; `state` gets what it was fitted on."""
        own = [replace(use, training=use.training & self._of_day(use)) for use in uses]
        day = Counted.of(*training_values(own, values), what=f"table {name!r}")
        found, self.counted[name], self.grew[f"table {name}"] = grow(
            old, table, self._before[name], day, what=f"table {name!r}"
        )
        spans = [fit_span(use) for use in own]
        state.update(fit=fit_range([*_span_of(state["fit"]), *spans]), values=len(found.values))
        return found

    def _of_day(self, use: Use) -> np.ndarray:
        """Which rows or events are not of the days before, bool."""
        return (use.frame[TIME] > self._end).to_numpy()


def _span_of(fit: object) -> list[tuple[int, int, int]]:
    """What earlier days were fitted on, as `fit_range` takes it."""
    assert isinstance(fit, dict)
    return [] if fit["clock"] is None else [(fit["rows"], *fit["clock"])]


def _column(manifest: Manifest, use: Use) -> Column:
    """The feature, or the field of events, in the data set before."""
    own = manifest.features if use.domain is None else manifest.domains[use.domain].side
    return next(column for column in own if column.name == use.name)


def _check_types(types: Mapping[str, str], uses: list[Use], values: list[Values], what: str) -> None:
    """Refuse hashed columns that were numbers and are texts now, or the other way round."""
    for use, value in zip(uses, values, strict=True):
        if (found := key_type(value, what=use.what)) != types[use.key]:
            raise DataError(
                f"{what}, {use.what}: its values must be {types[use.key]} as in the data set before, the new "
                f"day has {found}; correct the column"
            )
