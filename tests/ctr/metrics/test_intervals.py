"""Intervals: a draw against copied rows, and coverage where the rows of a user are alike."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctr.metrics import METRICS, MetricAccumulator, MetricValue, Summary
from ctr.metrics.bootstrap import AucDraws, poisson_weights, weighted_totals, with_interval
from ctr.metrics.records import Records, compress


def clustered(seed: int, users: int = 60, each: int = 8) -> dict[str, np.ndarray]:
    """Every user has one label in all rows and one taste in all scores: rows say little beyond their user."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), each)
    label = (rng.random(users) < 0.5)[user].astype(np.int8)
    score = 1 / (1 + np.exp(-(rng.normal(size=users)[user] + label + 0.1 * rng.normal(size=users * each))))
    return {"label": label, "score": score, "user": user}


def summarise(rows: dict[str, np.ndarray], draws: int = 200, seed: int = 0) -> Summary:
    with MetricAccumulator(draws=draws, seed=seed) as accumulator:
        accumulator.update(**rows)
        return accumulator.compute()


def test_a_draw_is_the_auc_of_the_copied_rows() -> None:
    rows = clustered(0)
    score, label = rows["score"].round(1), rows["label"].astype(np.int64)
    weights = poisson_weights(64, 5, 3)
    draws = AucDraws(weights)
    draws.add(compress(Records(score, rows["user"], rows["user"], label, 1 - label)))
    for draw, value in enumerate(draws.values()):
        times = weights[rows["user"], draw]
        assert value == pytest.approx(
            roc_auc_score(np.repeat(label, times), np.repeat(score, times)), abs=1e-12
        )


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("levels", [1, 3, 40, 10**9], ids=["constant", "few", "some", "all differ"])
@pytest.mark.parametrize("times", [1, 50_000], ids=["single", "counted"])
def test_draws_count_every_pair(rate: float, levels: int, times: int) -> None:
    rng = np.random.default_rng(1)
    score, cluster = rng.integers(0, levels, 3000) / levels, rng.integers(0, 16, 3000)
    label = (rng.random(3000) < rate).astype(np.int64)
    weights = poisson_weights(16, 4, 0)
    draws = AucDraws(weights)
    records = compress(Records(score, cluster, cluster, times * label, times * (1 - label)))
    half = int(np.searchsorted(records.major, np.median(score)))
    for part in (slice(0, half), slice(half, None)):
        draws.add(Records(*(column[part] for column in records)))
    for value, drawn in zip(draws.values(), weights.T, strict=True):
        drawn_rows = drawn[cluster]
        if len(set(label[drawn_rows > 0])) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(label, score, sample_weight=drawn_rows), abs=1e-12)


def test_totals_of_draws_weigh_whole_clusters() -> None:
    weights = np.array([[2, 0], [1, 0], [0, 0]], dtype=np.uint8)
    totals = weighted_totals(weights, np.array([[1.0, 2.0], [4.0, 4.0], [9.0, 9.0]]))
    assert totals.tolist() == [[6.0, 8.0], [0.0, 0.0]]
    mean = METRICS["gauc"].computation
    drawn = mean.compare(dict(zip(mean.columns, totals.T, strict=True)))
    assert drawn[0] == pytest.approx(6 / 8) and np.isnan(drawn[1])


def test_a_user_keeps_its_weights_whatever_the_number_of_users() -> None:
    few, many = poisson_weights(16, 50, 1), poisson_weights(8192, 50, 1)
    np.testing.assert_array_equal(few, many[:16])
    assert many.mean() == pytest.approx(1, abs=0.02) and many.var() == pytest.approx(1, abs=0.02)


def test_resampling_users_covers_where_delong_does_not() -> None:
    """Truth 0.7602 = P(N(1, 2) > 0) in the limit of many users; 150 logs of 60 users."""
    truth, hits = 0.7602, np.zeros(2)
    for seed in range(150):
        metrics = summarise(clustered(seed), draws=100).metrics
        for at, name in enumerate(("auc", "auc_delong")):
            low, high = metrics[name].low, metrics[name].high
            assert low is not None and high is not None
            hits[at] += low <= truth <= high
    assert hits[0] / 150 > 0.88
    assert hits[1] / 150 < 0.65


def test_the_interval_names_its_method_and_its_seed_counts() -> None:
    rows = clustered(1)
    auc = summarise(rows).metrics["auc"]
    assert auc.interval == "user bootstrap" and summarise(rows).metrics["auc"] == auc
    assert summarise(rows, seed=1).metrics["auc"].low != auc.low
    assert summarise(rows, draws=0).metrics["auc"].interval == "DeLong"
    by_request = summarise({"label": rows["label"], "score": rows["score"], "request": rows["user"]})
    assert by_request.metrics["auc"].interval == "request bootstrap"
    assert summarise({"label": rows["label"], "score": rows["score"]}).metrics["auc"].interval == "DeLong"


def test_every_bounded_figure_keeps_its_interval_inside() -> None:
    rng = np.random.default_rng(2)
    n = 400
    label = rng.integers(0, 2, n)
    rows = {"label": label, "score": 0.4 * label + 0.5 * rng.random(n), "user": np.arange(n) // 10}
    metrics = summarise({**rows, "request": np.arange(n) // 5}).metrics
    for name in ("auc", "gauc", "query_auc", "log_loss", "ne", "calibration"):
        metric = metrics[name]
        assert metric.low is not None and metric.high is not None and metric.value is not None
        assert metric.low < metric.value < metric.high
        assert metric.low > 0
        assert metric.high < 1 or name in ("ne", "calibration")


def test_too_few_users_or_draws_give_a_value_without_interval() -> None:
    auc = summarise(clustered(3, users=6)).metrics["auc"]
    assert auc.value is not None and auc.low is None
    assert auc.reason == "no interval: 6 users are too few to resample (at least 10)"
    scarce = np.array([0.5] + [np.nan] * 9)
    metric = with_interval(MetricValue(value=0.5), scarce, clusters=50, unit="user", bounded=True)
    assert metric.low is None and metric.reason == "no interval: the figure is undefined in 9 of 10 draws"
