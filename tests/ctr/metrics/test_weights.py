"""Rows that count differently: metrics against scikit-learn, slow definitions, and rows written k times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from ctr.metrics import METRICS, MetricAccumulator, Summary, evaluate_table
from features.errors import DataError
from tests.ctr.metrics.weighted import Rows, in_parts, repeated


def make_rows(seed: int = 0, *, rows: int = 400, whole: bool = True) -> Rows:
    """Rows of 30 users and 100 requests with many equal scores; whole weights from 0 to 3, or any."""
    random = np.random.default_rng(seed)
    request = random.integers(0, 100, rows)
    return {
        "label": random.integers(0, 2, rows).astype(np.float64),
        "score": random.integers(1, 20, rows) / 20,
        "user": request % 30,
        "request": request,
        "weight": random.integers(0, 4, rows).astype(np.float64) if whole else random.exponential(1.0, rows),
    }


def summary(rows: Rows, **options: Any) -> Summary:
    with MetricAccumulator(**{"draws": 50, **options}) as accumulator:
        for part in in_parts(rows):
            accumulator.update(**part)
        return accumulator.compute()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_a_row_of_weight_k_is_k_equal_rows(name: str, seed: int) -> None:
    rows = make_rows(seed)
    found, expected = summary(rows).metrics[name], summary(repeated(rows)).metrics[name]
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    if name == "auc_delong":
        assert found.low is None and found.reason == "no interval: DeLong takes rows of equal weight"
    elif METRICS[name].interval is not None:
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
        assert found.interval == expected.interval == "user bootstrap"
    assert (found.groups, found.groups_total) == (expected.groups, expected.groups_total)


def test_the_curves_are_those_of_rows_written_k_times() -> None:
    rows = make_rows()
    found, expected = summary(rows).curves, summary(repeated(rows)).curves
    for name in ("fpr", "tpr", "bin_score", "bin_label", "bin_rows", "hist_pos", "hist_neg"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scikit_learn(seed: int) -> None:
    rows = make_rows(seed, whole=False)
    label, score, weight = rows["label"], rows["score"], rows["weight"]
    values = {name: metric.value for name, metric in summary(rows).metrics.items()}
    assert values["auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight))
    entropy = log_loss(label, score, sample_weight=weight)
    assert values["log_loss"] == pytest.approx(entropy)
    rate = np.average(label, weights=weight)
    base = log_loss(label, np.full(len(label), rate), sample_weight=weight)
    assert values["ne"] == pytest.approx(entropy / base)
    assert values["calibration"] == pytest.approx(np.average(score, weights=weight) / rate)


@pytest.mark.parametrize("seed", range(3))
def test_means_over_groups_are_those_of_slow_definitions(seed: int) -> None:
    rows = make_rows(seed, whole=False)
    found = summary(rows).metrics

    def areas(group: str) -> list[tuple[float, float]]:
        every = []
        for value in np.unique(rows[group]):
            own = rows[group] == value
            label, score, weight = (rows[n][own] for n in ("label", "score", "weight"))
            if 0 < label.sum() < len(label):
                every.append((roc_auc_score(label, score, sample_weight=weight), weight.sum()))
        return every

    area, weight = np.transpose(areas("user"))
    assert found["gauc"].value == pytest.approx(np.average(area, weights=weight))
    assert found["query_auc"].value == pytest.approx(np.mean([a for a, _ in areas("request")]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.integers(0, 99))
def test_few_rows_of_any_whole_weights(weights: list[int], seed: int) -> None:
    rows = make_rows(seed, rows=len(weights)) | {"weight": np.array(weights, dtype=np.float64)}
    found, expected = summary(rows, draws=0).metrics, summary(repeated(rows), draws=0).metrics
    for name, metric in found.items():
        assert metric.value == pytest.approx(expected[name].value), name
        assert (metric.value is None) == (expected[name].value is None)


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_1_change_no_value(name: str) -> None:
    rows = make_rows()
    ones = summary(rows | {"weight": np.ones(400)}).metrics[name]
    del rows["weight"]
    plain = summary(rows).metrics[name]
    assert ones.value == pytest.approx(plain.value, rel=1e-14)


def test_figures_do_not_depend_on_how_many_rows_are_held() -> None:
    rows = make_rows(1, whole=False)
    whole, cut = summary(rows), summary(rows, chunk_rows=50)
    for name, metric in whole.metrics.items():
        other = cut.metrics[name]
        assert metric.value == pytest.approx(other.value, rel=1e-10), name
        assert metric.low is None or metric.low == pytest.approx(other.low, rel=1e-8), name
    assert whole.rows == cut.rows == 400


def test_a_table_may_have_weights() -> None:
    rows = make_rows(2)
    table = {"user": "user_id", "request": "request_id"}
    columns = {table.get(name, name): values for name, values in rows.items()}
    evaluation = evaluate_table({**columns, "slice_odd": rows["request"] % 2}, draws=50)
    assert evaluation.overall.metrics == summary(rows).metrics
    odd = rows["request"] % 2 == 1
    own = summary({name: values[odd] for name, values in rows.items()})
    assert evaluation.slices["odd"]["1"].metrics == own.metrics


def test_wrong_weights_are_refused() -> None:
    with MetricAccumulator(draws=0) as accumulator:
        with pytest.raises(DataError, match="weight must be a finite number ≥ 0, got 1 other"):
            accumulator.update([0, 1], [0.5, 0.5], weight=[1.0, -1.0])
        with pytest.raises(DataError, match="weight must have the 2 rows of label"):
            accumulator.update([0, 1], [0.5, 0.5], weight=[1.0])
        accumulator.update([0, 1], [0.5, 0.5])
        with pytest.raises(DataError, match="must bring weights, or none"):
            accumulator.update([0, 1], [0.5, 0.5], weight=[1.0, 1.0])
