"""How much rows count in the metrics of a task."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from features.dataset import KEEP_RATE, TARGET_WEIGHT, Manifest


def metric_weight(manifest: Manifest, task: str, shown: pa.Table) -> np.ndarray | None:
    """How much each of N rows counts in the metrics of a task, float64 (N,); None where each counts once.

    A kept negative of the first task stands for as many as the log left out; whether a label is known is not
    said here.

    Args:
        manifest: of the data set.
        task: of the manifest.
        shown: the rows of impressions.arrow.
    """
    weight = own_weight(task, shown)
    if manifest.sampling is None or task != manifest.tasks[0].name:
        return weight
    rate = shown[KEEP_RATE].to_numpy() if manifest.sampling == KEEP_RATE else manifest.sampling
    stands_for = np.where(shown["label"].to_numpy() > 0, 1.0, 1.0 / np.float64(rate))
    return stands_for if weight is None else weight * stands_for


def own_weight(task: str, shown: pa.Table) -> np.ndarray | None:
    """The same without what the log's sampling adds."""
    column = f"{TARGET_WEIGHT}{task}"
    return shown[column].to_numpy().astype(np.float64) if column in shown.column_names else None
