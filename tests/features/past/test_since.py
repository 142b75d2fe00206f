from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.past.since import sums_since

pairs = st.lists(st.tuples(st.integers(-3, 9), st.integers(-5, 5)), max_size=20)
questions = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(-5, 11)), max_size=8)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@given(pairs, questions)
def test_equals_the_definition(
    dtype: type, given: list[tuple[int, int]], asked: list[tuple[int, int, int]]
) -> None:
    time, values = (np.array([p[i] for p in given], dtype=np.int64) for i in (0, 1))
    bounds = [sorted(min(position, len(given)) for position in q[:2]) for q in asked]
    start, end = (np.array([b[i] for b in bounds], dtype=np.int64) for i in (0, 1))
    since = np.array([q[2] for q in asked], dtype=np.int64)
    expected = [
        sum(value for moment, value in given[low:high] if moment >= bound)
        for (low, high), (_, _, bound) in zip(bounds, asked, strict=True)
    ]
    assert sums_since(time, values.astype(dtype), start, end, since).tolist() == expected
