"""Which logs `ctr prepare` still holds in memory as a whole, and why."""

from __future__ import annotations

import polars as pl

from features.computed import Counter
from features.read.columns import dense_columns, event_rules, row_rules
from features.read.log import Tables
from features.spec import Spec


def why_whole(spec: Spec, tables: Tables) -> str | None:
    """Why a log cannot be prepared partition by partition, or None if it can.

    Args:
        spec: without patterns.
        tables: its raw tables.
    """
    exploded = "impressions.explode makes the rows" if spec.impressions.explode is not None else None
    skipped = "source.options.on_error is skip"
    return (
        exploded
        or why_uncut(spec, tables)
        or (skipped if spec.source.options.get("on_error") == "skip" else None)
    )


def why_uncut(spec: Spec, tables: Tables) -> str | None:
    """Why what is computed of a log's rows cannot be computed piece by piece, in time, or None if it can.

    Args:
        spec: without patterns.
        tables: its raw tables.
    """
    reasons = (
        (any(d.from_list is not None for d in spec.domains.values()), "a domain comes as lists (from_list)"),
        (bool(row_rules(spec)), "a label or outcome is known later than its row"),
        (any(t.mature for t in spec.impressions.tasks.values()), "a label is left out until it is mature"),
        (
            any(t.scale == "quantile" for t in spec.impressions.tasks.values()),
            "a label is scaled by quantiles of all rows",
        ),
        (
            any(event_rules(d) for d in spec.domains.values()),
            "a column of events is known later than its row",
        ),
        (any(c.over is not None for c in spec.counters.values()), "a counter counts events (over)"),
        (bool(spec.pairs), "pairs meet the histories of all users in time order"),
        (any(map(_needs_first, spec.counters.values())), "a counter with a window has since_first"),
        (_has_vectors(spec, tables), "a dense feature is a column of lists"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _needs_first(counter: Counter) -> bool:
    """Whether the first row of a window is asked for, which no sum tells."""
    return counter.window is not None and "since_first" in counter.outputs


def _has_vectors(spec: Spec, tables: Tables) -> bool:
    """Whether a dense feature reads lists, whose widths are known when all of them are."""
    read = [(spec.impressions.table, dense_columns(spec.features.values(), "own"))]
    read += [(d.table, dense_columns(d.side.values(), "own")) for d in spec.domains.values()]
    return any(
        isinstance(tables[table].collect_schema().get(c), pl.List) for table, columns in read for c in columns
    )
