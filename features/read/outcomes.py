"""What a model may not see of the impression that it scores: columns that are known only afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from features.errors import ConfigError
from features.read.columns import Read, event_reads, feature_columns, origin, pair_reads
from features.read.derive import parse
from features.spec import Domain, Spec


def refuse_outcomes(spec: Spec) -> None:
    """Refuse outcomes as features of their own row; as history they are what counters and domains are for.

    Raises:
        ConfigError: naming who reads which column, and why it is not known at the request.
    """
    reasons, declared = outcomes(spec), _declared(spec)
    for column, reader in _same_row_reads(spec):
        if column in reasons:
            remedy = "drop it, or use it as history: the value of a counter, side info of a domain"
            if column not in declared:
                remedy += "; if it is known at the request, name it under impressions.known"
            raise ConfigError(
                f"{reader} reads {column!r}, {reasons[column]}, unknown at the request; {remedy}"
            )


def outcomes(spec: Spec) -> dict[str, str]:
    """The impressions' own columns that are known only after the impression, and what they are.

    Raises:
        ConfigError: a column is said to be known at the request and only afterwards.
    """
    shown, reasons = spec.impressions, _declared(spec)
    if both := sorted(reasons.keys() & set(shown.known)):
        raise ConfigError(f"impressions.known names {both[0]!r}, {reasons[both[0]]}; say one of both")
    keys = {shown.user, shown.item, shown.time, shown.request, shown.position}
    known = {*keys, *shown.context, *shown.known, *spec.order}
    for column, reason in (*_suspects(spec), *_operands_of(spec, reasons)):
        if column not in known:
            reasons.setdefault(column, reason)
    return reasons | {c: r for c, r in _derived_from(spec, reasons).items() if c not in {*known, *reasons}}


def _declared(spec: Spec) -> dict[str, str]:
    """The columns that the spec says to be known only later, and what they are."""
    reasons: dict[str, str] = {}
    for task, label in spec.impressions.tasks.items():
        what = f"label {task!r}" if spec.impressions.labels else "the label"
        column = f"the column of {what}" if spec.impressions.labels else "the label column"
        if label.from_events is None:
            reasons.setdefault(label.column, column)
        if label.known_at is not None:
            reasons.setdefault(label.known_at, f"the time when {what} is known")
    if (packed := spec.impressions.explode) is not None:
        for name in (packed.column, packed.clicked):
            if name is not None:
                reasons[name] = "one of the columns that rows and labels are made of by explode"
    for column, rule in spec.impressions.outcomes.items():
        reasons.setdefault(column, "an outcome by impressions.outcomes")
        if rule.known_at is not None:
            reasons.setdefault(rule.known_at, f"the time when outcome {column!r} is known")
    return reasons


def _suspects(spec: Spec) -> Iterator[tuple[str, str]]:
    """Columns of the impressions' table that something reads as known afterwards, and what they are then."""
    for name, counter in spec.counters.items():
        if counter.over is None and counter.value is not None and origin(counter.value)[0] == "own":
            yield counter.value, f"an outcome, since counter {name!r} adds it up as one"
    for name, domain in spec.domains.items():
        if _is_own_table(spec, domain):
            reason = f"an outcome, since domain {name!r} reads it of the same table with its events"
            keys = {domain.user, domain.item, domain.time, *domain.where}
            own = (c for c, _ in event_reads(spec, name) if origin(c)[0] == "own")
            yield from ((column, reason) for column in own if column not in keys)


def _operands_of(spec: Spec, reasons: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What outcomes are derived from."""
    for name, operands in _derived(spec).items():
        if name in reasons:
            reason = f"an outcome, since {name!r} is derived from it, {reasons[name]}"
            yield from ((column, reason) for column in operands)


def _derived_from(spec: Spec, reasons: dict[str, str]) -> dict[str, str]:
    """What is derived from outcomes."""
    return {
        name: f"derived from {column!r}, {reasons[column]}"
        for name, operands in _derived(spec).items()
        for column in operands
        if column in reasons
    }


def _derived(spec: Spec) -> dict[str, list[str]]:
    """The derived columns of the impressions' table, each with the columns it is computed from."""
    raw = spec.source.tables.get(spec.impressions.table)
    found = {} if raw is None else raw.derive
    what = f"table {spec.impressions.table!r}, derived column"
    return {n: parse(e, what=f"{what} {n!r}").meta.root_names() for n, e in found.items()}


def _is_own_table(spec: Spec, domain: Domain) -> bool:
    """Whether the events of a domain are the rows of the impressions, be it by another name."""
    tables = spec.source.tables
    one, other = tables.get(domain.table), tables.get(spec.impressions.table)
    same_files = one is not None and other is not None and (one.root, one.path) == (other.root, other.path)
    return same_files or domain.table == spec.impressions.table


def _same_row_reads(spec: Spec) -> Iterator[Read]:
    """What is read of the impression that is scored itself, but for patterns, which leave outcomes out."""
    for name, feature in spec.features.items():
        yield from ((c, f"feature {name!r}") for c in feature_columns(feature))
    for name, counter in spec.counters.items():
        yield from ((c, f"counter {name!r}") for c in counter.by)
    yield from ((m.candidate, f"match {name!r}") for name, m in spec.matches.items())
    yield from pair_reads(spec)
    yield from ((c, f"cross {name!r}") for name, columns in spec.crosses.items() for c in columns)
    yield from ((p.column, f"page {name!r}") for name, p in spec.pages.items())
