"""Sampled negatives in predictions, figures and reports: made up for, and as if they were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ctr.build import build_state
from ctr.config import LoaderConfig
from ctr.loader import Loader
from ctr.metrics import Evaluation, evaluate_sampled, evaluate_tasks
from ctr.report.figures import report_rows
from ctr.report.tasks import uncorrected
from ctr.training.scoring import predict_split
from features.dataset import Dataset
from pipelines.measured import EvaluationResult
from tests.ctr.dataset_fixture import Sizes, write_dataset
from tests.ctr.loader.test_negatives import sampled
from tests.ctr.tiny_run import tiny_config

KEPT = 0.25  # by the training


def slow(label: np.ndarray, score: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """NE and calibration, a row at a time."""
    loss = predicted = clicks = rows = 0.0
    for y, p, w in zip(label, score, weight, strict=True):
        loss -= w * np.log(p if y else 1 - p)
        predicted, clicks, rows = predicted + w * p, clicks + w * y, rows + w
    rate = clicks / rows
    return loss / rows / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)), predicted / clicks


@pytest.mark.parametrize("sampling", [0.2, "keep_rate", None], ids=str)
def test_figures_with_and_without_the_correction(tmp_path: Path, sampling: Any) -> None:
    root = write_dataset(tmp_path, Sizes(requests=60))
    view, path = sampled(Dataset(root), sampling), tmp_path / "test.parquet"
    config = tiny_config(root, tmp_path / "run")
    state = build_state(config, view.manifest, torch.device("cpu"))
    loader = Loader(view, "test", LoaderConfig(batch_rows=40, order="time"), seed=1)
    device = torch.device("cpu")
    predict_split(path, state, loader, view, "test", bf16=False, device=device, negatives=KEPT)
    table, shown = pq.read_table(path), view.split("test").impressions
    rate = {"keep_rate": shown["keep_rate"].to_numpy(), None: 1.0}.get(sampling, sampling)
    label, logit = table["label"].to_numpy(), table["logit"].to_numpy().astype(np.float64)
    odds = np.exp(logit) / rate / KEPT
    np.testing.assert_allclose(table["sampled_score"].to_numpy(), odds / (1 + odds), rtol=1e-6)

    (corrected,) = evaluate_tasks(path, draws=0).values()
    without = evaluate_sampled(path, draws=0, slices=[])
    assert without is not None

    def said(evaluation: Evaluation) -> list[float | None]:
        return [evaluation.overall.metrics[name].value for name in ("ne", "calibration")]

    stands_for = np.where(label > 0, 1.0, 1 / rate)
    assert said(corrected) == pytest.approx(slow(label, 1 / (1 + np.exp(-logit)), stands_for), rel=1e-6)
    assert said(without) == pytest.approx(slow(label, odds / (1 + odds), np.ones(len(label))), rel=1e-6)

    result = EvaluationResult(corrected, path, 1, [], sampled=without)
    assert f"of the kept rows, not corrected {said(without)[0]:.4f}" in result.text()
    rows = dict(report_rows(corrected, split="test", baselines=uncorrected(without)))
    (part,) = rows["baselines"]["parts"]
    assert part["name"] == ["uncorrected"] and part["figures"]["ne"] == said(without)[0]
    assert evaluate_sampled(table.drop_columns("sampled_score"), draws=0) is None and uncorrected(None) == []
