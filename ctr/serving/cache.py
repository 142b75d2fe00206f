"""Request states by (model, user, history position): a bounded cache that drops the least recently used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ctr.models.request_state import RequestState

Span = tuple[int, int]  # the events start … end − 1 of a domain's store


class StateKey(NamedTuple):
    """All that the sequence side of a request depends on."""

    model: str  # digest of weights, configuration and data set
    user: int
    spans: tuple[Span, ...]  # the history, domain by domain
    time: int | None  # of the request, if the tokens of events hold the gap to it


class Entry(NamedTuple):
    """A state, and the request whose features it holds."""

    state: RequestState
    request: Hashable


@dataclass(frozen=True)
class CacheStats:
    """Counts of the cache since the start; `entries` and `bytes` as they are now."""

    hits: int = 0
    appended: int = 0  # an older state of the user was extended by newer events
    misses: int = 0
    evicted: int = 0
    too_large: int = 0  # states larger than the whole cache
    entries: int = 0
    bytes: int = 0
    max_bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits and appended states over all requests; 0 before the first."""
        requests = self.hits + self.appended + self.misses
        return (self.hits + self.appended) / requests if requests else 0.0


class StateCache:
    """A cache of at most `max_bytes` of states, which threads may share; 0 keeps none.

    Args:
        max_bytes: bytes of tensors.

    Raises:
        ValueError: a negative bound.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self._entries: OrderedDict[StateKey, Entry] = OrderedDict()
        self._newest: dict[tuple[str, int], StateKey] = {}  # (model, user) → the state put last
        self._lock = threading.Lock()
        self._stats = CacheStats(max_bytes=max_bytes)

    @property
    def stats(self) -> CacheStats:
        """A copy of the counts."""
        with self._lock:
            return self._stats

    def find(self, key: StateKey) -> Entry | None:
        """The state with this key, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def newest(self, model: str, user: int) -> tuple[StateKey, Entry] | None:
        """The state of the user that was put last, whatever its history."""
        with self._lock:
            key = self._newest.get((model, user))
            return None if key is None else (key, self._entries[key])

    def put(self, key: StateKey, entry: Entry) -> None:
        """Keep a state, and drop others until all fit."""
        size = entry.state.nbytes
        with self._lock:
            if size > self._stats.max_bytes:
                self._stats = replace(self._stats, too_large=self._stats.too_large + 1)
                return
            self._drop(key)
            while self._stats.bytes + size > self._stats.max_bytes:
                self._drop(next(iter(self._entries)))
                self._stats = replace(self._stats, evicted=self._stats.evicted + 1)
            self._entries[key] = entry
            self._newest[key.model, key.user] = key
            self._stats = replace(self._stats, entries=len(self._entries), bytes=self._stats.bytes + size)

    def count(self, *, hits: int = 0, appended: int = 0, misses: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            now = self._stats
            self._stats = replace(
                now, hits=now.hits + hits, appended=now.appended + appended, misses=now.misses + misses
            )

    def _drop(self, key: StateKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if self._newest.get((key.model, key.user)) == key:
            del self._newest[key.model, key.user]
        left = self._stats.bytes - entry.state.nbytes
        self._stats = replace(self._stats, entries=len(self._entries), bytes=left)
