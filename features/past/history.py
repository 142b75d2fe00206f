"""As-of pointers: which of a user's events lie strictly before a request."""

from __future__ import annotations

import numpy as np

from features.past.past import Past


def pointers(
    user: np.ndarray, clock: np.ndarray, *, at_user: np.ndarray, at_clock: np.ndarray, max_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the events [start, end) of each request's user strictly before it, at most the newest `max_len`.

        user    0  0  0  1          request (user 0, clock 7, max_len 1) → [1, 2)
        clock   5  6  7  2

    Args:
        user: int64 (E,) user codes of the events, sorted by (user, clock).
        clock: int64 (E,) their clocks.
        at_user: int64 (R,) user codes of the requests.
        at_clock: int64 (R,) their clocks.
        max_len: the most events of a history.

    Returns:
        start, end: int64 (R,); equal where there is no event.

    Example:
        >>> event = {"user": np.array([0, 0, 0, 1]), "clock": np.array([5, 6, 7, 2])}
        >>> pointers(**event, at_user=np.array([0, 1]), at_clock=np.array([7, 2]), max_len=1)
        (array([1, 3]), array([2, 3]))
    """
    # The events are sorted, so positions among the sorted events are positions in the store.
    start, end = Past(user, clock=clock, time=clock).before(at_user, at_clock)
    return np.maximum(start, end - max_len), end
