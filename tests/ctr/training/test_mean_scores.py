from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.training.mean_scores import MeanScores, write_scores
from ctr.training.outputs import probability
from ctr.training.scoring import Scores
from features.dataset import Dataset
from features.errors import DataError
from tests.ctr.task_dataset import TASKS, with_tasks
from tests.ctr.tiny_run import tiny_dataset


def scores_of(dataset: Dataset, seed: int) -> Scores:
    """Logits drawn at random for the test part of a data set with three tasks."""
    data, random = dataset.split("test"), np.random.default_rng(seed)
    rows = data.info.impressions
    label = np.stack([data.impressions[f"target.{task.name}"].to_numpy() for task in TASKS], axis=1)
    request = np.repeat(data.requests["request_id"].to_numpy(), np.diff(data.row_offsets))
    return Scores(
        random.normal(0, 3, (rows, 3)).astype(np.float32),
        np.nan_to_num(label).astype(np.float32),
        ~np.isnan(label),
        np.ones((rows, 3), dtype=np.float32),
        np.zeros(rows, dtype=np.int64),
        request,
        tasks=TASKS,
    )


def test_each_task_is_averaged_and_outputs_are_made_of_the_means(tmp_path: Path) -> None:
    dataset = with_tasks(Dataset(tiny_dataset(tmp_path)))
    members = [scores_of(dataset, seed) for seed in range(3)]
    mean, same = MeanScores(), MeanScores()
    for number, scores in enumerate(members):
        mean.add(f"run {number}", scores)
        same.add("equal", members[0])
    assert same.mean().logit.tobytes() == members[0].logit.tobytes()
    expected = np.mean([scores.logit.astype(np.float64) for scores in members], axis=0)
    found = mean.mean()
    np.testing.assert_array_equal(found.logit, expected.astype(np.float32))
    write_scores(tmp_path / "mean.parquet", found, None, dataset, "test")
    table = pq.read_table(tmp_path / "mean.parquet")
    click, buy = (probability(found.logit[:, k]) for k in range(2))
    np.testing.assert_array_equal(table["score"], click)
    np.testing.assert_array_equal(table["score_buy"], buy)
    np.testing.assert_allclose(table["score_click_and_buy"], click * buy, rtol=1e-12)
    scale = TASKS[2].scale
    assert scale is not None
    np.testing.assert_array_equal(table["score_seconds"], scale.inverse(found.logit[:, 2].astype(np.float64)))
    assert "weight_buy" in table.column_names  # rows count as they do of a run


def test_other_rows_are_refused(tmp_path: Path) -> None:
    scores = scores_of(with_tasks(Dataset(tiny_dataset(tmp_path))), 0)
    mean = MeanScores()
    mean.add("a", scores)
    wrong = scores.label.copy()
    wrong[5, 1] = 7
    for other, said in (
        (replace(scores, label=wrong), r"b must score the rows of a, but label of row 5 is \[.*7.0"),
        (replace(scores, request_id=scores.request_id[::-1]), "request_id of row 0"),
        (replace(scores, logit=scores.logit[:, :2]), "must score the rows and tasks of a"),
    ):
        with pytest.raises(DataError, match=said):
            mean.add("b", other)
