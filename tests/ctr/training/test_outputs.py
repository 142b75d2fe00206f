"""From logits of several tasks to scores, validation figures and the metric that chooses the step."""

from __future__ import annotations

import numpy as np
import pytest

from ctr.metrics import auc
from ctr.metrics.table import check_selection
from ctr.predictions import outputs_of
from ctr.training.outputs import Outputs, probability
from ctr.training.scoring import Scores
from ctr.training.validation import check_tasks, describe, figures_of, selection_value
from features.dataset import TargetScale, TaskInfo
from features.errors import ConfigError

CLICK, BUY = TaskInfo(name="click"), TaskInfo(name="buy", given="click")
SECONDS = TaskInfo(name="seconds", kind="regression", scale=TargetScale(kind="log"))
N = 300


def scored(tasks: list[TaskInfo]) -> Scores:
    random = np.random.default_rng(0)
    logit = random.normal(size=(N, len(tasks))).astype(np.float32)
    label = (random.random((N, len(tasks))) < probability(logit)).astype(np.float32)
    known = np.ones((N, len(tasks)), dtype=bool)
    known[:, 1] = (label[:, 0] > 0) & (random.random(N) < 0.7)
    label[~known] = 0
    codes = np.arange(N)
    return Scores(logit, label, known, np.ones_like(logit), codes // 10, codes // 3, tasks=tasks)


def test_scores_are_chances_their_products_and_values() -> None:
    logits = scored([CLICK, BUY, SECONDS]).logit
    outputs = Outputs([CLICK, BUY, SECONDS])
    first, (buy, seconds, both) = outputs.scores(logits)
    assert outputs.names == ["click", "buy", "seconds", "click_and_buy"]
    assert np.array_equal(first, probability(logits[:, 0])) and np.array_equal(buy, probability(logits[:, 1]))
    np.testing.assert_allclose(seconds, np.expm1(logits[:, 2].astype(np.float64)))
    np.testing.assert_allclose(both, first * buy, rtol=1e-12)


def test_small_chances_keep_their_digits() -> None:
    (first, (_, both)) = Outputs([CLICK, BUY]).scores(np.array([[-60.0, -80.0]], dtype=np.float32))
    assert both[0] == pytest.approx(np.exp(-140.0), rel=1e-12) and first[0] > 0


def test_one_logit_is_one_probability() -> None:
    logits = np.array([-1.0, 2.0], dtype=np.float32)
    found, others = Outputs().scores(logits)
    assert (
        others == ()
        and np.array_equal(found, probability(logits))
        and Outputs().first_logit(logits) is logits
    )


def test_figures_of_each_task_are_those_of_its_known_rows() -> None:
    scores = scored([CLICK, BUY])
    figures, (label, known) = figures_of(scores), (scores.label, scores.known)
    first, (buy, both) = Outputs([CLICK, BUY]).scores(scores.logit)
    assert figures["auc"] == auc(label[:, 0], first).value
    assert figures["buy.auc"] == auc(label[known[:, 1], 1], buy[known[:, 1]]).value
    decided = known[:, 1] | (label[:, 0] == 0)
    assert 0 < decided.sum() < N
    assert figures["click_and_buy.auc"] == auc((label[:, 0] * label[:, 1])[decided], both[decided]).value
    first_task = [part[:, 0] for part in (scores.logit, label, known, scores.weight)]
    alone = figures_of(Scores(*(*first_task, scores.user_id, scores.request_id)))
    assert {name: figures[name] for name in alone} == alone


def test_the_metric_of_a_task_chooses() -> None:
    figures = {"auc": 0.7, "ne": 0.9, "buy.auc": 0.6, "buy.ne": None}
    assert selection_value(figures, "click.auc") == selection_value(figures, "auc") == 0.7
    assert selection_value(figures, "click.auc+buy.auc") == pytest.approx(0.65)
    assert selection_value(figures, "click.ne") == -0.9 and selection_value(figures, "buy.ne") is None
    assert "buy.auc 0.6000" in describe(figures, "buy.log_loss+auc")
    figures |= {"seconds.rmse": 3.0, "seconds.spearman": 0.4}
    assert selection_value(figures, "seconds.rmse") == -3.0  # the smaller, the better
    assert selection_value(figures, "click.ne+seconds.rmse") == pytest.approx(-1.95)
    assert selection_value(figures, "click.auc+seconds.spearman") == pytest.approx(0.55)
    with pytest.raises(ValueError, match="one direction in all of them, got auc: higher, rmse: lower"):
        check_selection("click.auc+seconds.rmse")


@pytest.mark.parametrize("selection", ["cart.auc", "auc+cart.gauc", "seconds.auc", "rmse", "buy.mae"])
def test_a_metric_of_what_the_run_does_not_score_is_refused(selection: str) -> None:
    with pytest.raises(
        ConfigError, match=r"of what the run learns and scores \(click, buy, seconds, click_and_buy\)"
    ):
        check_tasks(selection, [CLICK, BUY, SECONDS])
    check_tasks("auc+buy.gauc+click_and_buy.auc", [CLICK, BUY, SECONDS])
    check_tasks("ne+seconds.rmse", [CLICK, SECONDS])
    with pytest.raises(ConfigError, match=r"first task of a run must be binary.*'seconds'"):
        check_tasks("seconds.rmse", [SECONDS, CLICK])


def test_rows_weigh_what_the_task_that_decides_them_says() -> None:
    scores = scored([CLICK, BUY])
    scores.weight[:] = [2.0, 3.0]
    _, _, weight = scores.labels(outputs_of(scores.tasks)[2])
    assert set(weight[scores.label[:, 0] == 0]) == {2.0} and set(weight[scores.label[:, 0] == 1]) == {3.0}
    random = np.random.default_rng(1).integers(0, 3, scores.weight.shape)
    scores.weight[:] = random
    figures, (_, (buy, _)) = figures_of(scores), Outputs(scores.tasks).scores(scores.logit)
    times = random[:, 1] * scores.known[:, 1]
    repeated = auc(scores.label[:, 1].repeat(times), buy.repeat(times)).value
    assert figures["buy.auc"] == pytest.approx(repeated, rel=1e-12)


def test_a_regression_is_measured_in_the_unit_of_the_log() -> None:
    scores = scored([CLICK, SECONDS])
    figures = figures_of(scores)
    known = scores.known[:, 1]
    value, predicted = (np.expm1(part[known, 1].astype(np.float64)) for part in (scores.label, scores.logit))
    assert figures["seconds.rmse"] == pytest.approx(np.sqrt(np.mean((predicted - value) ** 2)))
    assert figures["seconds.mae"] == pytest.approx(np.abs(predicted - value).mean())
    assert "seconds.auc" not in figures and "seconds.rmse" in describe(figures, "auc")
