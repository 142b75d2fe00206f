"""The table of metrics: what it refuses, and that one entry gives one figure everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr.compare import Cell, judge, paired_sums
from ctr.config import parse_config
from ctr.metrics import METRICS, Metric, MetricAccumulator, register
from ctr.metrics.bootstrap import poisson_weights
from ctr.metrics.computation import GroupMean, RowSums
from ctr.metrics.records import Floats, Ints
from ctr.metrics.sums import positives, rows
from ctr.metrics.table import check_compared, check_selection, compared, headlines, shown, validated
from features.errors import ConfigError
from tests.ctr.compare.tables import Table, table_of


def last_is_positive(starts: NDArray[np.intp], pos: Ints, neg: Ints) -> Floats:
    """Precision at 1: the share of label 1 among the rows of the highest score of each group."""
    last = np.append(starts[1:], len(pos)) - 1
    return pos[last] / (pos[last] + neg[last])


HIT = Metric(
    name="hit",
    label="Hit at 1",
    meaning="chance that the highest score of a request is a click",
    better="higher",
    computation=GroupMean("request", last_is_positive, by_rows=False, having="rows"),
    interval="log-odds",
)
ODDS = Metric(
    name="odds",
    label="Odds",
    meaning="rows with label 1 / rows with label 0",
    better="higher",
    computation=RowSums((positives, rows), lambda positives, rows: positives / (rows - positives)),
)


@pytest.fixture
def added() -> Iterator[None]:
    for metric in (HIT, ODDS):
        register(metric)
    yield
    for metric in (HIT, ODDS):
        del METRICS[metric.name]


def slow_hit(table: Table, score: np.ndarray) -> float:
    found = []
    for request in np.unique(table.request):
        own = table.request == request
        best = score[own] == score[own].max()
        found.append(table.label[own][best].mean())
    return float(np.mean(found))


def test_names_and_lists() -> None:
    assert [m.name for m in shown()] == [
        "auc", "gauc", "query_auc", "log_loss", "ne", "calibration", "ece"
    ]  # fmt: skip
    assert [m.name for m in headlines()] == ["auc", "gauc", "query_auc", "ne"]
    assert [m.name for m in compared()] == ["auc", "gauc", "query_auc", "log_loss", "ne"]
    # The keys of a validation in the journal and in MLflow.
    assert [m.name for m in validated()] == ["auc", "gauc", "query_auc", "log_loss", "ne", "calibration"]
    assert all(m.direction or m.not_compared for m in METRICS.values())
    assert METRICS["gauc"].needs == "user ids, a user with rows of both classes"


def test_a_name_is_taken_once_and_leaves_room_for_tasks_and_sums() -> None:
    with pytest.raises(ConfigError, match="must have a name of its own, got 'auc' twice"):
        register(METRICS["auc"])
    for name in ("click.auc", "a+b", ""):
        with pytest.raises(ConfigError, match="must be named by letters, digits and _"):
            register(replace(ODDS, name=name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clicks",
            "must be among auc, gauc, query_auc, log_loss, ne, rmse, mae, spearman, value_auc, got 'clicks'",
        ),
        ("auc+ece", "got 'ece': it is not computed in validation"),
        ("calibration", "got 'calibration': neither larger nor smaller is better: 1 is right"),
        ("auc_delong", "got 'auc_delong': it is a check of auc"),
        ("auc+ne", "one direction in all of them, got auc: higher, ne: lower"),
    ],
)
def test_what_chooses_no_step_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        check_selection(text)
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        parse_config({"dataset": "d", "run": "r", "train": {"metric": text}})


def test_what_is_not_compared_says_why() -> None:
    with pytest.raises(ValueError, match="got 'ece': noise alone makes it positive"):
        check_compared("ece")


@pytest.mark.parametrize("text", ["auc", "ne", "log_loss", "auc+gauc", "auc+query_auc", "ne+log_loss"])
def test_old_and_new_selections_are_taken(text: str) -> None:
    assert parse_config({"dataset": "d", "run": "r", "train": {"metric": text}}).train.metric == text


def test_an_entry_of_groups_has_one_figure_everywhere(added: None) -> None:
    table = table_of(0, users=40)
    with MetricAccumulator(draws=200) as accumulator:
        accumulator.update(table.label, table.base, user=table.user, request=table.request)
        hit = accumulator.compute().metrics["hit"]
    assert hit.value == pytest.approx(slow_hit(table, table.base), abs=1e-12)
    assert hit.groups == hit.groups_total == len(np.unique(table.request)) and hit.low is not None
    pair = table.pair()
    expected = (slow_hit(table, table.base), slow_hit(table, table.variant))
    assert pair.values("hit") == pytest.approx(expected, abs=1e-12)
    [judged] = judge({"v": [Cell(pair=pair)]}, metrics=["hit"])
    assert judged.low is not None and judged.high is not None
    assert judged.low < expected[1] - expected[0] < judged.high


def test_its_draws_are_its_figure_of_the_drawn_users(added: None) -> None:
    table = table_of(1)
    drawn = table.pair(draws=5).base.drawn["odds"]
    for k, times in enumerate(poisson_weights(64, 5, 0)[table.user].T):
        assert drawn[k] == pytest.approx(times @ table.label / (times @ (1 - table.label)))


def test_a_figure_that_is_not_finite_is_undefined(added: None) -> None:
    with MetricAccumulator(draws=0) as accumulator:
        accumulator.update([1, 1], [0.5, 0.5])
        odds = accumulator.compute().metrics["odds"]
    assert odds.value is None and odds.reason == "the figure is not finite"
    pair = paired_sums([1, 1], [0.5, 0.5], {"v": [0.5, 0.5]})["v"]
    [judged] = judge({"v": [Cell(pair=pair)]}, metrics=["odds"])
    assert judged.delta is None and judged.reason is not None and judged.reason.startswith("undefined")
