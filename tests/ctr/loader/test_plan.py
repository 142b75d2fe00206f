"""ctr.loader.plan: every request once, whole, in batches of at most batch_rows rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.config import MANY_REQUESTS, LoaderConfig
from ctr.loader.plan import EpochPlan, plan_epoch, window_order
from ctr.loader.row_counts import Window, WindowTotals, find_windows


def plan_of(counts: Sequence[np.ndarray], config: LoaderConfig, *, seed: int, epoch: int) -> EpochPlan:
    decided = config.model_copy(update={"plan": config.decided_plan(sum(map(len, counts)))})
    windows = find_windows(counts, config.window)
    return plan_epoch(windows, partial(rows_in, counts), decided, seed=seed, epoch=epoch)


def rows_in(counts: Sequence[np.ndarray], window: Window) -> np.ndarray:
    return counts[window.split][window.start : window.stop]


def requests_of(
    counts: Sequence[np.ndarray], config: LoaderConfig, *, seed: int, epoch: int
) -> list[list[tuple[int, int]]]:
    """The (split, request) pairs of every batch."""
    plan, batches = plan_of(counts, config, seed=seed, epoch=epoch), []
    for step in range(plan.steps):
        index, number = plan.locate(step)
        window = plan.windows[index]
        order = window_order(window, config, seed=seed, epoch=epoch)
        rows = counts[window.split][window.start : window.stop][order]
        part = slice(*plan.cuts(index, rows)[number : number + 2])
        batches.append([(window.split, window.start + int(i)) for i in order[part]])
    return batches


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.lists(st.integers(1, 7), max_size=40), min_size=1, max_size=2),
    batch_rows=st.integers(1, 12),
    window=st.integers(1, 15),
    order=st.sampled_from(["shuffle", "windows", "time"]),
    plan=st.sampled_from(["requests", "windows"]),
)
def test_every_request_once_and_batches_within_bounds(
    counts: list[list[int]], batch_rows: int, window: int, order: str, plan: str
) -> None:
    config = LoaderConfig.model_validate(
        {"batch_rows": batch_rows, "window": window, "order": order, "plan": plan}
    )
    arrays = [np.array(c, dtype=np.int64) for c in counts]
    batches = requests_of(arrays, config, seed=5, epoch=2)
    found = [pair for batch in batches for pair in batch]
    everything = [(split, i) for split, rows in enumerate(counts) for i in range(len(rows))]
    assert sorted(found) == everything
    assert order != "time" or found == everything
    for batch in batches:
        assert batch
        rows = [counts[split][i] for split, i in batch]
        fits = sum(rows) <= batch_rows or len(batch) == 1
        assert fits or (plan == "windows" and batch_rows / 2 < 7 and sum(rows) < batch_rows / 2 + 7)


def test_no_small_batch_is_left_over() -> None:
    config = LoaderConfig(batch_rows=100, window=1010)
    rows = [np.ones(2021, dtype=np.int64)]
    sizes = [len(batch) for batch in requests_of(rows, config, seed=0, epoch=0)]
    assert max(sizes) <= 100 and min(sizes) >= 90


def test_windows_keep_neighbours_together() -> None:
    config = LoaderConfig(batch_rows=10, window=100)
    batches = requests_of([np.ones(1000, dtype=np.int64)], config, seed=0, epoch=0)
    assert all(max(i for _, i in batch) - min(i for _, i in batch) < 100 for batch in batches)
    assert batches != sorted(batches)


def test_windows_in_order_of_time_are_shuffled_inside() -> None:
    config = LoaderConfig(batch_rows=10, window=100, order="windows")
    batches = requests_of([np.ones(1000, dtype=np.int64)], config, seed=0, epoch=0)
    found = [i for batch in batches for _, i in batch]
    windows = [found[k : k + 100] for k in range(0, 1000, 100)]
    assert [sorted(window) for window in windows] == np.arange(1000).reshape(10, 100).tolist()
    assert all(window != sorted(window) for window in windows)
    assert batches != requests_of([np.ones(1000, dtype=np.int64)], config, seed=0, epoch=1)


def test_epoch_and_seed_change_the_order() -> None:
    config = LoaderConfig(batch_rows=10, window=20)
    rows = [np.ones(200, dtype=np.int64)]
    orders = [requests_of(rows, config, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0), (-3, 0))]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_every_window_is_shuffled_by_itself() -> None:
    config = LoaderConfig(window=50)
    plan = plan_of([np.ones(200, dtype=np.int64), np.ones(50, dtype=np.int64)], config, seed=0, epoch=0)
    orders = {tuple(window_order(window, config, seed=0, epoch=0).tolist()) for window in plan.windows}
    assert len(orders) == len(plan.windows) == 5


def test_a_plan_by_windows_fills_batches_about_as_well() -> None:
    rows = np.random.default_rng(1).integers(1, 21, 30_000)
    config = LoaderConfig(batch_rows=1024, window=4096, plan="windows")
    sizes = [sum(rows[i] for _, i in batch) for batch in requests_of([rows], config, seed=0, epoch=0)]
    assert sum(sizes) == rows.sum() and max(sizes) <= 1024 and min(sizes) >= 900
    drawn = requests_of([rows], config.model_copy(update={"plan": "requests"}), seed=0, epoch=0)
    assert abs(len(sizes) - len(drawn)) <= 0.05 * len(drawn)


def test_a_plan_by_windows_reads_no_request() -> None:
    """Its steps follow from what the windows hold, be there ever so many requests."""

    def unasked(window: Window) -> np.ndarray:
        raise AssertionError("no request is read")

    config, own = LoaderConfig(batch_rows=1000, plan="windows"), WindowTotals(65_536, 200_000, 20)
    windows = [Window(0, i * 65_536, (i + 1) * 65_536, i * 200_000, own) for i in range(10_000)]
    plan = plan_epoch(windows, unasked, config, seed=0, epoch=3)
    assert plan.steps == 10_000 * 205 and plan.known_cuts is None
    assert plan_epoch(windows, unasked, config, seed=0, epoch=4).steps == plan.steps


def test_small_data_keep_the_plan_of_before() -> None:
    config = LoaderConfig()
    assert config.decided_plan(MANY_REQUESTS) == "requests"
    assert config.decided_plan(MANY_REQUESTS + 1) == "windows"
