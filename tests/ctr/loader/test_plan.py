"""ctr.loader.plan: every request once, whole, in batches of at most batch_rows rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.config import LoaderConfig
from ctr.loader.plan import EpochPlan, plan_epoch, window_order


def requests_of(
    plan: EpochPlan, config: LoaderConfig, *, seed: int, epoch: int
) -> list[list[tuple[int, int]]]:
    """The (split, request) pairs of every batch."""
    batches = []
    for step in range(plan.steps):
        index, part = plan.locate(step)
        window = plan.windows[index]
        order = window_order(window, config, seed=seed, epoch=epoch)[part]
        batches.append([(window.split, window.start + int(i)) for i in order])
    return batches


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.lists(st.integers(1, 7), max_size=40), min_size=1, max_size=2),
    batch_rows=st.integers(1, 12),
    window=st.integers(1, 15),
    order=st.sampled_from(["shuffle", "time"]),
)
def test_every_request_once_and_batches_within_bounds(
    counts: list[list[int]], batch_rows: int, window: int, order: str
) -> None:
    config = LoaderConfig.model_validate({"batch_rows": batch_rows, "window": window, "order": order})
    arrays = [np.array(c, dtype=np.int64) for c in counts]
    batches = requests_of(plan_epoch(arrays, config, seed=5, epoch=2), config, seed=5, epoch=2)
    found = [pair for batch in batches for pair in batch]
    everything = [(split, i) for split, rows in enumerate(counts) for i in range(len(rows))]
    assert sorted(found) == everything
    assert order == "shuffle" or found == everything
    for batch in batches:
        assert batch
        assert sum(counts[split][i] for split, i in batch) <= batch_rows or len(batch) == 1


def test_no_small_batch_is_left_over() -> None:
    config = LoaderConfig(batch_rows=100, window=1010)
    plan = plan_epoch([np.ones(2021, dtype=np.int64)], config, seed=0, epoch=0)
    sizes = [len(batch) for batch in requests_of(plan, config, seed=0, epoch=0)]
    assert max(sizes) <= 100 and min(sizes) >= 90


def test_windows_keep_neighbours_together() -> None:
    config = LoaderConfig(batch_rows=10, window=100)
    plan = plan_epoch([np.ones(1000, dtype=np.int64)], config, seed=0, epoch=0)
    batches = requests_of(plan, config, seed=0, epoch=0)
    assert all(max(i for _, i in batch) - min(i for _, i in batch) < 100 for batch in batches)
    assert batches != sorted(batches)


def test_epoch_and_seed_change_the_order() -> None:
    config = LoaderConfig(batch_rows=10, window=20)
    rows = [np.ones(200, dtype=np.int64)]
    orders = [
        requests_of(plan_epoch(rows, config, seed=s, epoch=e), config, seed=s, epoch=e)
        for s, e in ((0, 0), (0, 1), (1, 0), (-3, 0))
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_every_window_is_shuffled_by_itself() -> None:
    config = LoaderConfig(window=50)
    plan = plan_epoch([np.ones(200, dtype=np.int64), np.ones(50, dtype=np.int64)], config, seed=0, epoch=0)
    orders = {tuple(window_order(window, config, seed=0, epoch=0).tolist()) for window in plan.windows}
    assert len(orders) == len(plan.windows) == 5
