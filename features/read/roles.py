"""What a column is, from who reads it: the spec tells the types, so that nothing is guessed from values.

category   an ID or a category: the text that stands in the file
number     of dense features, pages, values, intervals
order      whole numbers that break ties
flag       the label without a rule: 0, 1, true, false
time       a moment
json       lists of values as JSON
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from features.errors import ConfigError
from features.read.columns import (
    event_reads,
    event_rules,
    feature_columns,
    is_pattern,
    made_columns,
    origin,
    pair_reads,
    raw_reads,
    row_rules,
)
from features.source import ColumnType
from features.spec import DenseFeature, Entity, Feature, IdFeature, Label, SincePrevious, Spec

Role = Literal["category", "number", "order", "flag", "time", "json"]
Kind = ColumnType | Literal["whole", "flag", "moment"]


@dataclass
class TableRoles:
    """The roles of a table's columns.

    Attributes:
        columns: column → its roles; a column that is only compared has none.
        patterns: of dense features, each with what the spec writes before the table's own names.
    """

    columns: dict[str, set[Role]] = field(default_factory=dict)
    patterns: list[tuple[str, str]] = field(default_factory=list)

    def of(self, column: str) -> set[Role]:
        """The roles of a column, with those of patterns that match it."""
        own = self.columns.get(column, set())
        return own | {"number"} if self.matches(column) else own

    def matches(self, column: str) -> bool:
        """Whether a pattern names the column."""
        return any(fnmatchcase(prefix + column, pattern) for prefix, pattern in self.patterns)


def table_roles(spec: Spec) -> dict[str, TableRoles]:
    """The roles of all columns that a spec reads: raw table → roles."""
    roles: dict[str, TableRoles] = {}
    entities = {"user": spec.user, "item": spec.item}
    made = made_columns(spec.impressions)
    shown = (found for found in _impression_roles(spec) if found[0] not in made)
    _enter(roles, spec.impressions.table, shown, entities)
    for name, domain in spec.domains.items():
        found = _event_roles(spec, name) if domain.from_list is None else _list_roles(spec, name)
        _enter(roles, domain.table, found, {"item": spec.item if domain.item else None})
    for entity in entities.values():
        if entity is not None:
            roles.setdefault(entity.table, TableRoles()).columns.setdefault(entity.key, set()).add("category")
    return roles


def kind_of(roles: set[Role], declared: ColumnType | None, *, what: str) -> Kind:
    """How the texts of a column are converted.

    Args:
        roles: who reads it.
        declared: under `types` of its table.
        what: the column, for the error message.

    Raises:
        ConfigError: roles that no one type can serve.

    Example:
        >>> kind_of({"category"}, None, what="c"), kind_of({"category", "number"}, None, what="c")
        ('text', 'whole')
    """
    if declared is not None:
        return declared
    if "json" in roles:
        return "json"
    if "time" in roles:
        if len(roles) == 1:
            return "moment"
        other = sorted(roles - {"time"})
        raise ConfigError(
            f"{what} is read as a time and as {' and '.join(other)}; say what it is under types in the "
            "table, or derive a second column"
        )
    if not roles - {"category"}:
        return "text"
    if roles & {"category", "order"}:
        return "whole" if "category" in roles else "int"
    return "flag" if "flag" in roles else "float"


def label_role(label: Label) -> Role:
    """How a label's column is read, from its rule."""
    if label.at_least is not None:
        return "number"
    if label.equals is None or isinstance(label.equals, bool):
        return "flag"
    return "category" if isinstance(label.equals, str) else "number"


def _impression_roles(spec: Spec) -> Iterator[tuple[str, Role | None]]:
    shown = spec.impressions
    yield from ((c, None) for c, _ in raw_reads(spec))
    if shown.explode is not None and shown.explode.format is not None:
        packed = (shown.explode.column, shown.explode.clicked)
        yield from ((c, "json") for c in packed if c is not None)
    yield from ((c, "category") for c in (shown.user, shown.item, shown.request) if c is not None)
    yield shown.time, "time"
    yield from ((r.known_at, "time") for r in row_rules(spec).values() if r.known_at is not None)
    for label in shown.tasks.values():
        if label.from_events is None:
            yield label.column, "number" if label.kind == "regression" else label_role(label)
        if label.weight is not None and label.weight.column is not None:
            yield label.weight.column, "number"
        if label.known_at is not None:
            yield label.known_at, "time"
    if shown.sampling is not None and isinstance(shown.sampling.negatives, str):
        yield shown.sampling.negatives, "number"
    if shown.position is not None:
        yield shown.position, "number"
    yield from ((c, "order") for c in spec.order)
    for feature in spec.features.values():
        yield from _feature_roles(spec, feature)
    for counter in spec.counters.values():
        yield from ((c, "category") for c in counter.by)
        values = (counter.value, counter.against) if counter.over is None else ()
        yield from ((c, "number") for c in values if c is not None)
    yield from ((m.candidate, "category") for m in spec.matches.values())
    yield from ((c, "category") for c, _ in pair_reads(spec))
    yield from ((column, "time") for column in spec.ages.values())
    yield from ((c, "category") for columns in spec.crosses.values() for c in columns)
    yield from ((p.column, "number") for p in spec.pages.values())


def _event_roles(spec: Spec, name: str) -> Iterator[tuple[str, Role | None]]:
    domain = spec.domains[name]
    yield from ((c, None) for c, _ in event_reads(spec, name))
    yield from ((c, "category") for c in (domain.user, domain.item) if c is not None)
    yield domain.time, "time"
    yield from ((r.known_at, "time") for r in event_rules(domain).values() if r.known_at is not None)
    for counter in (c for c in spec.counters.values() if c.over == name):
        yield from ((c, "category") for c in counter.event_by)
        yield from ((c, "number") for c in [counter.value] if c is not None)
    if domain.outcome is not None:
        yield domain.outcome.column, label_role(domain.outcome)
    yield from ((c, "order") for c in spec.order)
    for feature in domain.side.values():
        yield from _feature_roles(spec, feature)
    yield from ((m.event, "category") for m in spec.matches.values() if m.domain == name)
    yield from (
        (p.event, "category") for p in spec.pairs.values() if p.domain == name and p.event is not None
    )


def _list_roles(spec: Spec, name: str) -> Iterator[tuple[str, Role | None]]:
    """Of a domain whose events are lists: a table holds the lists, and what belongs to their items."""
    rule = spec.domains[name].from_list
    assert rule is not None
    yield rule.column, None if rule.format is None else "json"
    yield from (found for found in _event_roles(spec, name) if origin(found[0])[0] != "own")


def _feature_roles(spec: Spec, feature: Feature | SincePrevious) -> Iterator[tuple[str, Role | None]]:
    """The roles of a feature's columns; patterns are given as they are."""
    if isinstance(feature, IdFeature):
        if feature.format == "json":
            yield feature.column, "json"
        number = spec.tables[feature.table].encode in ("quantile", "log")
        yield feature.column, "number" if number else "category"
        if feature.weights is not None:
            yield feature.weights, "json"
    elif isinstance(feature, DenseFeature):
        yield from ((c, "number") for c in feature.columns)
    else:
        yield from ((c, None) for c in feature_columns(feature))


def _enter(
    roles: dict[str, TableRoles],
    table: str,
    found: Iterator[tuple[str, Role | None]],
    entities: dict[str, Entity | None],
) -> None:
    """Enter roles under the raw table that each column comes from."""
    sides = [("", table), *((f"{k}.", e.table) for k, e in entities.items() if e is not None)]
    for column, role in found:
        for prefix, name in sides if is_pattern(column) else ():
            roles.setdefault(name, TableRoles()).patterns.append((prefix, column))
        kind, name = origin(column)
        entity = entities.get(kind)
        if kind != "own" and entity is None:
            continue  # computed, or a name that `needed_columns` refuses
        into = roles.setdefault(table if entity is None else entity.table, TableRoles())
        own = into.columns.setdefault(name, set())
        if role is not None:
            own.add(role)
