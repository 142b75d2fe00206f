"""The column names of a spec: where each comes from, who reads it, and whether it belongs to the request."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from features.errors import ConfigError
from features.spec import (
    CalendarFeature,
    DenseFeature,
    Domain,
    Entity,
    Feature,
    IdFeature,
    SincePrevious,
    Spec,
)

Read = tuple[str, str]  # a column, and who reads it

_PREFIXES = ("user", "item", "count", "match", "page")


def origin(column: str) -> tuple[str, str]:
    """Split a spec's column name into where it comes from and its name there.

    Example:
        >>> origin("user.age"), origin("price")
        (('user', 'age'), ('own', 'price'))
    """
    head, dot, rest = column.partition(".")
    return (head, rest) if dot and head in _PREFIXES else ("own", column)


def impression_reads(spec: Spec) -> Iterator[Read]:
    """Every column that is read from the impressions' side, except those of patterns."""
    shown = spec.impressions
    for what in ("user", "item", "time", "request", "position"):
        if (column := getattr(shown, what)) is not None:
            yield column, f"impressions.{what}"
    yield shown.label.column, "impressions.label"
    yield from ((c, "impressions.context") for c in shown.context)
    yield from ((c, "order") for c in spec.order)
    yield from input_reads(spec)


def input_reads(spec: Spec) -> Iterator[Read]:
    """What features, computed features and slices read of the impressions' side, except patterns."""
    for name, feature in spec.features.items():
        yield from ((c, f"feature {name!r}") for c in feature_columns(feature))
    for name, counter in spec.counters.items():
        yield from ((c, f"counter {name!r}") for c in counter.by)
        # of earlier rows, so that even the label's column may be read
        yield from ((c, f"value of counter {name!r}") for c in (counter.value, counter.against) if c)
    yield from ((m.candidate, f"match {name!r}") for name, m in spec.matches.items())
    for name, page in spec.pages.items():
        position = [spec.impressions.position] if "above" in page.outputs else []
        yield from ((c, f"page {name!r}") for c in (page.column, *position) if c)
    yield from ((c, f"slice {name!r}") for name, c in spec.slices.items())


def event_reads(spec: Spec, name: str) -> Iterator[Read]:
    """Every column that is read from the events of a domain, except those of patterns."""
    domain, what = spec.domains[name], f"domain {name!r}"
    outcome = domain.outcome.column if domain.outcome else None
    for column in (domain.user, domain.time, domain.item, outcome, *domain.where, *spec.order):
        if column is not None:
            yield column, what
    yield from side_reads(spec, name)


def side_reads(spec: Spec, name: str) -> Iterator[Read]:
    """What side info and matches read of the events of a domain, except patterns."""
    for side, feature in spec.domains[name].side.items():
        yield from ((c, f"domain {name!r}, side {side!r}") for c in feature_columns(feature))
    yield from ((m.event, f"match {n!r}") for n, m in spec.matches.items() if m.domain == name)


def feature_columns(feature: Feature | SincePrevious) -> list[str]:
    """The columns of a feature or a field of side info, without patterns."""
    if isinstance(feature, IdFeature):
        return [feature.column, *([feature.weights] if feature.weights else [])]
    if isinstance(feature, DenseFeature):
        return [c for c in feature.columns if not _is_pattern(c)]
    return []


def needed_columns(spec: Spec) -> dict[str, dict[str, str]]:
    """What must be read: raw table → column → who reads it.

    Raises:
        ConfigError: a name that no table or computed feature can give, or an input that reads the label.
    """
    _refuse_label(spec)
    if taken := [t for t in spec.tables if t.partition(".")[0] in ("calendar", "gap")]:
        raise ConfigError(f"tables calendar.* and gap.* are made for time features; rename {taken}")
    needed: dict[str, dict[str, str]] = {}
    entities = {"user": spec.user, "item": spec.item}
    computed = computed_columns(spec)
    _enter(needed, spec.impressions.table, impression_reads(spec), entities, computed)
    for name, domain in spec.domains.items():
        joined = {"item": spec.item if domain.item is not None else None}
        _enter(needed, domain.table, event_reads(spec, name), joined, [])
    for what, entity in entities.items():
        if entity is not None:
            needed.setdefault(entity.table, {}).setdefault(entity.key, f"{what}.key")
    return needed


def expand_patterns(spec: Spec, columns: dict[str, list[str]]) -> Spec:
    """Replace the patterns of dense features by the names they match, in the order of the tables.

    Args:
        spec: as written.
        columns: raw table → the columns it has.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    shown = [c for c in columns[spec.impressions.table] if c != spec.impressions.label.column]
    entities = [*_entity_columns("user", spec.user, columns), *_entity_columns("item", spec.item, columns)]
    names = [*shown, *entities, *computed_columns(spec)]
    features = {n: _expand(f, names, f"feature {n!r}") for n, f in spec.features.items()}
    domains = {n: _expand_domain(d, n, spec, columns) for n, d in spec.domains.items()}
    return spec.model_copy(update={"features": features, "domains": domains})


def computed_columns(spec: Spec) -> list[str]:
    """All count.*, match.* and page.* columns of the spec."""
    counts = [f"count.{n}.{o}" for n, c in spec.counters.items() for o in c.outputs]
    matches = [f"match.{n}.{o}" for n, m in spec.matches.items() for o in m.outputs]
    return [*counts, *matches, *(f"page.{n}.{o}" for n, p in spec.pages.items() for o in p.outputs)]


def is_request_level(spec: Spec, feature: Feature) -> bool:
    """Whether a feature has the same value for all rows of a request."""
    columns = feature_columns(feature)
    return isinstance(feature, CalendarFeature) or all(is_of_request(spec, c) for c in columns)


def is_of_request(spec: Spec, column: str) -> bool:
    """Whether a column has the same value for all rows of a request."""
    shown = spec.impressions
    kind, name = origin(column)
    if kind == "own":
        # Rows of one clock agree in the columns that it is made of; but the item is always the candidate's.
        made_of = {shown.user, shown.time, shown.request, *spec.order, *shown.context}
        return name in made_of and name != shown.item
    if kind == "count":
        return all(is_of_request(spec, c) for c in spec.counters[name.rpartition(".")[0]].by)
    return kind == "user" or (kind == "page" and name.endswith(".size"))


def _enter(
    needed: dict[str, dict[str, str]],
    table: str,
    reads: Iterator[Read],
    entities: dict[str, Entity | None],
    computed: list[str],
) -> None:
    """Enter the columns that one table and the entities joined to it must have."""
    for column, reader in reads:
        kind, name = origin(column)
        if name.startswith("__"):
            raise ConfigError(f"{reader} reads {column!r}: names with __ are reserved; rename the raw column")
        if kind == "own":
            needed.setdefault(table, {}).setdefault(name, reader)
        elif (entity := entities.get(kind)) is not None:
            needed.setdefault(entity.table, {}).setdefault(name, reader)
        elif column not in computed:
            joined = [f"{k}.*" for k, e in entities.items() if e is not None]
            raise ConfigError(
                f"{reader} reads {column!r}, but of the columns with a prefix it can only read "
                f"{[*joined, *computed]}; correct the name, declare what is missing, or rename the raw column"
            )


def _refuse_label(spec: Spec) -> None:
    """Nothing that the model sees of an impression may come from the column of its label."""
    label = spec.impressions.label.column
    for column, reader in impression_reads(spec):
        if column == label and reader.startswith(("feature", "counter", "match", "page")):
            raise ConfigError(f"{reader} reads the label column {label!r}, unknown at the request; drop it")


def _entity_columns(what: str, entity: Entity | None, columns: dict[str, list[str]]) -> list[str]:
    return [f"{what}.{c}" for c in columns[entity.table]] if entity else []


def _expand_domain(domain: Domain, name: str, spec: Spec, columns: dict[str, list[str]]) -> Domain:
    item = spec.item if domain.item is not None else None
    names = [*columns[domain.table], *_entity_columns("item", item, columns)]
    side = {n: _expand(f, names, f"domain {name!r}, side {n!r}") for n, f in domain.side.items()}
    return domain.model_copy(update={"side": side})


def _expand(feature: Feature | SincePrevious, names: list[str], what: str) -> Feature | SincePrevious:
    if not isinstance(feature, DenseFeature):
        return feature
    columns: dict[str, None] = {}
    for pattern in feature.columns:
        found = [n for n in names if fnmatchcase(n, pattern)] if _is_pattern(pattern) else [pattern]
        if not found:
            raise ConfigError(f"{what}: pattern {pattern!r} matches no column; there are {names}")
        columns |= dict.fromkeys(found)
    return feature.model_copy(update={"columns": list(columns)})


def _is_pattern(column: str) -> bool:
    return any(c in column for c in "*?[")
