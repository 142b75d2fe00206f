"""Baselines fitted on the training part, and their scores of another part.

N training rows, M rows to score, W features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from ctr.baseline.features import Categories, dense_matrix, labels, weights
from ctr.predictions import SplitRows, write_predictions
from ctr.predictions.write import GROUP_ROWS, Scored
from features.dataset import Dataset, SplitData

# kind → what it is called in tables.
BASELINES = {"logistic": "logistic regression", "lightgbm": "LightGBM", "lightgbm-ids": "LightGBM with IDs"}
_LEAST = 1e-15  # of a probability, so that its log-odds are finite
_LIGHTGBM: dict[str, Any] = {
    "objective": "binary",
    "metric": "auc",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,  # else LightGBM tries both ways, and takes the one that was faster this time
}


def write_baseline(path: Path, dataset: Dataset, kind: str, split: str, *, seed: int = 1) -> int:
    """Fit a baseline and write its predictions of a split; returns the number of rows.

    Args:
        path: the Parquet file, a table of `ctr.predictions`.
        dataset: an opened one.
        kind: one of `BASELINES`.
        split: valid or test.
        seed: of LightGBM's samples of rows and features; logistic regression draws nothing.

    Raises:
        DataError: the data set has no dense features, or the split no rows.
    """
    rows = SplitRows(dataset, split)
    score = score_baseline(dataset, kind, split, seed=seed)
    return write_predictions(path, rows, _scored(rows.data.impressions["row_id"].to_numpy(), score))


def score_baseline(dataset: Dataset, kind: str, split: str, *, seed: int = 1) -> np.ndarray:
    """Probabilities of the rows of a split in file order, float64 (M,); see `write_baseline`."""
    parts = {name: dataset.split(name) for name in ("train", "valid", split)}
    if kind == "logistic":
        train = parts["train"]
        x, target = (dense_matrix(dataset, part) for part in (train, parts[split]))
        return _logistic(x, labels(train), weights(dataset, train), target)
    categories = Categories([], [])
    if kind == "lightgbm-ids":
        categories = Categories.counted(dataset, parts["train"])
    return _lightgbm(dataset, parts, split, categories, seed=seed)


def _scored(row_id: np.ndarray, score: np.ndarray) -> Iterator[Scored]:
    for start in range(0, len(score), GROUP_ROWS):
        part = score[start : start + GROUP_ROWS]
        log_odds = logit(np.clip(part, _LEAST, 1 - _LEAST)).astype(np.float32)
        yield Scored(row_id[start : start + GROUP_ROWS], log_odds, part)


def _logistic(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, target: np.ndarray) -> np.ndarray:
    """Fit on x float32 (N, W), y (N,) and what rows count (N,); score target (M, W)."""
    from sklearn.linear_model import LogisticRegression

    return np.asarray(
        LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weight).predict_proba(target)[:, 1],
        np.float64,
    )


def _lightgbm(
    dataset: Dataset, parts: dict[str, SplitData], split: str, categories: Categories, *, seed: int
) -> np.ndarray:
    """Fit on the training part, stop when the AUC of the validation part has not grown for 30 rounds."""
    import lightgbm

    def matrix(name: str) -> np.ndarray:
        dense = dense_matrix(dataset, parts[name])
        return (
            np.concatenate([dense, categories.matrix(parts[name])], axis=1) if categories.columns else dense
        )

    x = matrix("train")
    first = x.shape[1] - len(categories.columns)
    train = lightgbm.Dataset(
        x,
        labels(parts["train"]),
        weight=weights(dataset, parts["train"]),
        categorical_feature=list(range(first, x.shape[1])) or "auto",
    )
    valid = lightgbm.Dataset(
        matrix("valid"),
        labels(parts["valid"]),
        weight=weights(dataset, parts["valid"]),
        reference=train,
    )
    stop = lightgbm.early_stopping(30, verbose=False)
    settings = {**_LIGHTGBM, "seed": seed}
    model = lightgbm.train(settings, train, 1000, valid_sets=[valid], callbacks=[stop])
    return np.asarray(model.predict(matrix(split), num_iteration=model.best_iteration))
