"""The figures against scikit-learn and against definitions of four lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score, roc_curve

from ctr.metrics import MetricAccumulator, Summary, auc
from features.errors import DataError

Rows = dict[str, np.ndarray]


def rows_of(seed: int, n: int = 400, *, users: int = 30, levels: int = 12) -> Rows:
    """Rows with many equal scores; scores depend on the label and on the user."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, n)
    label = (rng.random(n) < 0.3).astype(np.int8)
    raw = rng.normal(size=n) + label + rng.normal(size=users)[user]
    score = np.clip(np.round((raw + 4) / 9 * levels) / levels, 0.01, 0.99)
    return {"label": label, "score": score, "user": user, "request": user * 100 + rng.integers(0, 4, n)}


def summarise(rows: Rows, **options: int) -> Summary:
    with MetricAccumulator(**{"draws": 0, **options}) as accumulator:
        accumulator.update(**rows)
        return accumulator.compute()


def values(summary: Summary) -> dict[str, float | None]:
    return {name: metric.value for name, metric in summary.metrics.items()}


def grouped_auc(rows: Rows, by: str, *, weighted: bool) -> float:
    """The definition: AUC of every group with both classes, averaged."""
    masks = [rows[by] == group for group in np.unique(rows[by])]
    masks = [mask for mask in masks if 0 < rows["label"][mask].mean() < 1]
    each = [roc_auc_score(rows["label"][mask], rows["score"][mask]) for mask in masks]
    return float(np.average(each, weights=[mask.sum() for mask in masks] if weighted else None))


def slow_delong(label: np.ndarray, score: np.ndarray) -> float:
    """The definition in O(P N): variances of the rows and of the columns of the matrix of wins."""
    pos, neg = score[label == 1], score[label == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    variance = wins.mean(axis=1).var(ddof=1) / len(pos) + wins.mean(axis=0).var(ddof=1) / len(neg)
    return float(np.sqrt(variance))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40))
def test_auc_equals_sklearn_with_ties(pairs: list[tuple[int, int]]) -> None:
    label, score = (np.array(column) for column in zip(*pairs, strict=True))
    if label.min() == label.max():
        assert auc(label, score).value is None
    else:
        assert auc(label, score).value == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_equal_their_definitions(seed: int) -> None:
    rows = rows_of(seed)
    label, score = rows["label"], rows["score"]
    rate, loss = label.mean(), log_loss(label, score)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    found = values(summarise(rows))
    expected = {
        "auc": roc_auc_score(label, score),
        "gauc": grouped_auc(rows, "user", weighted=True),
        "query_auc": grouped_auc(rows, "request", weighted=False),
        "log_loss": loss,
        "ne": loss / entropy,
        "calibration": score.mean() / rate,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_ece_puts_equal_scores_into_the_bin_of_their_mid_rank() -> None:
    rows = rows_of(5, levels=60)
    label, score, n = rows["label"], rows["score"], len(rows["label"])
    middle = np.array([(score < s).sum() + (score == s).sum() / 2 for s in score]) / n
    bins = np.floor(20 * middle)
    slow = sum(abs((score - label)[bins == b].sum()) for b in np.unique(bins)) / n
    assert values(summarise(rows))["ece"] == pytest.approx(slow, abs=1e-12)


def test_counted_groups_are_stated() -> None:
    rows = {"label": [1, 0, 1, 1, 0], "score": [0.9, 0.1, 0.5, 0.5, 0.5], "user": [7, 7, 8, 8, 9]}
    gauc = summarise({name: np.array(column) for name, column in rows.items()}).metrics["gauc"]
    assert (gauc.value, gauc.groups, gauc.groups_total, gauc.n) == (1.0, 1, 3, 2)


@pytest.mark.fault(24)
@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(random: object) -> None:
    rows = rows_of(1, 120)
    order = list(range(120))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = {name: column[order] for name, column in rows.items()}
    assert values(summarise(shuffled, draws=20)) == pytest.approx(
        values(summarise(rows, draws=20)), abs=1e-12
    )


@pytest.mark.fault(24)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_equal_predictions_give_one_half_in_any_row_order(order: list[int]) -> None:
    label = np.array([1, 1, 0, 0])[order]
    found = summarise({"label": label, "score": np.full(4, 0.3), "user": np.zeros(4), "request": np.zeros(4)})
    assert [found.metrics[name].value for name in ("auc", "gauc", "query_auc")] == [0.5, 0.5, 0.5]


def test_delong_equals_the_quadratic_definition() -> None:
    for seed in range(3):
        rows = rows_of(seed, 150)
        metric = auc(rows["label"], rows["score"])
        assert metric.value is not None and metric.low is not None and metric.high is not None
        spread = np.log([metric.high / (1 - metric.high), metric.low / (1 - metric.low)])
        se = (spread[0] - spread[1]) / (2 * 1.959964) * metric.value * (1 - metric.value)
        assert se == pytest.approx(slow_delong(rows["label"], rows["score"]), rel=1e-6)


@pytest.mark.fault(24)
def test_undefined_figures_say_why() -> None:
    metrics = summarise({"label": np.zeros(3), "score": np.full(3, 0.2), "user": np.arange(3)}).metrics
    assert metrics["auc"].reason == "only one class: 0 rows with label 1 and 3 with label 0; AUC needs both"
    assert metrics["gauc"].reason == "none of the 3 users has rows of both classes"
    assert metrics["query_auc"].reason == "no request ids were given"
    assert metrics["ne"].reason == "only one class: 0 of 3 labels are 1"
    assert metrics["calibration"].reason == "none of the 3 labels is 1"
    assert metrics["log_loss"].value == pytest.approx(-math.log(0.8))
    undefined = ("auc", "gauc", "query_auc", "ne", "calibration")
    assert all(metrics[name].value is None for name in undefined)


def test_no_rows_are_undefined_throughout() -> None:
    empty = summarise({"label": np.zeros(0), "score": np.zeros(0), "user": np.zeros(0, int)}, draws=20)
    assert empty.rows == 0 and all(m.value is None and m.reason for m in empty.metrics.values())


def test_perfect_separation_has_no_interval() -> None:
    metric = auc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert (metric.value, metric.low) == (1.0, None)
    assert metric.reason == "no interval: the value is exactly 1, its error is not estimable"


def test_probabilities_of_exactly_0_and_1_give_a_finite_log_loss() -> None:
    rows = {"label": np.array([0, 1, 1]), "score": np.array([1.0, 1.0, 0.0])}
    expected = log_loss(rows["label"], rows["score"])
    assert values(summarise(rows))["log_loss"] == pytest.approx(expected, rel=1e-9)


def test_the_roc_curve_is_the_exact_one_thinned() -> None:
    rows = rows_of(3, 5000, levels=10**6)
    curves = summarise(rows).curves
    fpr, tpr, _ = roc_curve(rows["label"], rows["score"], drop_intermediate=False)
    assert len(curves.fpr) <= 1001 and (curves.fpr[0], curves.tpr[0]) == (0, 0)
    assert (curves.fpr[-1], curves.tpr[-1]) == (1, 1)
    exact = set(zip(fpr.round(9), tpr.round(9), strict=True))
    assert set(zip(curves.fpr.round(9), curves.tpr.round(9), strict=True)) <= exact
    assert curves.hist_pos.sum() == rows["label"].sum() and curves.bin_rows.sum() == 5000


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], r"label must be 0 or 1, got 1 other values of 3, first 2 at row_id 12"),
        ([0, 1, math.nan], [0.1, 0.2, 0.3], r"first nan at row_id 12"),
        (
            [0, 1, 1],
            [math.nan, 0.2, math.inf],
            r"score must be finite, got 2 .* nan at row_id 10, inf at row_id 12",
        ),
        ([0, 1, 1], [0.1, 1.5, 0.3], r"score must be a probability in \[0, 1\], got 1 .* 1.5 at row_id 11"),
    ],
)
def test_wrong_rows_are_refused_by_id_and_not_kept(
    label: list[float], score: list[float], message: str
) -> None:
    with MetricAccumulator(draws=0) as accumulator:
        with pytest.raises(DataError, match=message):
            accumulator.update(label, score, row_id=[10, 11, 12])
        assert accumulator.rows == 0


def test_positions_count_across_updates() -> None:
    with MetricAccumulator(draws=0) as accumulator:
        accumulator.update([0, 1], [0.1, 0.2])
        with pytest.raises(DataError, match="3 at position 3"):
            accumulator.update([0, 3], [0.1, 0.2])


def test_keys_must_stay_the_same_and_fit() -> None:
    with MetricAccumulator(draws=0) as accumulator:
        with pytest.raises(DataError, match="must have the 2 rows"):
            accumulator.update([0, 1], [0.1, 0.2], user=[1])
        for wrong in ([1.5, 2.0], [math.nan, 1.0], ["a", "b"]):
            with pytest.raises(DataError, match="user must be whole numbers, got"):
                accumulator.update([0, 1], [0.1, 0.2], user=wrong)
        accumulator.update([0, 1], [0.1, 0.2], user=[1, 2])
        with pytest.raises(DataError, match="same keys"):
            accumulator.update([0, 1], [0.1, 0.2])
