from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.past.history import pointers
from features.past.past import Past

Pairs = list[tuple[int, int]]
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), max_size=30)
huge = st.lists(st.tuples(st.integers(0, 2**40), st.sampled_from([-(2**62), 0, 1, 2**62])), max_size=10)


def brute_force(events: Pairs, user: int, clock: int, max_len: int) -> list[int]:
    """The positions of the newest events of the user strictly before the clock."""
    return [i for i, (u, c) in enumerate(events) if u == user and c < clock][-max_len:]


def check(events: Pairs, requests: Pairs, max_len: int) -> None:
    events = sorted(events)
    user, clock = (np.array([e[i] for e in events], dtype=np.int64) for i in (0, 1))
    at_user, at_clock = (np.array([r[i] for r in requests], dtype=np.int64) for i in (0, 1))
    start, end = pointers(user, clock, at_user=at_user, at_clock=at_clock, max_len=max_len)
    for i, request in enumerate(requests):
        assert list(range(start[i], end[i])) == brute_force(events, *request, max_len)


@pytest.mark.fault(19)
@given(events=pairs, requests=pairs, max_len=st.integers(1, 4))
def test_pointers_equal_brute_force(events: Pairs, requests: Pairs, max_len: int) -> None:
    """Ties are excluded, users are kept apart, and only the newest are kept."""
    check(events, requests, max_len)


@pytest.mark.fault(19)
@given(events=huge, requests=huge)
def test_pointers_of_extreme_codes_and_clocks(events: Pairs, requests: Pairs) -> None:
    """Clocks in nanoseconds and sparse user codes overflow no composite key."""
    check(events, requests, 3)


def test_an_event_store_is_not_sorted_again() -> None:
    """It is sorted by (user, clock): its own arrays are searched, without a copy in another order."""
    user, clock = np.array([0, 0, 1, 1]), np.array([2, 5, 1, 1])
    past = Past(user, clock=clock, time=clock)
    assert np.shares_memory(past.code, user) and np.shares_memory(past.time, clock)
    mixed = Past(user[::-1].copy(), clock=clock[::-1].copy(), time=clock[::-1].copy())
    assert mixed.code.tolist() == past.code.tolist() and mixed.clock.tolist() == past.clock.tolist()
