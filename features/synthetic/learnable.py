"""The best AUC that can be learned: an item's hidden quality is known from its earlier clicks alone.

The click model's tables of tags and of segments by categories have so few cells that a log tells them; ten
impressions do not tell the quality of an item. So the quality is taken as its prior and the item's
impressions before the period say:

    posterior(q) ∝ N(q; 0, sd²) · Π sigmoid(s + q)^clicked · (1 − sigmoid(s + q))^(1 − clicked)
    best score   = Σ_q posterior(q) · sigmoid(s + q)                     s: the true score without quality

All else is known as the simulator knows it. A model may come near, and exceed it by luck of the draw alone.

Letters: n impressions, I items, Q points of the quality's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.synthetic.best import FOREVER, BestAuc, truth_parts
from features.synthetic.catalogue import QUALITY_SD
from features.synthetic.clicks import probability

_GRID = np.linspace(-4.0, 4.0, 33)  # standard deviations of the prior
_COLUMNS = ["item_id", "time", "clicked", "p"]


def learnable_auc(log_dir: Path, *, start: int, end: int = FOREVER) -> dict[str, float | int | None]:
    """Of the impressions with a time in [start, end): the best AUC with what those before `start` tell.

    Args:
        log_dir: what `simulate` wrote.
        start: seconds: of the test period.
        end: seconds; to the end if left out.

    Returns:
        impressions; `auc` on the labels drawn, and `expected_auc`, its mean over all that could have been.

    Raises:
        DataError: the directory has no truth.
    """
    items = pq.read_table(log_dir / "truth" / "items.parquet")
    quality = np.zeros(int(items["item_id"].to_numpy().max()) + 1)
    quality[items["item_id"].to_numpy()] = items["quality"].to_numpy()
    posterior = _posterior(log_dir, quality, start)
    best = BestAuc()
    for item, time, clicked, p in _impressions(log_dir):
        kept = (time >= start) & (time < end)
        item, clicked, p = item[kept], clicked[kept], p[kept]
        given = probability(_without_quality(p, quality[item])[:, None] + QUALITY_SD * _GRID)
        best.add(clicked=clicked, p=p, p_static=(posterior[item] * given).sum(axis=1))
    found = best.summary()
    return {
        "impressions": found["impressions"],
        "auc": found["auc_static"],
        "expected_auc": found["expected_auc_static"],
    }


def _posterior(log_dir: Path, quality: np.ndarray, start: int) -> np.ndarray:
    """The probability (I, Q) of each quality of each item, given its impressions before `start`."""
    likelihood = np.tile(-(_GRID**2) / 2, (len(quality), 1))
    for item, time, clicked, p in _impressions(log_dir):
        kept = time < start
        item, clicked = item[kept], clicked[kept].astype(bool)
        score = _without_quality(p[kept], quality[item])
        for point, value in enumerate(QUALITY_SD * _GRID):
            told = -np.logaddexp(0.0, np.where(clicked, -1.0, 1.0) * (score + value))
            likelihood[:, point] += np.bincount(item, weights=told, minlength=len(quality))
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    posterior: np.ndarray = likelihood / likelihood.sum(axis=1, keepdims=True)
    return posterior


def _impressions(log_dir: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """item_id, time, clicked and p (n,), a part of a file at a time."""
    for part in truth_parts(log_dir):
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=_COLUMNS):
                item, time, clicked, p = (batch.column(name).to_numpy() for name in _COLUMNS)
                yield item, time, clicked, p


def _without_quality(p: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """The score (n,) less the item's quality."""
    return np.log(p) - np.log1p(-p) - quality
