"""The best possible AUC of a simulated log, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.errors import DataError

_BINS = 1 << 17
FOREVER = 1 << 62
_TRUTH_COLUMNS = ["time", "clicked", "p", "p_static"]


class BestAuc:
    """Counts of clicks by probability, and the AUCs that follow.

    A ranker that knows p cannot be beaten. Its AUC on the drawn labels is `auc`; its mean over all labels
    that could have been drawn is, up to the small covariance of numerator and denominator,

        sum_ij p_i (1 - p_j) ([p_i > p_j] + [p_i = p_j] / 2) / (sum_i p_i sum_j (1 - p_j)).

    Probabilities are binned to 2^17 levels; the AUC of the bins differs from the exact one by less than 1e-5.

    Example:
        >>> best = BestAuc()
        >>> p = np.array([0.5, 0.25])
        >>> best.add(clicked=np.array([1, 0]), p=p, p_static=np.array([0.1, 0.1]))
        >>> summary = best.summary()
        >>> summary["auc"], summary["auc_static"]
        (1.0, 0.5)
    """

    def __init__(self) -> None:
        # rows: weight = label or probability; columns: ranked by p or by p_static
        self._positive = np.zeros((2, 2, _BINS))
        self._negative = np.zeros((2, 2, _BINS))

    def add(self, *, clicked: np.ndarray, p: np.ndarray, p_static: np.ndarray) -> None:
        """Count impressions: labels (n,) in {0, 1}, probabilities (n,) with and without the history terms."""
        for j, ranking in enumerate((p, p_static)):
            level = np.minimum((ranking * _BINS).astype(np.int64), _BINS - 1)
            for i, weight in enumerate((clicked.astype(np.float64), p)):
                self._positive[i, j] += np.bincount(level, weights=weight, minlength=_BINS)
                self._negative[i, j] += np.bincount(level, weights=1.0 - weight, minlength=_BINS)

    def summary(self) -> dict[str, float | int | None]:
        """Impressions, clicks, mean p and the AUCs; an AUC is None where one class is missing."""
        auc = [[_auc(self._positive[i, j], self._negative[i, j]) for j in range(2)] for i in range(2)]
        clicks, rows = self._positive[0, 0].sum(), (self._positive[0, 0] + self._negative[0, 0]).sum()
        return {
            "impressions": round(rows),
            "clicks": round(clicks),
            "click_rate": float(clicks / rows) if rows else None,
            "mean_p": float(self._positive[1, 0].sum() / rows) if rows else None,
            "auc": auc[0][0],
            "auc_static": auc[0][1],
            "expected_auc": auc[1][0],
            "expected_auc_static": auc[1][1],
        }


def best_auc(log_dir: Path, *, start: int = 0, end: int = FOREVER) -> dict[str, float | int | None]:
    """Read the best possible AUC of the impressions with a time in [start, end) from a simulated log.

    Args:
        log_dir: what `simulate` wrote.
        start: seconds; from the beginning if left out.
        end: seconds; to the end if left out.

    Returns:
        impressions, clicks, click_rate, mean_p; auc and expected_auc of p; auc_static and expected_auc_static
        of the score without its history terms.

    Raises:
        DataError: the directory has no truth.
    """
    best = BestAuc()
    for part in truth_parts(log_dir):
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=_TRUTH_COLUMNS):
                time, clicked, p, p_static = (batch.column(name).to_numpy() for name in _TRUTH_COLUMNS)
                kept = (time >= start) & (time < end)
                best.add(clicked=clicked[kept], p=p[kept], p_static=p_static[kept])
    return best.summary()


def truth_parts(log_dir: Path) -> list[Path]:
    """The files with the truth about every impression.

    Raises:
        DataError: there are none.
    """
    parts = sorted((log_dir / "truth" / "impressions").glob("part-*.parquet"))
    if not parts:
        raise DataError(
            f"{log_dir} must hold truth/impressions/part-*.parquet, got none; simulate a log there"
        )
    return parts


def _auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """AUC of weights per bin, rising score, ties counted as one half."""
    total = positive.sum() * negative.sum()
    if total == 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total)
