"""Which logs `ctr prepare` still holds in memory as a whole, or cannot hand on to the next day, and why."""

from __future__ import annotations

import polars as pl

from features.read.columns import dense_columns, event_rules, row_rules
from features.read.log import Tables
from features.spec import Spec

_PAIRS = "pairs meet the histories of all users in time order"


def why_whole(spec: Spec) -> str | None:
    """Why a log cannot be prepared partition by partition, or None if it can.

    Args:
        spec: without patterns.
    """
    return _PAIRS if spec.pairs else None


def why_uncut(spec: Spec, tables: Tables) -> str | None:
    """Why a log cannot be handed on from one day to the next, or None if it can.

    Args:
        spec: without patterns.
        tables: its raw tables.
    """
    tasks, domains = spec.impressions.tasks.values(), spec.domains.values()
    reasons = (
        (any(d.from_list is not None for d in domains), "a domain comes as lists (from_list)"),
        (bool(row_rules(spec)), "a label or outcome is known later than its row"),
        (any(t.mature for t in tasks), "a label is left out until it is mature"),
        (any(t.scale == "quantile" for t in tasks), "a label is scaled by quantiles of all rows"),
        (any(map(event_rules, domains)), "a column of events is known later than its row"),
        (any(c.over is not None for c in spec.counters.values()), "a counter counts events (over)"),
        (bool(spec.pairs), _PAIRS),
        (_has_vectors(spec, tables), "a dense feature is a column of lists"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _has_vectors(spec: Spec, tables: Tables) -> bool:
    """Whether a dense feature reads lists, whose widths are known when all of them are."""
    read = [(spec.impressions.table, dense_columns(spec.features.values(), "own"))]
    read += [(d.table, dense_columns(d.side.values(), "own")) for d in spec.domains.values()]
    return any(
        isinstance(tables[table].collect_schema().get(c), pl.List) for table, columns in read for c in columns
    )
