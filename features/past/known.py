"""Of the past, what was known by then: pairs in the order in which their values became known.

Letters: P pairs that are searched, Q questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.past.past import Past
from features.past.since import sums_since


@dataclass(frozen=True)
class KnownPast:
    """Where each question finds the pairs whose value was known strictly before its clock.

    Attributes:
        past: the pairs, sorted by key and by when their values were known.
        start, end: int64 (Q,) positions in `past`.
        since: int64 (Q,): only pairs of at least this time count; None for all.
    """

    past: Past
    start: np.ndarray
    end: np.ndarray
    since: np.ndarray | None = None

    @classmethod
    def of(
        cls, past: Past, code: np.ndarray, clock: np.ndarray, *, since: np.ndarray | None = None
    ) -> KnownPast:
        """Search pairs whose clock is that at which they were known.

        Args:
            past: the pairs.
            code: int64 (Q,) key of each question.
            clock: int64 (Q,) its clock.
            since: int64 (Q,), a time as the pairs have it.
        """
        start, end = past.before(code, clock)
        if since is not None and past.in_time_order:
            start, since = np.clip(past.since(code, since), start, end), None
        return cls(past, start, end, since)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (Q,) of `values` (P,), in the order in which the pairs came."""
        if self.since is None:
            return self.past.sums(values, self.start, self.end)
        return sums_since(self.past.time, values[self.past.order], self.start, self.end, self.since)

    def counts(self) -> np.ndarray:
        """How many pairs, int64 (Q,)."""
        if self.since is None:
            return self.end - self.start
        return self.sums(np.ones(len(self.past), dtype=np.int64))
