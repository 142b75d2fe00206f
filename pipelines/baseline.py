"""`ctr baseline DATASET`: logistic regression or LightGBM on the dense features, what a deep model must beat.

The features are the data set's dense columns (counts, rates, matches, prices …): already scaled, missing = 0
with its indicator. Request-level columns are repeated for the request's candidates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa

from ctr.metrics import Evaluation, evaluate_table
from ctr.metrics.table import headlines
from ctr.report.result_line import append_line
from features.dataset import Dataset, SplitData, dense_values
from features.errors import DataError
from pipelines.terminal import echo

KINDS = {"logistic": "logistic regression", "lightgbm": "LightGBM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("dataset", type=Path, help="dataset directory")
    parser.add_argument("--kind", choices=KINDS, default="logistic")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--seeds", type=int, default=1, help="LightGBM: how many seeds")
    parser.add_argument(
        "--line",
        type=Path,
        metavar="FILE",
        help="append each seed's result to a file of lines, as in docs/results/",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit, score, print the figures with intervals."""
    dataset = Dataset(arguments.dataset)
    for seed in range(1, arguments.seeds + 1):
        evaluation = evaluate_baseline(dataset, arguments.kind, arguments.split, seed=seed)
        figures = evaluation.overall.metrics
        shown = "  ".join(
            f"{name} {m.value:.4f} [{m.low:.4f}, {m.high:.4f}]"
            for name in (metric.name for metric in headlines() if metric.better == "higher")
            if (m := figures[name]).value is not None and m.low is not None and m.high is not None
        )
        echo(f"{KINDS[arguments.kind]} (seed {seed}) on {arguments.split}: {shown}")
        if arguments.line is not None:
            from pipelines.result_line import baseline_line  # loads torch, which a baseline does not need

            append_line(
                arguments.line,
                baseline_line(dataset, evaluation, kind=arguments.kind, split=arguments.split, seed=seed),
            )


def evaluate_baseline(dataset: Dataset, kind: str, split: str, *, seed: int = 1) -> Evaluation:
    """Fit on train (LightGBM stops early on valid) and evaluate on a split."""
    x, y = dense_matrix(dataset, dataset.split("train"))
    data = dataset.split(split)
    target, label = dense_matrix(dataset, data)
    if kind == "logistic":
        score = _logistic(x, y, target)
    else:
        score = _lightgbm(x, y, dense_matrix(dataset, dataset.split("valid")), target, seed=seed)
    row = np.repeat(np.arange(data.requests.num_rows), np.diff(data.row_offsets))
    keys = {name: data.requests[name].to_numpy()[row] for name in ("user_id", "request_id")}
    return evaluate_table({"label": label, "score": score, **keys})


def dense_matrix(dataset: Dataset, data: SplitData) -> tuple[np.ndarray, np.ndarray]:
    """All dense features of a split, float32 (rows, width), and the labels."""
    row = np.repeat(np.arange(data.requests.num_rows), np.diff(data.row_offsets))
    parts = []
    for column in dataset.manifest.features:
        if column.kind == "dense":
            table: pa.Table = data.requests if column.level == "request" else data.impressions
            values = dense_values(table, column)
            parts.append(values[row] if column.level == "request" else values)
    if not parts:
        raise DataError(
            f"a baseline needs dense features; data set {dataset.manifest.name!r} has none: add counters"
        )
    return np.concatenate(parts, axis=1), data.impressions["label"].to_numpy()


def _logistic(x: np.ndarray, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(max_iter=1000).fit(x, y).predict_proba(target)[:, 1])


def _lightgbm(
    x: np.ndarray, y: np.ndarray, valid: tuple[np.ndarray, np.ndarray], target: np.ndarray, *, seed: int
) -> np.ndarray:
    import lightgbm

    settings = {"objective": "binary", "metric": "auc", "learning_rate": 0.05, "num_leaves": 31, "seed": seed,
                "min_data_in_leaf": 100, "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1,
                "verbose": -1, "deterministic": True}  # fmt: skip
    train = lightgbm.Dataset(x, y)
    stop = lightgbm.early_stopping(30, verbose=False)
    model = lightgbm.train(settings, train, 1000, valid_sets=[lightgbm.Dataset(*valid)], callbacks=[stop])
    return np.asarray(model.predict(target, num_iteration=model.best_iteration))
