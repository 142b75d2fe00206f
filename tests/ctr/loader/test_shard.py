"""Which rank makes what: every request once, costs even, the same on every rank."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctr.loader.shard import Shard, assign_requests
from ctr.training.scoring import _FIELDS, _in_file_order

costs = st.lists(st.integers(0, 50), max_size=40).map(lambda values: np.array(values, dtype=np.int64))


@given(costs, st.integers(1, 7))
def test_loads_differ_by_one_request_at_most(cost: np.ndarray, ranks: int) -> None:
    owner = assign_requests(cost, ranks)
    loads = np.bincount(owner, weights=cost, minlength=ranks) if len(cost) else np.zeros(ranks)
    assert owner.shape == cost.shape and loads.shape == (ranks,)
    assert loads.max() - loads.min() <= cost.max(initial=0)


@given(costs, st.integers(1, 5))
def test_requests_of_equal_cost_are_spread_evenly(cost: np.ndarray, ranks: int) -> None:
    owner = assign_requests(np.ones_like(cost), ranks)
    counts = np.bincount(owner, minlength=ranks) if len(cost) else np.zeros(ranks)
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 4))
def test_batches_dealt_in_turn_come_back_in_file_order(sizes: list[int], ranks: int) -> None:
    """Ranks beyond the last batch have empty ones, and all take the same number of steps."""
    ends = np.cumsum([0, *sizes])
    batches = [np.arange(a, b) for a, b in pairwise(ends)]
    steps = Shard(0, ranks, of="epoch").steps(len(batches))
    found = []
    for rank in range(ranks):
        places = [step * ranks + rank for step in range(steps)]
        own = [batches[place] if place < len(batches) else np.arange(0) for place in places]
        columns = dict.fromkeys(_FIELDS, np.concatenate(own))
        found.append({**columns, "rows": np.array([len(batch) for batch in own])})
    scores = _in_file_order(found)
    assert scores.logit.tolist() == scores.request_id.tolist() == list(range(ends[-1]))
