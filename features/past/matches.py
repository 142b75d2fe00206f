"""Match features: how a field of the candidate occurs in the user's earlier events of one domain.

Letters: N rows, E events, P pairs (event, value of the field), Q pairs (row, value of the candidate's field).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from features.errors import ConfigError
from features.past.keys import Keys, encode_keys, nullable
from features.past.known import KnownPast
from features.past.past import Past, running_rate
from features.read.fraction import FRACTION, exact_times, span_of
from features.read.known_clock import OUTCOME, known_column
from features.spec import Match

_CHUNK = 2**18  # rows and events that are looked at together
_SHARE_PARTS = ("__positives", "__with_outcome")


def match_columns(
    rows: pl.DataFrame, events: pl.DataFrame, name: str, match: Match, *, open_share: bool = False
) -> pl.DataFrame:
    """Compute one match feature for every impression from *all* of the user's events strictly before it.

        decayed = Σ 2^(−age / half_life)          share = matches / events (0 without events)
        positive_share = (matches with outcome 1 + running) / (matches with an outcome + 1)

    `share_old` and `share_recent` are the share among events older than `old` and younger than `recent`,
    `count_recent` counts the matches of the latter;
    `running` is the share of outcome 1 in the whole domain strictly before the row, 0.5 before the first. Of
    a field with several values each shared value is a match of its own, so a share may exceed 1. A candidate
    without a value has no outputs; without a match recency is missing. An event whose field is known later
    matches nothing before that, and an outcome counts from when it is known. With `match.outcome` all of this
    is said of the events of that outcome alone, which happen when it is known.

    Args:
        rows: impressions in any order, with `__user`, `__clock`, `__time` (s) and the candidate's field.
        events: the domain's events in any order, with the same reserved columns, the event's field and, if
            the domain declares an outcome, `__outcome` (0, 1 or null).
        name: the match's name in the spec.
        match: which fields, and which outputs.
        open_share: the events are those of some users alone: instead of positive_share, which compares with
            all users, give the two sums that `close_share` makes it of.

    Returns:
        Columns `match.<name>.<output>` in the order of `rows`: counts and recency (seconds) int64, last int8,
        others float64.

    Raises:
        ConfigError: a field is missing, the two differ in type, or the domain lacks an outcome asked for.
    """
    what = f"match {name!r}"
    events = _with_outcome_of(events, match, what)
    wanted = "positive_share" in match.outputs and not open_share
    running = _running(rows, events) if wanted else np.empty(len(rows))
    rows, events = _fields(rows, match.candidate), _fields(events, match.event)
    chunks = list(_user_chunks(rows, events))
    parts = []
    for own, happened in chunks:
        found = _find(rows[own], events[happened], running[own], match, what)
        parts.append(_outputs(found, name, match, open_share=open_share))
    back = np.empty(len(rows), dtype=np.int64)
    back[np.concatenate([own for own, _ in chunks])] = np.arange(len(rows))
    return pl.concat(parts)[back]


def _with_outcome_of(events: pl.DataFrame, match: Match, what: str) -> pl.DataFrame:
    """The events that the match is of, each at the clock from which on that is known."""
    asks = "positive_share" if "positive_share" in match.outputs else match.outcome and "outcome"
    if asks and OUTCOME not in events.columns:
        raise ConfigError(
            f"{what}: {asks} needs an outcome; give domain {match.domain!r} an outcome column or drop it"
        )
    if match.outcome is None:
        return events
    events = events.filter(pl.col(OUTCOME) == int(match.outcome == "positive"))
    return events.with_columns(pl.max_horizontal("__clock", _outcome_clock(events)).alias("__clock"))


def _fields(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """What is read of the rows or events; a missing column is for encode_keys to name."""
    late = (known_column(column), known_column(OUTCOME))
    wanted = dict.fromkeys(("__user", "__clock", "__time", FRACTION, "__outcome", column, *late))
    return table.select(c for c in wanted if c in table.columns) if column in table.columns else table


def _outputs(found: _Found, name: str, match: Match, *, open_share: bool) -> pl.DataFrame:
    wanted: list[str] = list(match.outputs)
    if open_share and "positive_share" in wanted:
        at = wanted.index("positive_share")
        wanted[at : at + 1] = _SHARE_PARTS
    outputs = {output: _OUTPUTS[output](found, match) for output in wanted}
    present = found.keys.present(len(found.rows))
    valid = {"recency": present & (_count(found, match) > 0)}
    return pl.DataFrame(
        [nullable(f"match.{name}.{o}", values, valid.get(o, present)) for o, values in outputs.items()]
    )


def _user_chunks(rows: pl.DataFrame, events: pl.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the rows and of the events of some users at a time: a history is of one user alone."""
    asked, happened = rows["__user"].to_numpy() + 1, events["__user"].to_numpy() + 1  # −1: none
    users = 1 + max(asked.max(initial=0), happened.max(initial=0))
    load = np.bincount(asked, minlength=users) + np.bincount(happened, minlength=users)
    chunk = (np.cumsum(load) - 1) // _CHUNK
    for k in np.unique(chunk[load > 0]) if load.any() else [0]:
        yield np.flatnonzero(chunk[asked] == k), np.flatnonzero(chunk[happened] == k)


@dataclass(frozen=True)
class _Found:
    """Where each pair of a row (Q,) finds its matches, and where each row (N,) finds its user's events."""

    rows: pl.DataFrame
    events: pl.DataFrame
    keys: Keys  # of the rows: (user, value)
    event: np.ndarray  # (P,) index of the event of each pair of the events
    matches: Past  # the events' pairs, by (user, value)
    start: np.ndarray  # (Q,) positions in `matches`
    end: np.ndarray
    clock: np.ndarray  # (P,) the latest clock of an event among a key's matches up to each
    by_outcome: KnownPast  # the same pairs, in the order in which the outcomes were known
    user: np.ndarray  # (N,) codes
    history: Past  # events, by user
    user_start: np.ndarray  # (N,) positions in `history`
    user_end: np.ndarray
    running: np.ndarray  # (N,) share of outcome 1 among everyone's earlier events

    @cached_property
    def time(self) -> np.ndarray:
        """Request time (N,), in units of which `matches.per_second` are a second."""
        return exact_times(self.rows)[0]

    def total(self, pairs: np.ndarray) -> np.ndarray:
        """Sums (N,) of numbers of the pairs (Q,)."""
        return self.keys.per_row(np.add, pairs, len(self.rows))


def _find(rows: pl.DataFrame, events: pl.DataFrame, running: np.ndarray, match: Match, what: str) -> _Found:
    """Search the matches of every pair and the earlier events of every row."""
    fields = [["__user", match.candidate], ["__user", match.event]]
    asked, known = encode_keys(
        rows, events, by=fields, separator=match.separator, what=what, ordered="decayed" in match.outputs
    )
    user, owner = encode_keys(rows, events, by=[["__user"], ["__user"]], what=what)
    clock, event_clock = rows["__clock"].to_numpy(), events["__clock"].to_numpy()
    (time, per_second), late = exact_times(events), known_column(match.event)
    field_clock = np.maximum(event_clock, events[late].to_numpy()) if late in events.columns else event_clock
    matches = Past(known.code, clock=field_clock[known.row], time=time[known.row], per_second=per_second)
    span = matches.before(asked.code, clock[asked.row])
    latest, by_outcome = matches.clock, KnownPast(matches, *span)
    if late in events.columns:
        latest = matches.highest(event_clock[known.row][matches.order])
    if (outcome := _outcome_clock(events)) != "__clock":
        outcome_clock = np.maximum(field_clock, events[outcome].to_numpy())[known.row]
        outcomes = Past(known.code, clock=outcome_clock, time=time[known.row])
        by_outcome = KnownPast.of(outcomes, asked.code, clock[asked.row])
    history = Past(owner.code, clock=event_clock, time=time)
    user_span = history.before(user.code, clock)
    return _Found(
        rows,
        events,
        asked,
        known.row,
        matches,
        *span,
        latest,
        by_outcome,
        user.code,
        history,
        *user_span,
        running,
    )


def _count(found: _Found, match: Match) -> np.ndarray:
    return found.total(found.end - found.start)


def _decayed(found: _Found, match: Match) -> np.ndarray:
    some = np.flatnonzero(found.end > found.start)
    newest = found.end[some] - 1
    age = (found.time[found.keys.row[some]] - found.matches.latest[newest]) / found.matches.per_second
    pairs = np.zeros(len(found.keys.row))
    pairs[some] = found.matches.decayed(match.half_life)[newest] * np.exp2(-age / match.half_life)
    return found.total(pairs)


def _recency(found: _Found, match: Match) -> np.ndarray:
    some = np.flatnonzero(found.end > found.start)
    pairs = np.full(len(found.keys.row), np.iinfo(np.int64).max)
    second = found.rows["__time"].to_numpy()[found.keys.row[some]]
    pairs[some] = second - found.matches.latest[found.end[some] - 1] // found.matches.per_second
    return found.keys.per_row(np.minimum, pairs, len(found.rows))


def _last(found: _Found, match: Match) -> np.ndarray:
    some = np.flatnonzero(found.end > found.start)
    row = found.keys.row[some]
    newest = found.history.clock[found.user_end[row] - 1]
    last = np.zeros(len(found.rows), dtype=np.int8)
    last[row[found.clock[found.end[some] - 1] == newest]] = 1
    return last


def _share(found: _Found, match: Match) -> np.ndarray:
    return _ratio(found.total(found.end - found.start), found.user_end - found.user_start)


def _share_old(found: _Found, match: Match) -> np.ndarray:
    oldest = found.time - span_of(match.old, found.matches.per_second)
    matches, events = _since(found, oldest)  # the others are older
    return _ratio(found.total(found.end - found.start - matches), found.user_end - found.user_start - events)


def _count_recent(found: _Found, match: Match) -> np.ndarray:
    return found.total(_recent(found, match)[0])


def _share_recent(found: _Found, match: Match) -> np.ndarray:
    matches, events = _recent(found, match)
    return _ratio(found.total(matches), events)


def _recent(found: _Found, match: Match) -> tuple[np.ndarray, np.ndarray]:
    """How many matches (Q,) and events (N,) are younger than `recent`."""
    return _since(found, found.time + span_of(-match.recent, found.matches.per_second) + 1)


def _since(found: _Found, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many matches (Q,) and events (N,) are of at least the given time (N,)."""
    matches = found.matches.counts_since(found.keys.code, time[found.keys.row], found.start, found.end)
    return matches, found.history.counts_since(found.user, time, found.user_start, found.user_end)


def _positives(found: _Found, match: Match) -> np.ndarray:
    return found.total(found.by_outcome.sums(_outcomes(found.events)[1][found.event]))


def _with_outcome(found: _Found, match: Match) -> np.ndarray:
    return found.total(found.by_outcome.sums(_outcomes(found.events)[0][found.event]))


def _positive_share(found: _Found, match: Match) -> np.ndarray:
    return (_positives(found, match) + found.running) / (_with_outcome(found, match) + 1)


def close_share(rows: pl.DataFrame, name: str, running: np.ndarray) -> pl.DataFrame:
    """The rows with `match.<name>.positive_share` made of what `open_share` left, and of `running` (N,)."""
    column = f"match.{name}.positive_share"
    sums = [pl.col(f"match.{name}.{part}") for part in _SHARE_PARTS]
    rows = rows.with_columns(((sums[0] + pl.Series("running", running)) / (sums[1] + 1)).alias(column))
    return rows.drop(f"match.{name}.{part}" for part in _SHARE_PARTS)


def _running(rows: pl.DataFrame, events: pl.DataFrame) -> np.ndarray:
    """Share (N,) of outcome 1 among all events with a known outcome strictly before each row."""
    known, positive = _outcomes(events)
    clock, time = (events[name].to_numpy()[known] for name in (_outcome_clock(events), "__time"))
    every = Past(np.zeros(len(clock), dtype=np.int64), clock=clock, time=time)
    _, end = every.before(np.zeros(len(rows), dtype=np.int64), rows["__clock"].to_numpy())
    return running_rate(every, positive[known], end)


def _outcome_clock(events: pl.DataFrame) -> str:
    """The column of the clocks at which outcomes are known."""
    return known_column(OUTCOME) if known_column(OUTCOME) in events.columns else "__clock"


def _outcomes(events: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which events (E,) have a known outcome, and which outcome 1."""
    outcome = events["__outcome"]
    return outcome.is_not_null().to_numpy(), (outcome == 1).fill_null(False).to_numpy()


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


_OUTPUTS = {
    "count": _count,
    "decayed": _decayed,
    "recency": _recency,
    "last": _last,
    "share": _share,
    "share_old": _share_old,
    "share_recent": _share_recent,
    "count_recent": _count_recent,
    "positive_share": _positive_share,
    _SHARE_PARTS[0]: _positives,
    _SHARE_PARTS[1]: _with_outcome,
}
