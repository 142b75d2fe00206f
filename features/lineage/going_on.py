"""The steps of `ctr prepare` at which a data set that goes on from another one differs from one of its own.

Standalone     a data set of its own, which hands nothing on
FirstDay       a data set of its own, which hands its state on (`--state`)
NextDay        a new day after a data set (`--after`)
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.encode.layout import KNOWN_USER
from features.encode.split import SplitRanges
from features.encode.stages import CountColumns, Fitting
from features.errors import ConfigError
from features.lineage.counters import CountingOn
from features.lineage.fitting import CountingFit, InheritedFit
from features.lineage.parent import Parent
from features.lineage.state import State, clocks_of, kept_events
from features.partitions.whole import why_uncut
from features.partitions.workers import Resources
from features.past.counters import counter_columns
from features.read.clock import CLOCK, TIME
from features.read.fraction import per_second_of
from features.read.log import Log, Tables, read_log
from features.spec import Spec
from features.store.manifest import Grown, Lineage


class Standalone:
    """A data set of its own."""

    fitting: Fitting | None = None
    count: CountColumns = staticmethod(counter_columns)
    lineage: Lineage | None = None

    def read(self, spec: Spec, tables: Tables) -> Log:
        """The log whose rows become those of the data set."""
        return read_log(spec, tables)

    def mark_known_users(self, log: Log, ranges: SplitRanges) -> None:
        """Say which rows are of users that were seen before, where the log alone does not tell."""

    def write(self, root: Path) -> None:
        """Write what the next day needs."""


class FirstDay(Standalone):
    """A data set of its own, which hands its state on."""

    def __init__(self, *, counting: CountingOn | None = None, fitting: CountingFit | None = None) -> None:
        self._counting, self._fit = counting or CountingOn({}), fitting or CountingFit()
        self.fitting, self.count = self._fit, self._counting.columns

    def read(self, spec: Spec, tables: Tables) -> Log:
        """The log whose rows become those of the data set."""
        log = self._log(spec, tables)
        self._keep(spec, log)
        return log

    def write(self, root: Path) -> None:
        """Write what the next day needs, when all is counted."""
        end, (units, shortest) = self._kept.end, self._kept.clock
        per_second = per_second_of(per_second=units, shortest=shortest)
        counters = {name: totals.after(end, per_second) for name, totals in self._counting.totals.items()}
        State(**{**vars(self._kept), "counters": counters, "values": self._fit.counted}).write(root)

    def _log(self, spec: Spec, tables: Tables) -> Log:
        return read_log(spec, tables)

    def _keep(self, spec: Spec, log: Log) -> None:
        """What is known as soon as the log is read: columns go when they are encoded."""
        assert log.scale is not None
        frames = (log.rows, *log.events.values())
        shown = pl.Series("code", range(len(log.users))).is_in(log.rows["__user"].unique().implode())
        self._kept = State(
            end=max(int(frame[TIME].to_numpy().max()) for frame in frames if frame.height),
            impressions=log.rows.height,
            ranks=clocks_of(log.rows, log.events) if spec.order else 0,
            clock=[log.scale.per_second, log.scale.shortest],
            ticks={name or "": seconds for name, seconds in log.ticks.items()},
            shown=shown,
            events={
                name: kept_events(events, spec, name, ticks_differ=log.ticks_differ)
                for name, events in log.events.items()
            },
            counters={},
            values={},
        )


class NextDay(FirstDay):
    """A new day after a data set.

    Args:
        parent: the data set before.
    """

    def __init__(self, parent: Parent) -> None:
        self._parent, self._before = parent, parent.state
        super().__init__(
            counting=CountingOn(self._before.counters),
            fitting=InheritedFit(parent.dataset, self._before.values, self._before.end),
        )

    def mark_known_users(self, log: Log, ranges: SplitRanges) -> None:
        """Users of earlier days are known, and those of the training part after their first row."""
        earlier = self._before.shown
        was_shown = earlier.gather(log.rows["__user"].clip(upper_bound=max(len(earlier) - 1, 0)))
        was_shown &= log.rows["__user"] < len(earlier)
        in_train = pl.int_range(pl.len()) < ranges.valid_start
        first = pl.when(in_train).then(CLOCK).min().over("__user")
        known = pl.lit(was_shown) | (first < pl.col(CLOCK)).fill_null(False)
        log.rows = log.rows.with_columns(known.alias(KNOWN_USER))

    @property
    def lineage(self) -> Lineage:  # type: ignore[override]
        """What the data set goes on from, when all is encoded."""
        return self._parent.lineage({**self._grew, **self._fit.grew})

    def _log(self, spec: Spec, tables: Tables) -> Log:
        log, new_users, new_items = self._parent.read(spec, tables)
        self._grew = {"users": Grown(new=new_users), "items": Grown(new=new_items)}
        return log

    def _keep(self, spec: Spec, log: Log) -> None:
        super()._keep(spec, log)
        before, kept = self._before, vars(self._kept)
        padded = before.shown.extend_constant(False, len(log.users) - len(before.shown))
        kept |= {"impressions": before.impressions + log.rows.height, "shown": kept["shown"] | padded}
        kept["end"] = max(kept["end"], before.end)
        kept["ranks"] = max(kept["ranks"], before.ranks)
        self._kept = State(**kept)


def one_part(full: Spec, tables: Tables, resources: Resources) -> int:
    """One partition, of a log that can be handed on from one day to the next.

    Raises:
        ConfigError: naming it.
    """
    if (reason := why_uncut(full, tables)) is not None:
        raise ConfigError(f"--after and --state cannot hand this log on: {reason}; prepare all days at once")
    if resources.partitions not in (None, 1) or resources.workers > 1 or resources.dask is not None:
        raise ConfigError(
            "--after and --state prepare a day in one partition; drop --partitions, --workers and --dask"
        )
    return 1
