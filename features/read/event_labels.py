"""Labels made of later events: did the user do something with the item within so long after it was shown?

    y = 1 if an event of the same user and item began when the impression was over, and was over in time
    y = 0 if none did; missing where the time was not over when the newest event of the domain began

Events of the impression's own tick, such as the same second, are not after it, unless the spec's `order`
says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from features.errors import ConfigError, DataError
from features.known import FromEvents
from features.read.clock import CLOCK, TIME, ClockScale
from features.read.columns import event_rules
from features.read.known_clock import TARGET, known_column
from features.read.targets import YOUNG, label_columns, only_given, without_young
from features.read.where import holds
from features.spec import Spec

LONG_AGO = -(2**62)
_FIRST = "__first_after"  # the least clock of an event that lies after the row
_FOUND = "__found"


def refuse_event_labels(spec: Spec) -> None:
    """Refuse labels made of events of which it is not known of what they are, or when.

    Raises:
        ConfigError: naming the label and its domain.
    """
    for name, rule in spec.impressions.from_events.items():
        domain, what = spec.domains[rule.domain], f"label {name!r}: from_events"
        if domain.item is None or domain.from_list is not None:
            lacks = "no item" if domain.item is None else "no times"
            raise ConfigError(
                f"{what} needs a domain with an item and times, but {rule.domain!r} has {lacks}; name another"
            )
        if late := sorted({*event_rules(domain)} & {*rule.where}):
            raise ConfigError(f"{what}.where reads {late}, which are known later than their event; drop them")


def labels_of_whole_log(
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    spec: Spec,
    *,
    ticks: Mapping[str | None, float],
    scale: ClockScale,
    counters: dict[str, int],
) -> pl.DataFrame:
    """Rows with what only the whole log tells of labels: those of later events, and which are not mature.

    Args:
        rows: impressions with `__user`, `__item`, `__clock`, and the clocks at which labels are known.
        events: of every domain, with the same codes and clocks.
        spec: its impressions say which tasks there are.
        ticks: seconds of a logged time, of each domain and (None) of the impressions.
        scale: what clocks are counted in without an order.
        counters: gets the labels of 1 where the label that they need is not 1; these are left out.

    Raises:
        DataError: there is an order, and times that are logged to ticks of several lengths.
    """
    end = int(rows[TIME].to_numpy().max()) if rows.height else None
    rows = without_young(rows, spec.impressions, TIME, end=end)
    domains = {rule.domain for rule in spec.impressions.from_events.values()}
    newest = {d: int(events[d][CLOCK].to_numpy().max(initial=LONG_AGO)) for d in domains}
    return labels_of_events(rows, events, spec, newest=newest, ticks=ticks, scale=scale, counters=counters)


def labels_of_events(
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    spec: Spec,
    *,
    newest: Mapping[str, int],
    ticks: Mapping[str | None, float],
    scale: ClockScale,
    counters: dict[str, int],
) -> pl.DataFrame:
    """Rows of some users with the labels that are made of their later events.

    Args:
        rows: impressions, as of `labels_of_whole_log`.
        events: of the same users.
        spec: its impressions say which tasks there are.
        newest: the last clock of all events of each domain.
        ticks: as of `labels_of_whole_log`.
        scale: the same.
        counters: the same.
    """
    for name, rule in spec.impressions.from_events.items():
        task = spec.impressions.tasks[name]
        shown, event = _tick_lengths(name, rule, spec, ticks, scale)
        # An event's clock is the start of its tick + its length − the shortest one (features.read.clock);
        # with an order clocks are ranks, and all ticks as long.
        late = event - scale.shortest
        first = rows[CLOCK] + (1 if spec.order else shown + late)
        own, ends = events[rule.domain], rows[known_column(TARGET + name)]
        young = ends >= newest[rule.domain] - late
        found = _happened(rows.with_columns(first.alias(_FIRST)), _counted(own, rule, name), until=ends)
        found = only_given(found.cast(pl.Float32), name, task, rows, counters)
        rows = rows.with_columns(
            *label_columns(rows, name, task, found.set(young, None), what=f"label {name!r}"),
            (young & found.is_not_null()).alias(YOUNG + name),
        )
    return rows


def _counted(events: pl.DataFrame, rule: FromEvents, name: str) -> pl.DataFrame:
    """The events that make a label 1."""
    for column, values in rule.where.items():
        what = f"label {name!r}, from_events"
        events = events.filter(holds(column, events.schema[column], values, what=what))
    return events


def _tick_lengths(
    name: str, rule: FromEvents, spec: Spec, ticks: Mapping[str | None, float], scale: ClockScale
) -> tuple[int, int]:
    """How long a logged time of the impressions and of the events lasts, in units of the clock."""
    shown, event = (round(ticks[table] * scale.per_second) for table in (None, rule.domain))
    if spec.order and not shown == event == scale.shortest:
        raise DataError(
            f"label {name!r}: with an order, from_events needs times of one tick, got {ticks[None]:g} s of "
            f"the impressions, {ticks[rule.domain]:g} s of domain {rule.domain!r} and at least "
            f"{scale.shortest / scale.per_second:g} s elsewhere; drop the order, or log times alike"
        )
    return shown, event


def _happened(rows: pl.DataFrame, events: pl.DataFrame, *, until: pl.Series) -> pl.Series:
    """Whether the first event of each row's user and item after it comes by the clock `until`."""
    keys = ["__user", "__item"]
    found = (
        rows.select(*keys, _FIRST)
        .with_row_index("__row_index")
        .sort(_FIRST)
        .join_asof(
            events.select(*keys, pl.col(CLOCK).alias(_FOUND)).sort(_FOUND),
            left_on=_FIRST,
            right_on=_FOUND,
            by=keys,
            strategy="forward",
            check_sortedness=False,
        )
        .sort("__row_index")[_FOUND]
    )
    return (found <= until).fill_null(False)
