from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.read.overlap import find_overlaps, of_ranges

LISTS = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.integers(0, 2), min_size=1, max_size=6)), max_size=8
)


def most_shared(before: list[int], own: list[int]) -> int:
    """The longest end of one list that the other begins with, by trying all."""
    sizes = range(min(len(before), len(own)), 0, -1)
    return next((n for n in sizes if before[-n:] == own[:n]), 0)


@settings(deadline=None, max_examples=300)
@given(LISTS)
def test_overlaps_by_definition(lists: list[tuple[int, list[int]]]) -> None:
    lists = sorted(lists, key=lambda pair: pair[0])
    user = np.array([u for u, _ in lists], dtype=np.int64)
    length = np.array([len(own) for _, own in lists], dtype=np.int64)
    values = np.array([v for _, own in lists for v in own], dtype=np.int64)
    found = find_overlaps(values, np.cumsum(length) - length, length, user)
    for i, (name, own) in enumerate(lists):
        follows = i > 0 and lists[i - 1][0] == name
        before = lists[i - 1][1] if follows else []
        assert found.shared[i] == most_shared(before, own)
        assert found.changed[i] == (follows and before != own)
        if found.changed[i]:
            half = min(len(before), len(own)) / 2
            assert found.grows_new[i] == (most_shared(before, own) >= half)
            assert found.grows_old[i] == (most_shared(before[::-1], own[::-1]) >= half)


def test_ranges_of_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert of_ranges(none, none).tolist() == []
    assert of_ranges(np.array([3, 5]), np.array([0, 1])).tolist() == [5]
