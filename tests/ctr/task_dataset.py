"""A data set with three tasks: clicks, purchases of what was clicked, and seconds watched, with gaps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ctr.loader.view import DatasetView
from features.dataset import SPLITS, Dataset, SplitData, TargetScale, TaskInfo

TASKS = [
    TaskInfo(name="click"),
    TaskInfo(name="buy", given="click", weighted=True),
    TaskInfo(name="seconds", kind="regression", scale=TargetScale(kind="log")),
]


def with_tasks(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """The data set with these tasks; purchases are known of half of the clicked rows, seconds of a third."""
    view = DatasetView(dataset, {name: _with_targets(dataset.split(name), seed) for name in SPLITS})
    view.manifest = view.manifest.model_copy(update={"tasks": TASKS})
    return view


def _with_targets(data: SplitData, seed: int) -> SplitData:
    random, shown = np.random.default_rng(seed), data.impressions
    rows, click = shown.num_rows, shown["label"].to_numpy().astype(np.float32)
    columns = {
        "target.click": pa.array(click),
        "target.buy": pa.array(
            random.integers(0, 2, rows).astype(np.float32), mask=(click == 0) | (random.random(rows) < 0.5)
        ),
        "target.seconds": pa.array(
            random.exponential(30, rows).astype(np.float32), mask=random.random(rows) < 2 / 3
        ),
        "target_weight.buy": pa.array(random.integers(0, 4, rows).astype(np.float32)),
    }
    for name, values in columns.items():
        shown = shown.append_column(name, values)
    return SplitData(data.info, data.requests, shown)
