"""Who may read a computed column: what is computed after it; and a cross is read as a category alone.

They are computed in this order, counters and pages one after the other as the spec has them:

    counters → matches → pairs → ages → crosses → pages → features and slices
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from features.errors import ConfigError, DataError
from features.read.columns import Read, computed_columns, feature_columns, origin
from features.read.ids import key_values
from features.read.problems import Problems
from features.spec import DenseFeature, IdFeature, Spec

Step = tuple[str, list[Read]]  # what is computed, such as count.item, and what it reads of the row


def refuse_computed(spec: Spec) -> None:
    """Refuse columns that their readers cannot have, or cannot use.

    Raises:
        ConfigError: naming all of them.
    """
    problems = Problems()
    for text in (*_of_categories(spec), *_no_categories(spec), *_of_times(spec), *_too_early(spec)):
        with problems.collect():
            raise ConfigError(text)
    problems.raise_all()


def cross_part(values: pl.Series, cross: str, column: str) -> pl.Series:
    """The values of one column of a cross as IDs.

    Raises:
        DataError: lists, or values that identify nothing.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        raise DataError(
            f"cross {cross!r}: column {column!r} must hold one value a row, got {values.dtype}; "
            "derive a single value"
        )
    return key_values(values, what=f"cross {cross!r}, column {column!r}")


def _of_categories(spec: Spec) -> Iterator[str]:
    """ID features of a cross that ask for more than one category a row."""
    for name, feature in spec.features.items():
        if not isinstance(feature, IdFeature) or origin(feature.column)[0] != "cross":
            continue
        what, encode = f"feature {name!r} reads {feature.column!r}", spec.tables[feature.table].encode
        keys = ("separator", "format", "max_values", "weights")
        if given := [key for key in keys if getattr(feature, key) is not None]:
            yield f"{what}, and a cross has one value a row; drop {' and '.join(given)}"
        if encode in ("quantile", "log"):
            yield (
                f"{what}, and a cross is a category, but table {feature.table!r} makes buckets of numbers "
                f"(encode: {encode}); use a vocabulary or a hash table"
            )


def _no_categories(spec: Spec) -> Iterator[str]:
    """Who reads a cross otherwise than as a category."""
    read = [read for _, reads in _steps(spec) for read in reads]
    for name, feature in spec.features.items():
        if isinstance(feature, DenseFeature):
            read += [(column, f"dense feature {name!r}") for column in feature_columns(feature)]
        elif isinstance(feature, IdFeature) and feature.weights is not None:
            read.append((feature.weights, f"feature {name!r} under weights"))
    for column, reader in read:
        if origin(column)[0] == "cross":
            columns = spec.crosses.get(origin(column)[1], [])
            instead = f"by: {columns}" if reader.startswith("counter") else f"one of {columns}"
            yield (
                f"{reader} reads {column!r}, but a cross is a category, for ID features and slices alone; "
                f"read {instead}, or a column that is derived from them in the table"
            )


def _of_times(spec: Spec) -> Iterator[str]:
    """Crosses with the time of the row, which hardly occur twice."""
    for name, columns in spec.crosses.items():
        if spec.impressions.time in columns:
            yield (
                f"cross {name!r} reads {spec.impressions.time!r}, the time of the impressions, and would "
                "have a category for every moment; derive an hour or a weekday in the table, and cross that"
            )


def _too_early(spec: Spec) -> Iterator[str]:
    """Who reads a column that is computed after it."""
    later = {_computed(column) for column in computed_columns(spec)} - {"cross"}
    for step, reads in _steps(spec):
        for column, reader in reads:
            if origin(column)[0] != "own" and (head := _computed(column)) in later:
                kind = reader.partition(" ")[0]
                remedy = f"declare that {kind} before this one"
                if origin(head)[0] != origin(step)[0]:
                    remedy = "read columns of the tables, or of what is computed before every " + kind
                yield f"{reader} reads {column!r}, which is computed after it; {remedy}"
        later.discard(step)


def _computed(column: str) -> str:
    """What is computed at once with a column: count.item of count.item.rate; all ages, all crosses."""
    kind = origin(column)[0]
    return kind if kind in ("age", "cross") else column.rpartition(".")[0]


def _steps(spec: Spec) -> Iterator[Step]:
    """What is computed, in its order."""
    for name, counter in spec.counters.items():
        values = (counter.value, counter.against) if counter.over is None else ()
        read = [column for column in (*counter.by, *values) if column is not None]
        yield f"count.{name}", [(column, f"counter {name!r}") for column in read]
    for name, match in spec.matches.items():
        yield f"match.{name}", [(match.candidate, f"match {name!r}")]
    for name, pair in spec.pairs.items():
        read = [column for column in (pair.candidate, pair.column) if column is not None]
        yield f"pair.{name}", [(column, f"pair {name!r}") for column in read]
    yield from (("age", []), ("cross", []))
    for name, page in spec.pages.items():
        yield f"page.{name}", [(page.column, f"page {name!r}")]
