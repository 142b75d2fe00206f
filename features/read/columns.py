"""The column names of a spec: where each comes from, who reads it, and whether it belongs to the request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from features.computed import COMPUTED
from features.errors import ConfigError
from features.known import Known
from features.read.known_clock import LABEL, OUTCOME, TARGET
from features.spec import (
    CalendarFeature,
    DenseFeature,
    Domain,
    Feature,
    IdFeature,
    Impressions,
    PlainDense,
    SincePrevious,
    Spec,
)

Read = tuple[str, str]  # a column, and who reads it

_PREFIXES = ("user", "item", *COMPUTED)


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
    yield from row_reads(spec)
    yield from input_reads(spec)


def row_reads(spec: Spec) -> Iterator[Read]:
    """What rows, requests, labels and their order are made of, before anything is joined or computed."""
    shown = spec.impressions
    for what in ("user", "item", "time", "request", "position"):
        if (column := getattr(shown, what)) is not None:
            yield column, f"impressions.{what}"
    yield from label_reads(shown)
    yield from ((r.known_at, "known_at of impressions") for r in row_rules(spec).values() if r.known_at)
    yield from ((c, "impressions.context") for c in shown.context)
    yield from ((c, "impressions.where") for c in shown.where)
    yield from ((c, "order") for c in spec.order)


def label_reads(shown: Impressions) -> Iterator[Read]:
    """The columns that labels, weights and rates of sampling are made of."""
    for name, label in shown.tasks.items():
        what = f"impressions.labels.{name}" if shown.labels else "impressions.label"
        yield from [(label.column, what)] if name in shown.logged else []
        if label.weight is not None and label.weight.column is not None:
            yield label.weight.column, f"{what}.weight"
    if shown.sampling is not None and isinstance(shown.sampling.negatives, str):
        yield shown.sampling.negatives, "impressions.sampling"


def made_columns(shown: Impressions) -> set[str]:
    """The columns that `explode` makes, which the table itself does not have."""
    made = {shown.item, shown.label.column, *([shown.position] if shown.position else [])}
    return made if shown.explode is not None else set()


def raw_reads(spec: Spec) -> Iterator[Read]:
    """What `impression_reads` needs of the tables: for columns that are made, those they are made of."""
    made = made_columns(spec.impressions)
    yield from (read for read in impression_reads(spec) if read[0] not in made)
    yield from ((column, f"age {name!r}") for name, column in spec.ages.items())
    yield from packed_reads(spec)


def packed_reads(spec: Spec) -> Iterator[Read]:
    """The columns of the impressions that hold several rows or events."""
    if (explode := spec.impressions.explode) is not None:
        yield explode.column, "impressions.explode"
        if explode.clicked is not None:
            yield explode.clicked, "impressions.explode"
    for name, domain in spec.domains.items():
        if domain.from_list is not None:
            yield domain.from_list.column, f"domain {name!r}, from_list"


def input_reads(spec: Spec) -> Iterator[Read]:
    """What features, computed features and slices read of the impressions' side, except patterns."""
    for name, feature in spec.features.items():
        yield from ((c, f"feature {name!r}") for c in feature_columns(feature))
    for name, counter in spec.counters.items():
        yield from ((c, f"counter {name!r}") for c in counter.by)
        # of earlier rows, so that even the label's column may be read
        values = (counter.value, counter.against) if counter.over is None else ()
        yield from ((c, f"value of counter {name!r}") for c in values if c)
    yield from ((m.candidate, f"match {name!r}") for name, m in spec.matches.items())
    yield from pair_reads(spec)
    yield from ((c, f"cross {name!r}") for name, columns in spec.crosses.items() for c in columns)
    for name, page in spec.pages.items():
        position = [spec.impressions.position] if "above" in page.outputs else []
        yield from ((c, f"page {name!r}") for c in (page.column, *position) if c)
    yield from ((c, f"slice {name!r}") for name, c in spec.slices.items())


def pair_reads(spec: Spec) -> Iterator[Read]:
    """What pair statistics read of the impressions' side."""
    for name, pair in spec.pairs.items():
        yield from ((c, f"pair {name!r}") for c in (pair.candidate, pair.column) if c is not None)


def event_reads(spec: Spec, name: str) -> Iterator[Read]:
    """Every column that is read from the events of a domain, except those of patterns."""
    yield from event_row_reads(spec, name)
    yield from side_reads(spec, name)


def event_row_reads(spec: Spec, name: str) -> Iterator[Read]:
    """What the events of a domain, their outcomes and their order are made of, before anything is joined."""
    domain, what = spec.domains[name], f"domain {name!r}"
    outcome = domain.outcome.column if domain.outcome else None
    for column in (domain.user, domain.time, domain.item, outcome, *domain.where, *spec.order):
        if column is not None:
            yield column, what
    yield from ((r.known_at, f"{what}, known_at") for r in event_rules(domain).values() if r.known_at)
    for task, later in spec.impressions.from_events.items():
        if later.domain == name:
            yield from ((c, f"impressions.labels.{task}.from_events") for c in later.where)


def raw_event_reads(spec: Spec, name: str) -> Iterator[Read]:
    """What `event_reads` needs of the tables: lists are read with the impressions."""
    listed = spec.domains[name].from_list is not None
    yield from (read for read in event_reads(spec, name) if not listed or origin(read[0])[0] != "own")


def side_reads(spec: Spec, name: str) -> Iterator[Read]:
    """What side info, matches and pairs read of the events of a domain, except patterns."""
    for side, feature in spec.domains[name].side.items():
        yield from ((c, f"domain {name!r}, side {side!r}") for c in feature_columns(feature))
    yield from ((m.event, f"match {n!r}") for n, m in spec.matches.items() if m.domain == name)
    for n, pair in spec.pairs.items():
        if pair.domain == name and pair.event is not None:
            yield pair.event, f"pair {n!r}"
    for n, counter in spec.counters.items():
        if counter.over == name:
            read = [*counter.event_by, *([counter.value] if counter.value else [])]
            yield from ((c, f"counter {n!r}") for c in read)


def dense_columns(features: Iterable[Feature | SincePrevious], kind: str) -> set[str]:
    """The columns of one origin (own, user, item) that dense features read."""
    every = (c for f in features if isinstance(f, DenseFeature) for c in f.columns)
    return {name for k, name in map(origin, every) if k == kind}


def row_rules(spec: Spec) -> dict[str, Known]:
    """When the label, and the columns that counters over impressions add up, are known, if not at once."""
    label = spec.impressions.label.rule
    values = {c.value for c in spec.counters.values() if c.over is None and c.value is not None}
    counted = [c for c in sorted(values) if origin(c)[0] == "own"]
    # An outcome that nothing is said of is known when its own label is, or else the log's.
    own = {t.column: t.rule for t in reversed(spec.impressions.logged.values())}
    rules = {LABEL: label} | {c: spec.impressions.outcomes.get(c, own.get(c, label)) for c in counted}
    late = {n: t for n, t in spec.impressions.tasks.items() if t.late or t.from_events}
    rules |= {TARGET + name: task.rule for name, task in late.items()}
    return {column: rule for column, rule in rules.items() if not rule.at_once}


def event_rules(domain: Domain) -> dict[str, Known]:
    """When the outcome and the columns of an event are known, if not at once.

    Raises:
        ConfigError: two rules for one column.
    """
    rules = {column: rule for column, rule in domain.known_later.items() if not rule.at_once}
    if domain.outcome is not None and not domain.outcome.at_once:
        column, rule = domain.outcome.column, domain.outcome.rule
        if rules.setdefault(column, rule) != rule:
            raise ConfigError(f"known_later and outcome say differently when {column!r} is known; drop one")
    if domain.outcome is not None and domain.outcome.column in rules:
        rules[OUTCOME] = rules[domain.outcome.column]
    return rules


def feature_columns(feature: Feature | SincePrevious) -> list[str]:
    """The columns of a feature or a field of side info, without patterns."""
    if isinstance(feature, IdFeature):
        return [feature.column, *([feature.weights] if feature.weights else [])]
    if isinstance(feature, PlainDense):
        return feature.columns
    if isinstance(feature, DenseFeature):
        return [c for c in feature.columns if not is_pattern(c)]
    return []


def computed_columns(spec: Spec) -> list[str]:
    """All count.*, match.*, pair.*, age.*, cross.* and page.* columns of the spec."""
    counts = [f"count.{n}.{o}" for n, c in spec.counters.items() for o in c.outputs]
    matches = [f"match.{n}.{o}" for n, m in spec.matches.items() for o in m.outputs]
    pairs = [f"pair.{n}.{o}" for n, p in spec.pairs.items() for o in p.outputs]
    pages = [f"page.{n}.{o}" for n, p in spec.pages.items() for o in p.outputs]
    of_row = [*(f"age.{n}" for n in spec.ages), *(f"cross.{n}" for n in spec.crosses)]
    return [*counts, *matches, *pairs, *of_row, *pages]


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
    if kind in ("count", "age", "cross"):
        return all(is_of_request(spec, c) for c in computed_from(spec, column))
    return kind == "user" or (kind == "page" and name.endswith(".size"))


def computed_from(spec: Spec, column: str) -> list[str]:
    """The columns of the row from which a computed column is made, for all that it adds up besides."""
    kind, name = origin(column)
    entry, _, output = name.rpartition(".")
    if kind == "count":
        return spec.counters[entry].by
    if kind == "match":
        return [spec.matches[entry].candidate]
    if kind == "pair":
        return [c for c in (spec.pairs[entry].candidate, spec.pairs[entry].column) if c is not None]
    if kind == "page":
        position = [spec.impressions.position] if output == "above" else []
        return [c for c in (spec.pages[entry].column, *position) if c is not None and output != "size"]
    if kind == "age":
        return [spec.ages[name]]
    return spec.crosses[name] if kind == "cross" else []


def is_pattern(column: str) -> bool:
    """Whether a name of a dense feature may stand for several columns."""
    return any(c in column for c in "*?[")
