"""What a spec needs of every raw table, and which columns its patterns stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from features.errors import ConfigError
from features.read.columns import (
    Read,
    computed_columns,
    event_row_reads,
    is_pattern,
    made_columns,
    origin,
    packed_reads,
    raw_event_reads,
    raw_reads,
    row_reads,
)
from features.read.computed_reads import refuse_computed
from features.read.event_labels import refuse_event_labels
from features.read.explode import refuse_taken_names
from features.read.outcomes import outcomes, refuse_outcomes
from features.read.problems import Problems
from features.read.untimed import refuse_times
from features.spec import DenseFeature, Domain, Entity, Feature, Needed, PlainDense, SincePrevious, Spec


def needed_columns(spec: Spec, found: Problems | None = None) -> Needed:
    """What must be read: raw table → column → who reads it.

    Args:
        spec: as written.
        found: gets what is wrong, instead of raising it, so that more can be found.

    Raises:
        ConfigError: a name that no table or computed feature can give, or a feature that is known only later.
    """
    problems = found or Problems()
    with problems.collect():
        refuse_outcomes(spec)
    with problems.collect():
        refuse_times(spec)
    with problems.collect():
        refuse_event_labels(spec)
    with problems.collect():
        refuse_taken_names(spec)
    with problems.collect():
        refuse_computed(spec)
    with problems.collect():
        if taken := [t for t in spec.tables if t.partition(".")[0] in ("calendar", "gap")]:
            raise ConfigError(f"tables calendar.* and gap.* are made for time features; rename {taken}")
    needed: Needed = {}
    entities = {"user": spec.user, "item": spec.item}
    computed = computed_columns(spec)
    own, made = {*row_reads(spec), *packed_reads(spec)}, made_columns(spec.impressions)
    _enter(needed, spec.impressions.table, raw_reads(spec), entities, computed, problems, own=own)
    named = [(c, reader) for c, reader in row_reads(spec) if c in made and origin(c)[0] != "own"]
    _enter(needed, spec.impressions.table, named, {}, [], problems, own=named)
    for name, domain in spec.domains.items():
        joined, own = {"item": spec.item if domain.item is not None else None}, {*event_row_reads(spec, name)}
        _enter(needed, domain.table, raw_event_reads(spec, name), joined, [], problems, own=own)
    named = [(c, "impressions.outcomes") for c in spec.impressions.outcomes]
    named += [(t.known_at, f"label {n!r}, known_at") for n, t in spec.impressions.tasks.items() if t.known_at]
    _enter(needed, spec.impressions.table, named, {}, [], problems, own=named)
    for name, domain in spec.domains.items():
        named = [(c, f"domain {name!r}, known_later") for c in domain.known_later]
        _enter(needed, domain.table, named, {}, [], problems, own=named)
    if found is None:
        problems.raise_all()
    for what, entity in entities.items():
        if entity is not None:
            needed.setdefault(entity.table, {}).setdefault(entity.key, f"{what}.key")
    return needed


def expand_patterns(spec: Spec, columns: dict[str, list[str]]) -> Spec:
    """Replace the patterns of dense features by the names they match, in the order of the tables.

    A pattern matches no column that is known only after the impression.

    Args:
        spec: as written.
        columns: raw table → the columns it has.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    problems = Problems()
    domains = {n: _expand_domain(d, n, spec, columns, problems) for n, d in spec.domains.items()}
    spec = spec.model_copy(update={"domains": domains})
    later = outcomes(spec)
    shown = [c for c in columns[spec.impressions.table] if c not in later]
    entities = [*_entity_columns("user", spec.user, columns), *_entity_columns("item", spec.item, columns)]
    names = [*shown, *entities, *computed_columns(spec)]
    features = {n: _expand(f, names, f"feature {n!r}", problems) for n, f in spec.features.items()}
    problems.raise_all()
    full = spec.model_copy(update={"features": features})
    refuse_outcomes(full)  # again: patterns of side info may have named more outcomes
    refuse_computed(full)  # and those of dense features crosses
    return full


def _enter(
    needed: Needed,
    table: str,
    reads: Iterable[Read],
    entities: dict[str, Entity | None],
    computed: list[str],
    problems: Problems,
    *,
    own: Collection[Read],
) -> None:
    """Enter the columns that one table and the entities joined to it must have; `own`: the table itself."""
    for column, reader in reads:
        with problems.collect():
            kind, name = origin(column)
            entity = entities.get(kind)
            if name.startswith("__"):
                raise ConfigError(
                    f"{reader} reads {column!r}: names with __ are reserved; rename the raw column"
                )
            if kind != "own" and (column, reader) in own:
                raise ConfigError(
                    f"{reader} must name a column of the table {table!r} itself, got {column!r}, which is "
                    "joined or computed later; add it to that table, or rename it there if it is a raw column"
                )
            if kind == "own" or entity is not None:
                into = needed.setdefault(table if entity is None else entity.table, {})
                into.setdefault(name, reader)
            elif column not in computed:
                joined = [f"{k}.*" for k, e in entities.items() if e is not None]
                raise ConfigError(
                    f"{reader} reads {column!r}, but of the columns with a prefix it can only read "
                    f"{[*joined, *computed]}; correct the name, declare what is missing, or rename the column"
                )


def _entity_columns(what: str, entity: Entity | None, columns: dict[str, list[str]]) -> list[str]:
    return [f"{what}.{c}" for c in columns[entity.table]] if entity else []


def _expand_domain(
    domain: Domain, name: str, spec: Spec, columns: dict[str, list[str]], problems: Problems
) -> Domain:
    item = spec.item if domain.item is not None else None
    own = columns[domain.table] if domain.from_list is None else [str(domain.item)]
    names = [*own, *_entity_columns("item", item, columns)]
    side = {n: _expand(f, names, f"domain {name!r}, side {n!r}", problems) for n, f in domain.side.items()}
    return domain.model_copy(update={"side": side})


def _expand(
    feature: Feature | SincePrevious, names: list[str], what: str, problems: Problems
) -> Feature | SincePrevious:
    if not isinstance(feature, DenseFeature):
        return feature
    columns: dict[str, None] = {}
    for pattern in feature.columns:
        # A column of that very name, such as `price [EUR]`, is meant before any pattern.
        plain = pattern in names or not is_pattern(pattern)
        found = [pattern] if plain else [n for n in names if fnmatchcase(n, pattern)]
        with problems.collect():
            if not found:
                raise ConfigError(f"{what}: pattern {pattern!r} matches no column; there are {names}")
        columns |= dict.fromkeys(found)
    return PlainDense(**{**dict(feature), "columns": list(columns)})
