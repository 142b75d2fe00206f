"""The data set that a new day goes on from, and the new day's log in its codes and on its clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.dataset import Dataset
from features.errors import ConfigError, DataError
from features.lineage.state import State
from features.names import under
from features.read.clock import CLOCK, TIME
from features.read.codes import code_of
from features.read.fraction import FRACTION
from features.read.locate import locate
from features.read.log import Log, Tables, read_log
from features.read.moment import SECOND, shown_moment
from features.spec import Spec, load_spec
from features.store.manifest import Grown, Lineage

_OWN = {"name", "split", "slices"}  # of the spec: what a day may have of its own
_MOST = 10
_NANOSECONDS = 10**15  # times since 1970 are above in nanoseconds, and below in seconds


class Parent:
    """A data set that holds a state, opened to be gone on from.

    Args:
        root: its directory.
        spec: of the new day, as written.

    Raises:
        DataError: it is damaged, or holds no state.
        ConfigError: its spec would give other codes, numbers or columns.
    """

    def __init__(self, root: Path, spec: Spec) -> None:
        self.dataset = Dataset(root)
        found = load_spec(under(self.dataset.root, "spec.yaml"))
        _check_specs(root, found, spec)
        self.state = State.read(self.dataset, found)

    def with_ticks(self, spec: Spec) -> Spec:
        """The spec with the ticks of the earlier days: a short log may look coarser than it is."""
        ticks = self.state.ticks
        shown = spec.impressions.model_copy(update={"tick": ticks[""]})
        domains = {n: d.model_copy(update={"tick": ticks[n]}) for n, d in spec.domains.items()}
        return spec.model_copy(update={"impressions": shown, "domains": domains})

    def read(self, spec: Spec, tables: Tables) -> tuple[Log, int, int]:
        """The rows of the new day and the events of all days; how many users and items are new.

        Raises:
            DataError: a row or event that is not later than all of the earlier days, another clock, or keys
                of another type.
        """
        log = read_log(self.with_ticks(spec), tables)
        self._check_clock(spec, log)
        self._check_later(log)
        old = {what: self._keys(f"{what}s") for what in ("user", "item")}
        found = {"user": log.users, "item": log.items}
        keys = {what: _appended(old[what], found[what], what, self.dataset.root) for what in old}
        frames = {name: _recoded(frame, found, keys) for name, frame in _frames(log)}
        if spec.order:
            frames = {n: f.with_columns(pl.col(CLOCK) + self.state.ranks) for n, f in frames.items()}
        events = {
            # Later than all that is kept, so that each user's stay sorted.
            name: pl.concat([self.state.events[name], frames[name]], how="vertical_relaxed").sort(
                "__user", maintain_order=True
            )
            for name in log.events
        }
        log = replace(log, rows=frames[None], events=events, users=keys["user"], items=keys["item"])
        return log, len(keys["user"]) - len(old["user"]), len(keys["item"]) - len(old["item"])

    def lineage(self, grew: dict[str, Grown]) -> Lineage:
        """What the manifest of the new day says of its origin."""
        manifest = self.dataset.manifest
        before = [] if manifest.lineage is None else manifest.lineage.ancestors
        return Lineage(
            parent=self.dataset.root.absolute().name,
            ancestors=[*before, manifest.digest()],
            end=self.state.end,
            impressions=self.state.impressions,
            grew=grew,
        )

    def _keys(self, name: str) -> pl.Series:
        """The raw key of every code."""
        book = pq.read_table(under(self.dataset.root, "keys", f"{name}.parquet"))
        return pl.Series("key", book["key"])

    def _check_clock(self, spec: Spec, log: Log) -> None:
        assert log.scale is not None
        if [log.scale.per_second, log.scale.shortest] != self.state.clock:
            raise DataError(
                f"the times of the new day must be in the units of {self.dataset.root}, "
                f"{self.state.clock[0]} a second in ticks of {self.state.clock[1]}, got "
                f"{log.scale.per_second} in ticks of {log.scale.shortest}; set time_unit in the spec, and "
                "prepare both again"
            )
        if FRACTION in log.rows.columns and self._is_of_seconds(spec):
            raise DataError(
                f"{self.dataset.root} must hand on the times of its log, which are finer than a second, but "
                "holds whole seconds, as earlier versions wrote them; prepare its days again with --state"
            )
        if spec.order and log.ticks_differ:
            raise DataError(
                "a log with `order` whose tables have ticks of several lengths cannot go on from another "
                "data set: an event of its last day may end after the first rows of the next; drop order, "
                "or prepare all days at once"
            )

    def _is_of_seconds(self, spec: Spec) -> bool:
        """Whether the state lacks what lies within a second."""
        leaving = [
            self.state.counters[name].keys for name, c in spec.counters.items() if c.window is not None
        ]
        return any(FRACTION not in events.columns for events in self.state.events.values()) or any(
            keys.height and keys["time"].to_numpy().max() < _NANOSECONDS for keys in leaving
        )

    def _check_later(self, log: Log) -> None:
        for name, frame in _frames(log):
            early = frame[TIME] <= self.state.end
            if not early.any():
                continue
            what = "impressions" if name is None else f"events of domain {name!r}"
            first = shown_moment(int(frame[TIME][int(early.arg_max() or 0)]) * SECOND)
            where = f", {locate(log.origin.rows(), early)}" if name is None else ""
            raise DataError(
                f"all rows of a new day must be later than {self.dataset.root}, which ends at "
                f"{shown_moment(self.state.end * SECOND)}, but {int(early.sum()):,} of {frame.height:,} "
                f"{what} are not; the first is at {first}{where}; give the files of the new day alone"
            )


def _frames(log: Log) -> Iterator[tuple[str | None, pl.DataFrame]]:
    yield None, log.rows
    yield from log.events.items()


def _appended(old: pl.Series, found: pl.Series, what: str, root: Path) -> pl.Series:
    """The keys of the earlier days with the new ones behind them."""
    if len(old) and len(found) and old.dtype != found.dtype:
        raise DataError(
            f"{what} keys must be {old.dtype} as in {root}, the new day has {found.dtype}; correct the column"
        )
    return pl.concat([old, found.filter(~found.is_in(old.implode()))]) if len(old) else found


def _recoded(frame: pl.DataFrame, found: dict[str, pl.Series], keys: dict[str, pl.Series]) -> pl.DataFrame:
    """With the codes of all days instead of those of the new one; −1 stays."""
    for what in ("user", "item"):
        if f"__{what}" in frame.columns:
            code = np.append(code_of(found[what], keys[what]), -1)[frame[f"__{what}"].to_numpy()]
            frame = frame.with_columns(pl.Series(f"__{what}", code, dtype=pl.Int64))
    return frame


def _check_specs(root: Path, old: Spec, new: Spec) -> None:
    """Refuse a spec that means something else by any value."""
    one, other = (_flat(spec.model_dump(mode="json", exclude=_OWN)) for spec in (old, new))
    wrong = [k for k in sorted({**one, **other}) if one.get(k) != other.get(k) and not _is_place(k)]
    if wrong:
        said = [f"  {key}: {one.get(key)!r} there, {other.get(key)!r} here" for key in wrong[:_MOST]]
        more = [f"  … and {len(wrong) - _MOST} more"] if len(wrong) > _MOST else []
        raise ConfigError(
            f"the spec must say what that of {root} says, except {', '.join(sorted(_OWN))} and source.path, "
            "but differs:\n" + "\n".join([*said, *more])
        )


def _is_place(key: str) -> bool:
    """Whether a key of the spec says where the day's rows are, and not what they mean."""
    return key == "source.path" or (key.startswith("source.tables.") and key.endswith(".version"))


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested mappings by its path."""
    if not isinstance(data, dict) or not data:
        return {path: data}
    return {k: v for key, own in data.items() for k, v in _flat(own, f"{path}.{key}".lstrip(".")).items()}
