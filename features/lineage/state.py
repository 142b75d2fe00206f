"""What a data set hands on to the next day, in `state/` beside its files.

state.json               the clock, the end, totals of all rows
users.arrow              of every user code: whether the user was shown anything
events-<domain>.arrow    raw events as far back as a later history or match can reach
counter-<name>.arrow     totals by key, or by key and second in which they leave the window
values-<table>.arrow     how often each value was counted
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from features.dataset import Dataset
from features.errors import DataError, first_line
from features.lineage.counters import CounterTotals
from features.lineage.vocabulary import Counted
from features.names import under
from features.partitions.frames import read_frame, write_frame
from features.read.clock import CLOCK
from features.spec import Spec
from features.store.write import write_json

FOLDER = "state"


@dataclass(frozen=True)
class State:
    """What a new day begins with.

    Attributes:
        end: the last second of any row or event.
        impressions: of all days.
        ranks: how many clocks there are, with an `order`.
        clock: units a second, and units of the shortest tick.
        ticks: seconds that a logged time stands for: domain, or "" of the impressions.
        shown: bool (users,), whether a user was shown anything.
        events: domain → raw events.
        counters, values: totals by counter and by ID table.
    """

    end: int
    impressions: int
    ranks: int
    clock: list[int]
    ticks: dict[str, float]
    shown: pl.Series
    events: dict[str, pl.DataFrame]
    counters: dict[str, CounterTotals]
    values: dict[str, Counted]

    def write(self, root: Path) -> None:
        """Write `state/` of a data set."""
        folder = root / FOLDER
        folder.mkdir()
        write_frame(folder / "users.arrow", self.shown.to_frame("shown"))
        for domain, events in self.events.items():
            write_frame(folder / f"events-{domain}.arrow", events)
        for name, totals in self.counters.items():
            write_frame(folder / f"counter-{name}.arrow", totals.keys)
        for name, counted in self.values.items():
            write_frame(folder / f"values-{name}.arrow", counted.frame)
        plain = {name: getattr(self, name) for name in ("end", "impressions", "ranks", "clock", "ticks")}
        write_json(folder / "state.json", {**plain, "every": {n: t.every for n, t in self.counters.items()}})

    @classmethod
    def read(cls, dataset: Dataset, spec: Spec) -> State:
        """Read `state/` of a data set, whose files are verified.

        Raises:
            DataError: it has none, or not what `ctr prepare` wrote.
        """
        folder = under(dataset.root, FOLDER)
        if f"{FOLDER}/state.json" not in dataset.manifest.files:
            raise DataError(
                f"{dataset.root} must hold a state that a new day can go on from, but was prepared without; "
                "prepare it again with --state"
            )
        try:
            plain: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
            every = plain.pop("every")
            return cls(
                **plain,
                shown=read_frame(folder / "users.arrow")["shown"],
                events={n: read_frame(folder / f"events-{n}.arrow") for n in spec.domains},
                counters={
                    n: CounterTotals(read_frame(folder / f"counter-{n}.arrow"), every[n])
                    for n in spec.counters
                },
                values={
                    n: Counted(read_frame(folder / f"values-{n}.arrow"))
                    for n, t in spec.tables.items()
                    if n in dataset.manifest.tables and t.encode == "vocabulary"
                },
            )
        except (LookupError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder} must be there as ctr prepare wrote it, got {first_line(error)}; prepare again"
            ) from None


def kept_events(events: pl.DataFrame, spec: Spec, domain: str, *, ticks_differ: bool) -> pl.DataFrame:
    """The events, sorted by (user, clock), that a row after all of them may still need.

    A match looks at all events of a user. A history takes the newest `max_len`, and one more tells the gap
    before the first of them; where tables have ticks of several lengths, some events may be later than a row.
    """
    if ticks_differ or any(match.domain == domain for match in spec.matches.values()):
        return events
    newest = pl.int_range(pl.len(), 0, -1).over("__user")
    return events.filter(newest <= spec.domains[domain].max_len + 1)


def clocks_of(rows: pl.DataFrame, events: dict[str, pl.DataFrame]) -> int:
    """One more than the largest clock."""
    return 1 + max((int(f[CLOCK].to_numpy().max()) for f in (rows, *events.values()) if f.height), default=-1)
