"""Behaviour of a block of users: what they do on their own, and what their impressions cause."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from features.synthetic.catalogue import Catalogue, draw_items
from features.synthetic.people import People, draw_interests, draw_times
from features.synthetic.settings import HOUR, Sizes

VIEW, CART, SEARCH = 0, 1, 2
CLICKED, SKIPPED = 0, 1
OUTCOMES = ("clicked", "skipped")
QUERIES_PER_CATEGORY = 10

_DOMAIN_SHARE = np.array([0.72, 0.12, 0.16])  # view, cart, search
_EVENTS_PER_SESSION = 6
_NOTICED = 0.35  # chance that an unclicked impression is logged as a skipped view
_MOST = 8  # no user has more than this many times the mean


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events of one block as parallel arrays (n,), in no promised order.

    Attributes:
        user: index inside the block.
        time: seconds.
        item: index of the item; for a search only its category counts.
        domain: VIEW, CART or SEARCH.
        outcome: CLICKED or SKIPPED; of a view only.
        dwell: seconds spent, of a view only.
        query: local number of the query inside its category, of a search only.
    """

    user: np.ndarray
    time: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    outcome: np.ndarray
    dwell: np.ndarray
    query: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def where(self, mask: np.ndarray) -> Events:
        """The events for which `mask` (n,) is true."""
        return Events(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


def concat(parts: list[Events]) -> Events:
    """All events of the parts, one after the other."""
    return Events(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Events)})


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Events of one kind, parallel arrays (n,): user inside the block, time in seconds, item."""

    user: np.ndarray
    time: np.ndarray
    item: np.ndarray

    @classmethod
    def of(cls, events: Events, kind: np.ndarray) -> Trace:
        """The events for which `kind` (n,) is true."""
        rows = np.flatnonzero(kind)
        return cls(user=events.user[rows], time=events.time[rows], item=events.item[rows])

    def of_users(self, wanted: np.ndarray) -> Trace:
        """The events of the users for whom `wanted` (U,) is true."""
        rows = np.flatnonzero(wanted[self.user])
        if len(rows) == len(self.user):
            return self
        return Trace(user=self.user[rows], time=self.time[rows], item=self.item[rows])

    def then(self, other: Trace) -> Trace:
        """Both traces, one after the other."""
        if len(other.time) == 0:
            return self
        return Trace(
            user=np.concatenate([self.user, other.user]),
            time=np.concatenate([self.time, other.time]),
            item=np.concatenate([self.item, other.item]),
        )


@dataclass(frozen=True, kw_only=True)
class History:
    """The events that the click model reads, by kind."""

    clicked: Trace
    skipped: Trace
    carts: Trace
    searches: Trace

    @classmethod
    def of(cls, events: Events) -> History:
        """Sort events into their kinds."""
        view = events.domain == VIEW
        return cls(
            clicked=Trace.of(events, view & (events.outcome == CLICKED)),
            skipped=Trace.of(events, view & (events.outcome == SKIPPED)),
            carts=Trace.of(events, events.domain == CART),
            searches=Trace.of(events, events.domain == SEARCH),
        )

    def of_users(self, wanted: np.ndarray) -> History:
        """The events of the users for whom `wanted` (U,) is true."""
        return History(**{f.name: getattr(self, f.name).of_users(wanted) for f in fields(self)})

    def then(self, events: Events) -> History:
        """This history and further events."""
        more = History.of(events)
        return History(**{f.name: getattr(self, f.name).then(getattr(more, f.name)) for f in fields(self)})


def organic_events(rng: np.random.Generator, catalogue: Catalogue, people: People, sizes: Sizes) -> Events:
    """Draw what the users of a block do on their own, in sessions, sorted by (user, time).

    Returns:
        The events; some users have none. All views have the outcome CLICKED.
    """
    user = np.repeat(np.arange(len(people)), _event_counts(rng, people, sizes))
    time = _session_times(rng, people, sizes, user)
    time = time[np.lexsort((time, user))]
    category = draw_interests(rng, catalogue, people, sizes, user=user, time=time)
    loyal = rng.random(len(user)) < 0.5
    brand = np.where(loyal, people.favourites[user, category], -1)
    n = len(user)
    return Events(
        user=user,
        time=time,
        item=draw_items(rng, catalogue, category=category, local_brand=brand, time=time),
        domain=rng.choice(3, size=n, p=_DOMAIN_SHARE).astype(np.int8),
        outcome=np.full(n, CLICKED, dtype=np.int8),
        dwell=rng.lognormal(3.2, 0.8, size=n).astype(np.float32),
        query=rng.integers(QUERIES_PER_CATEGORY, size=n),
    )


def caused_events(
    rng: np.random.Generator, *, user: np.ndarray, time: np.ndarray, item: np.ndarray, clicked: np.ndarray
) -> Events:
    """Views that follow one impression per row: a click always, a skip if it was noticed.

    Args:
        rng: random numbers.
        user: (n,) index inside the block.
        time: (n,) request times, seconds.
        item: (n,) shown items.
        clicked: (n,) bool.

    Returns:
        Views with times strictly after the request's.
    """
    n = len(user)
    seen = clicked | (rng.random(n) < _NOTICED)
    delay = np.where(clicked, rng.integers(2, 60, size=n), rng.integers(1, 10, size=n))
    dwell = np.where(clicked, rng.lognormal(3.2, 0.8, size=n), rng.uniform(0.1, 2.0, size=n))
    return Events(
        user=user,
        time=time + delay,
        item=item,
        domain=np.full(n, VIEW, dtype=np.int8),
        outcome=np.where(clicked, CLICKED, SKIPPED).astype(np.int8),
        dwell=dwell.astype(np.float32),
        query=np.zeros(n, dtype=np.int64),
    ).where(seen)


def _event_counts(rng: np.random.Generator, people: People, sizes: Sizes) -> np.ndarray:
    """Events per user: a gamma-Poisson mixture in proportion to the time since joining; 1 in 25 has none."""
    mean = sizes.events_per_user * rng.gamma(1.5, 1 / 1.5, size=len(people)).clip(max=_MOST)
    life = (sizes.end - people.joined) / (sizes.end - sizes.first_second)
    return rng.poisson(mean * life) * (rng.random(len(people)) >= 0.04)


def _session_times(rng: np.random.Generator, people: People, sizes: Sizes, user: np.ndarray) -> np.ndarray:
    """Event times (n,): each event belongs to one of its user's sessions, and they follow within minutes."""
    sessions = np.bincount(user, minlength=len(people)) // _EVENTS_PER_SESSION + 1
    offset = np.cumsum(sessions) - sessions
    owner = np.repeat(np.arange(len(people)), sessions)
    begin = draw_times(rng, people.joined[owner], sizes.end)
    chosen = offset[user] + (rng.random(len(user)) * sessions[user]).astype(np.int64)
    return begin[chosen] + np.minimum(rng.exponential(600.0, size=len(user)), 3 * HOUR).astype(np.int64)
