"""Compute and encode in stages, so that few raw columns are in memory at a time.

A feature is encoded as soon as its columns are there, and a column goes with its last reader: of the numbers
that counters, matches and pairs compute, only the float32 of the features stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import polars as pl

from features.encode.crosses import PartTypes, part_types, with_crosses
from features.encode.encoded import Encoded
from features.encode.split import SplitRanges
from features.encode.transform import encode_other, encode_table
from features.encode.uses import Use, all_uses
from features.past.ages import with_ages
from features.past.counters import counter_columns
from features.past.list_matches import list_match_columns
from features.past.matches import match_columns
from features.past.pages import page_columns
from features.past.pairs import pair_columns
from features.read.log import Log
from features.spec import Counter, IdFeature, Spec


class Fitting(Protocol):
    """Where the tables and scalers come from that encode the features."""

    def table(self, name: str, uses: list[Use], encoded: Encoded) -> None:
        """Encode all uses of an ID table."""

    def other(self, use: Use, encoded: Encoded) -> None:
        """Encode a feature that has no table in the spec."""

    def parts(self, found: PartTypes, encoded: Encoded) -> None:
        """Keep the types of the columns of crosses, found in this log."""


def keep_parts(found: PartTypes, encoded: Encoded) -> None:
    """As a log of its own does."""
    encoded.fitted["crosses"] = found


class FittedHere:
    """They are fitted on the training part of this log."""

    table, other, parts = staticmethod(encode_table), staticmethod(encode_other), staticmethod(keep_parts)


CountColumns = Callable[[pl.DataFrame, str, Counter, pl.DataFrame | None], pl.DataFrame]


def encode_log(
    spec: Spec,
    log: Log,
    ranges: SplitRanges,
    *,
    finished: Callable[[str, Encoded], None],
    fitting: Fitting | None = None,
    count: CountColumns = counter_columns,
) -> Encoded:
    """Compute counters, matches, pairs, ages and pages, and fit and encode all features and side info.

    Args:
        spec: without patterns.
        log: all rows and events; their columns are gone afterwards, but for the reserved ones and slices.
        ranges: which rows belong to which part.
        finished: told each domain when all its side info is encoded; it may write it and let it go.
        fitting: instead of fitting on this log.
        count: computes a counter; another one knows of earlier logs.

    Raises:
        ConfigError: a computed feature does not fit the columns that it reads.
        DataError: a column of a type that its feature cannot use.
    """
    encoded = Encoded(spec, {domain: {} for domain in (None, *spec.domains)})
    pending, left, fit = all_uses(spec, log, ranges), list(spec.domains), fitting or FittedHere()
    for rest in _compute(spec, log, encoded, count, fit):
        for _ in _encode_ready(spec, pending, encoded, fit):
            log.drop_unread(_without_encoded(rest, encoded))
            pending = [use for use in pending if use.key not in encoded.described]
            for domain in [d for d in left if all(use.domain != d for use in pending)]:
                left.remove(domain)
                finished(domain, encoded)
        log.drop_unread(_without_encoded(rest, encoded))
    return encoded


def _compute(spec: Spec, log: Log, encoded: Encoded, count: CountColumns, fitting: Fitting) -> Iterator[Spec]:
    """Add the columns of one computed feature after the other; yields the spec without what is done."""
    yield spec
    for name, counter in spec.counters.items():
        events = None if counter.over is None else log.events[counter.over]
        log.rows = log.rows.hstack(count(log.rows, name, counter, events))
        yield (spec := _without(spec, "counters", name))
    for name, match in spec.matches.items():
        listed = spec.domains[match.domain].from_list is not None
        compute = list_match_columns if listed else match_columns
        log.rows = log.rows.hstack(compute(log.rows, log.events[match.domain], name, match))
        yield (spec := _without(spec, "matches", name))
    for name, pair in spec.pairs.items():
        past = None if pair.domain is None else log.events[pair.domain]
        found = pair_columns(log.rows, name, pair, past)
        log.rows, encoded.counters = log.rows.hstack(found.columns), encoded.counters | found.counters
        yield (spec := _without(spec, "pairs", name))
    if spec.ages:
        log.rows = with_ages(log.rows, spec.ages, log.counters)
        yield (spec := spec.model_copy(update={"ages": {}}))
    if spec.crosses:
        fitting.parts(part_types(log.rows, spec.crosses), encoded)
        log.rows = with_crosses(log.rows, spec.crosses)
        yield (spec := spec.model_copy(update={"crosses": {}}))
    for name, page in spec.pages.items():
        columns = page_columns(log.rows, name, page, position=spec.impressions.position)
        log.rows = log.rows.hstack(columns)
        yield (spec := _without(spec, "pages", name))


def _encode_ready(spec: Spec, pending: list[Use], encoded: Encoded, fitting: Fitting) -> Iterator[None]:
    """Encode tables all of whose uses are ready, in the spec's order, then the others; yields after each."""
    for name in spec.tables:
        uses = [u for u in pending if isinstance(u.feature, IdFeature) and u.feature.table == name]
        if uses and all(use.ready for use in uses):
            fitting.table(name, uses, encoded)
            yield
    for use in pending:
        if not isinstance(use.feature, IdFeature) and use.ready:
            fitting.other(use, encoded)
            yield


def _without(spec: Spec, kind: str, name: str) -> Spec:
    return spec.model_copy(update={kind: {n: v for n, v in getattr(spec, kind).items() if n != name}})


def _without_encoded(spec: Spec, encoded: Encoded) -> Spec:
    """The spec without the features and side info that are encoded."""
    features = {n: f for n, f in spec.features.items() if n not in encoded.described}
    domains = {}
    for name, domain in spec.domains.items():
        side = {n: f for n, f in domain.side.items() if f"{name}/{n}" not in encoded.described}
        domains[name] = domain.model_copy(update={"side": side})
    return spec.model_copy(update={"features": features, "domains": domains})
