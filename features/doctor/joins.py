"""Checks of what a log cannot prove: failed joins, new values, shared counts, events beside impressions."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.dataset import Column, EventStore
from features.doctor.opened import CheckResult, Opened
from features.doctor.profile import unseen_rate
from features.doctor.sample import Sample

_FAILED = 0.1  # of the rows
_NEW = 0.2  # unknown values, beyond those of training
_SHARED = 0.05  # of the pairs that were looked up
_BESIDE = 0.01  # of the events
_LATER = 0.01  # of the impressions
_FEW = 50
_MANY = 200_000  # rows of a part, and events, that are looked at


def joins_found(opened: Opened) -> CheckResult:
    """Most users and items of the log have a row in the tables of users and items."""
    manifest = opened.data.manifest
    sizes = {f"events.{name}": info.events for name, info in manifest.domains.items()}
    sizes["impressions"] = sum(split.impressions for split in manifest.splits.values())
    failed = []
    for name, rows in sizes.items():
        for what in ("user", "item"):
            share = manifest.counters.get(f"{name}.unknown_{what}", 0) / max(rows, 1)
            if share > _FAILED:
                failed.append(f"{share:.0%} of {name} have no row in the table of {what}s")
    return ("warn", f"{'; '.join(failed)}; compare the keys of both tables") if failed else ("pass", "")


def unknown_values(opened: Opened) -> CheckResult:
    """No vocabulary meets many more unknown values after training than in it."""
    wrong = []
    for column in opened.data.manifest.features:
        info = None if column.table is None else opened.data.manifest.tables[column.table]
        if info is None or info.encode != "vocabulary":
            continue
        rates = {n: unseen_rate(s.ids(column).values, info.oov_rows) for n, s in opened.samples.items()}
        enough = [n for n, s in opened.samples.items() if n != "train" and len(s.row) >= _FEW]
        later = max((rates[n] for n in enough), default=0.0)
        if later - np.nan_to_num(rates["train"]) > _NEW:
            wrong.append(f"{column.name} {rates['train']:.1%}, later {later:.1%}")
    if not wrong:
        return "pass", ""
    # Measured, with this outcome: docs/leakage.md.
    remedy = (
        "let counts and matches carry what is new; on two logs neither min_count, id_dropout nor leaving the "
        "ID out helped for certain, so compare them on the validation part"
    )
    return "warn", f"unknown in training {'; '.join(wrong)}; {remedy}"


def names_of_ages(opened: Opened) -> list[str]:
    """The ages of the spec."""
    ends = ("age.", ".later_than_request")
    found = (
        key for key in opened.data.manifest.counters if key.startswith(ends[0]) and key.endswith(ends[1])
    )
    return [key.removeprefix(ends[0]).removesuffix(ends[1]) for key in found]


def moments_before(opened: Opened, name: str) -> CheckResult:
    """Few moments of an age lie after the request: more tell that the column is not of a thing that stays."""
    manifest = opened.data.manifest
    later = manifest.counters[f"age.{name}.later_than_request"]
    rows = sum(split.impressions for split in manifest.splits.values())
    if not later:
        return "pass", ""
    text = f"{later:,} of {rows:,} impressions are earlier than the moment, their age is missing"
    if later <= _LATER * rows:
        return "pass", text
    return "warn", (
        f"{text}; a column that is written anew, such as the last visit, tells of the end of the log: "
        "take one that stays as it is, such as when the item was made"
    )


def sharing_pairs(opened: Opened) -> list[str]:
    """The pair statistics of which more pairs are possible than have a count of their own."""
    ends = (".possible_pairs", "pair.")
    return [
        key.removesuffix(ends[0]).removeprefix(ends[1])
        for key in opened.data.manifest.counters
        if key.endswith(ends[0]) and key.startswith(ends[1])
    ]


def shared_counts(opened: Opened, name: str) -> CheckResult:
    """Few pairs of a pair statistic have a count that another pair had first."""
    counters = opened.data.manifest.counters
    asked, shared, possible = (
        counters.get(f"pair.{name}.{what}", 0) for what in ("pairs", "shared_counts", "possible_pairs")
    )
    if shared <= _SHARED * asked:
        return "pass", f"{shared:,} of {asked:,} pairs share a count" if shared else ""
    text = f"{shared / asked:.0%} of the pairs share a count with others: {possible:,} are possible"
    return "warn", f"{text}; raise max_pairs, lower `last`, or take a field of fewer values"


def beside_impressions(opened: Opened, domain: str) -> CheckResult:
    """How many events share the tick of an impression of their user with the same value.

    Such an event may be what came of the impression. It is no history of it, since its tick is not over; but
    where the events' ticks are longer than those of the impressions, it says that they are the same action.
    """
    manifest, store = opened.data.manifest, opened.events[domain]
    tick, other = store.info.tick, manifest.tick
    differ = "" if tick is None or tick == other else f"ticks of {tick:g} s, the impressions' {other:g} s"
    pair = _shared(opened, store)
    if pair is None:
        return "pass", differ
    share = _share(opened, store, *pair, tick=tick or 1.0)
    text = f"{share:.1%} of the events share the tick of an impression of their user and {pair[0].name}"
    if differ and share > _BESIDE:
        return "warn", f"{differ}; {text}: they are history from the end of their tick"
    return "pass", f"{differ}; {text}" if differ else text


def _shared(opened: Opened, store: EventStore) -> tuple[Column, Column] | None:
    """A candidate's feature and a field of the events in one table, the largest there is."""
    tables = opened.data.manifest.tables
    pairs = [
        (feature, side)
        for feature in opened.data.manifest.features
        for side in store.info.side
        if (feature.level, feature.kind, side.kind) == ("candidate", "id", "id")
        and feature.table == side.table
        and not side.known_later
    ]
    return max(pairs, key=lambda p: tables[str(p[0].table)].rows, default=None)


def _share(opened: Opened, store: EventStore, feature: Column, side: Column, *, tick: float) -> float:
    """The share of the sampled events for which there is such an impression."""
    step = max(round(tick), 1)
    shown = [
        _keys(s.plain("user_id"), s.plain("time") // step, s.ids(feature).values)
        for s in (Sample.of(split, rows=_MANY) for split in opened.splits.values())
    ]
    size = len(store.time)
    some = np.unique(np.linspace(0, max(size - 1, 0), min(_MANY, size)).astype(np.int64))
    events = _keys(store.user_id[some], store.time[some] // step, store.ids[side.name].values[some])
    if not events.height:
        return 0.0
    return events.join(pl.concat(shown).unique(), on=events.columns, how="semi").height / events.height


def _keys(user: np.ndarray, tick: np.ndarray, value: np.ndarray) -> pl.DataFrame:
    frame = pl.DataFrame({"user": user, "tick": tick, "value": value.astype(np.int64)})
    return frame.filter(pl.col("value") > 0)
