"""What the types of the tables alone tell to be wrong, before anything is read."""

from __future__ import annotations

import polars as pl

from features.errors import DataError, first_line
from features.read.columns import made_columns, origin
from features.read.computed_reads import cross_part
from features.read.explode import check_packed, clicked_lists
from features.read.locate import table_name
from features.read.problems import Problems
from features.read.where import holds
from features.source import Packed
from features.spec import DenseFeature, Domain, Spec

Tables = dict[str, pl.LazyFrame]


def check_types(spec: Spec, tables: Tables) -> None:
    """Refuse columns of types that their readers cannot use; all of them at once.

    Args:
        spec: without patterns.
        tables: the raw tables.

    Raises:
        ConfigError, DataError: what is wrong.
    """
    problems, schemas = Problems(), {}
    for name, table in tables.items():
        with problems.collect():
            schemas[name] = _schema(name, table)
    problems.raise_all()
    shown = spec.impressions
    for name, feature in spec.features.items():
        if isinstance(feature, DenseFeature):
            _check_dense(f"feature {name!r}", feature, shown.table, spec, schemas, problems)
    _check_labels(spec, schemas, problems)
    _check_lists(spec, schemas[shown.table], problems)
    _check_crosses(spec, schemas, problems)
    for name, domain in spec.domains.items():
        _check_domain(name, domain, spec, schemas, problems)
    problems.raise_all()


def _schema(name: str, table: pl.LazyFrame) -> pl.Schema:
    try:
        return table.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"table {name!r} cannot be read: {first_line(error)}; correct derive or types"
        ) from None


def _check_labels(spec: Spec, schemas: dict[str, pl.Schema], problems: Problems) -> None:
    """Weights and the labels of a regression are numbers; events can hold what makes a label 1."""
    schema = schemas[spec.impressions.table]
    for name, rule in spec.impressions.from_events.items():
        for column, values in rule.where.items():
            with problems.collect():
                own = schemas[spec.domains[rule.domain].table][column]
                holds(column, own, values, what=f"label {name!r}, from_events")
    for name, label in spec.impressions.tasks.items():
        numbers = [label.column] if label.kind == "regression" else []
        numbers += [label.weight.column] if label.weight is not None and label.weight.column else []
        for column in numbers:
            dtype = schema.get(column)
            if dtype is not None and not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
                with problems.collect():
                    raise DataError(
                        f"label {name!r}: column {column!r} must hold numbers, got {dtype}; convert it"
                    )


def _check_lists(spec: Spec, schema: pl.Schema, problems: Problems) -> None:
    """What is packed into one cell of the impressions is a list, or a text that can be split."""
    explode, what = spec.impressions.explode, table_name(spec.source, spec.impressions.table)
    packed: list[Packed | None] = [domain.from_list for domain in spec.domains.values()]
    packed += [] if explode is None else [explode, clicked_lists(explode)]
    for one in packed:
        if one is not None:
            with problems.collect():
                check_packed(schema[one.column], one, what=what)


def _check_crosses(spec: Spec, schemas: dict[str, pl.Schema], problems: Problems) -> None:
    """Every column of a cross holds one ID a row."""
    tables = {"own": spec.impressions.table}
    tables |= {side: e.table for side, e in (("user", spec.user), ("item", spec.item)) if e is not None}
    made = made_columns(spec.impressions)
    for name, columns in spec.crosses.items():
        for column in columns:
            kind, own = origin(column)
            dtype = None if column in made else schemas[tables[kind]].get(own)
            if dtype is not None:
                with problems.collect():
                    cross_part(pl.Series(dtype=dtype), name, column)


def _check_domain(
    name: str, domain: Domain, spec: Spec, schemas: dict[str, pl.Schema], problems: Problems
) -> None:
    for column, values in domain.where.items():
        with problems.collect():
            holds(column, schemas[domain.table][column], values, what=f"domain {name!r}")
    for side, feature in domain.side.items():
        if isinstance(feature, DenseFeature):
            _check_dense(f"domain {name!r}, side {side!r}", feature, domain.table, spec, schemas, problems)


def _check_dense(
    what: str,
    feature: DenseFeature,
    table: str,
    spec: Spec,
    schemas: dict[str, pl.Schema],
    problems: Problems,
) -> None:
    """Every column of a dense feature holds numbers, or lists of them."""
    for column in feature.columns:
        kind, name = origin(column)
        entity = {"user": spec.user, "item": spec.item}.get(kind)
        dtype = schemas[entity.table if entity is not None else table].get(name)
        if dtype is None or (entity is None and kind != "own"):
            continue  # computed
        inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
        if not (inner.is_numeric() or inner in (pl.Boolean, pl.Null, pl.String)):
            with problems.collect():
                raise DataError(f"{what}: column {column!r} must be numeric, got {dtype}; convert it")
