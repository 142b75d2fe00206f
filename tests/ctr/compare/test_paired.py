"""Sums per cluster give the metrics and their bootstrap draws, in memory or spilled to disk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctr.compare import Cell, judge, paired_sums
from ctr.compare.comparison import Comparison
from ctr.compare.paired import make_rows
from ctr.metrics import MetricAccumulator, MetricValue
from ctr.metrics.bootstrap import poisson_weights
from ctr.metrics.metric import Metric
from ctr.metrics.table import compared
from ctr.metrics.walk import Walk
from features.errors import DataError
from tests.ctr.compare.tables import Table, table_of

METRICS = [metric.name for metric in compared()]
Scores = Callable[[np.ndarray], np.ndarray]


def reference(table: Table, score: np.ndarray, draws: int = 0) -> dict[str, float | None]:
    with MetricAccumulator(draws=draws) as accumulator:
        accumulator.update(table.label, score, user=table.user, request=table.request)
        metrics = accumulator.compute().metrics
    return {name: metrics[name].value for name in METRICS}


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_an_evaluation(seed: int) -> None:
    table = table_of(seed)
    pair = table.pair()
    assert pair.base.figures == pytest.approx(reference(table, table.base), abs=1e-12)
    assert pair.variant.figures == pytest.approx(reference(table, table.variant), abs=1e-12)
    assert (pair.rows, pair.positives, pair.unit) == (400, table.label.sum(), "user")
    assert pair.delong is not None and pair.delong.auc == pytest.approx(pair.values("auc"), abs=1e-12)


def test_a_draw_equals_the_metrics_of_the_drawn_users() -> None:
    table = table_of(4)
    drawn = table.pair(draws=12, seed=3).variant.drawn
    weights = poisson_weights(64, 12, 3)
    for k in range(12):
        times = weights[table.user, k]
        rows = np.repeat(np.arange(len(times)), times)
        copies = np.concatenate([np.arange(t) for t in times])
        # A user or request that is drawn twice counts as two.
        apart = Table(
            **{
                **vars(table.take(rows)),
                "user": table.user[rows] * 20 + copies,
                "request": table.request[rows] * 20 + copies,
            }
        )
        expected = reference(apart, apart.variant)
        assert {m: drawn[m][k] for m in METRICS} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rows", [600, 5000])
def test_draws_of_a_model_are_those_of_its_evaluation(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(5, rows, users=80)
    evaluated: dict[str, np.ndarray] = {}
    interval = Walk.interval

    def noted(
        self: Walk, metric: Metric, value: MetricValue, drawn: np.ndarray, **clusters: int
    ) -> MetricValue:
        evaluated[metric.name] = drawn
        return interval(self, metric, value, drawn, **clusters)

    monkeypatch.setattr(Walk, "interval", noted)
    reference(table, table.variant, draws=200)
    found = table.pair(draws=200).variant.drawn
    assert np.array_equal(found["auc"], evaluated["auc"])
    for name in METRICS:
        np.testing.assert_allclose(found[name], evaluated[name], rtol=1e-12)


def slow(table: Table, score: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """The metrics of rows that count differently, pair by pair and row by row."""

    def area(rows: np.ndarray) -> float:
        won = pairs = 0.0
        for i in rows[table.label[rows] == 1]:
            for j in rows[table.label[rows] == 0]:
                both = weight[i] * weight[j]
                won += both * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
                pairs += both
        return won / pairs if pairs else np.nan

    def mean(groups: np.ndarray, by_rows: bool) -> float:
        parts = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        areas = np.array([area(rows) for rows in parts])
        size = np.array([weight[rows].sum() if by_rows else 1.0 for rows in parts])
        known = ~np.isnan(areas)
        return float((areas * size)[known].sum() / size[known].sum())

    loss = -np.where(table.label == 1, np.log(score), np.log(1 - score)) @ weight / weight.sum()
    rate = table.label @ weight / weight.sum()
    return {
        "auc": area(np.arange(len(score))),
        "gauc": mean(table.user, True),
        "query_auc": mean(table.request, False),
        "log_loss": loss,
        "ne": loss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)),
    }


def test_rows_that_count_differently_by_slow_definitions() -> None:
    table, random = table_of(7, 120, users=12), np.random.default_rng(7)
    weight = np.where(random.random(120) < 0.2, 0.0, random.exponential(2.0, 120))
    pair = table.pair(weight=weight)
    assert pair.base.figures == pytest.approx(slow(table, table.base, weight), rel=1e-9)
    assert pair.variant.figures == pytest.approx(slow(table, table.variant, weight), rel=1e-9)
    assert pair.delong is None and pair.rows == (weight > 0).sum()
    assert [j.metric for j in judge({"v": [Cell(pair=pair)]})] == METRICS  # without DeLong's check


def test_a_row_of_weight_k_is_k_equal_rows() -> None:
    table = table_of(8)
    times = np.random.default_rng(8).integers(0, 4, 400)
    weighted, repeated = table.pair(weight=times), table.take(np.repeat(np.arange(400), times)).pair()
    for metric in METRICS:
        assert weighted.values(metric) == pytest.approx(repeated.values(metric), rel=1e-9)
        np.testing.assert_allclose(weighted.drawn(metric), repeated.drawn(metric), atol=1e-9)
    alike = table.pair(weight=np.full(400, 2.5))
    assert alike.drawn("auc") == pytest.approx(table.pair().drawn("auc"), abs=1e-9)


def test_clusters_of_one_row_give_delongs_error() -> None:
    table = table_of(6, 3000, levels=200)
    pair = paired_sums(table.label, table.base, {"v": table.variant}, draws=2000)["v"]
    assert pair.unit == "row" and pair.clusters == 3000 and pair.delong is not None
    assert np.std(pair.drawn("auc")) == pytest.approx(pair.delong.se, rel=0.05)  # 2000 draws: within 1.6 %


@pytest.mark.parametrize(
    "change", [lambda s: s**3, lambda s: np.full_like(s, 0.4)], ids=["plain", "constant"]
)
def test_rows_on_disk_give_the_same_sums(change: Scores) -> None:
    table = table_of(7, 2000, users=150)
    scores = [table.base, change(table.variant), table.variant]
    keys = {name: getattr(table, name).astype(np.uint64) for name in ("user", "request")}
    rows = make_rows(table.label, scores, unit=keys["user"], keys=keys)
    results = []
    for order, chunk_rows in ((np.arange(2000), 2000), (np.random.default_rng(0).permutation(2000), 300)):
        with Comparison(models=3, keys=("user", "request"), chunk_rows=chunk_rows) as comparison:
            for start in range(0, 2000, 350):
                piece = order[start : start + 350]
                comparison.add({name: column[piece] for name, column in rows.items()})
            results.append(comparison.finish())
    for memory, disk in zip(*(sums for sums, _ in results), strict=True):
        assert memory.auc == disk.auc and np.array_equal(memory.auc_draws, disk.auc_draws)
        np.testing.assert_allclose(disk.values, memory.values, atol=1e-11)
    for memory_delong, disk_delong in zip(*(delongs for _, delongs in results), strict=True):
        assert disk_delong.se == pytest.approx(memory_delong.se, rel=1e-9)


def test_row_order_exchange_and_monotone_maps() -> None:
    table = table_of(8)
    pair = table.pair()
    shuffled = table.take(np.random.default_rng(1).permutation(400)).pair()
    np.testing.assert_allclose(shuffled.variant.values, pair.variant.values, atol=1e-12)
    back = Table(table.label, table.variant, table.base, table.user, table.request).pair()
    assert all(back.delta(metric) == -pair.delta(metric) for metric in METRICS)
    mapped = Table(table.label, table.base**2, table.variant**0.5, table.user, table.request).pair()
    for metric in ("auc", "gauc", "query_auc"):
        assert mapped.values(metric) == pair.values(metric)


def test_requests_of_several_users_are_several() -> None:
    table = table_of(9, 600)
    crossing = Table(**{**vars(table), "request": np.arange(600) % 100})
    apart = Table(**{**vars(table), "request": table.user * 100 + np.arange(600) % 100})
    np.testing.assert_allclose(crossing.pair().base.values, apart.pair().base.values)


def test_groups_of_one_class_leave_grouped_figures_undefined() -> None:
    label = np.repeat([0, 1], 20)
    pair = paired_sums(label, np.linspace(0.1, 0.9, 40), {"v": np.full(40, 0.5)}, user=label)["v"]
    assert np.isnan(pair.values("gauc")).all() and np.isnan(pair.values("query_auc")).all()
    assert pair.values("auc") == (1.0, 0.5)


def test_one_class_leaves_the_auc_undefined() -> None:
    pair = paired_sums(np.ones(5), np.full(5, 0.5), {"v": np.full(5, 0.25)}, user=np.arange(5))["v"]
    assert np.isnan(pair.values("auc")).all() and pair.delong is not None and np.isnan(pair.delong.se)
    assert pair.delta("log_loss") == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": [0.1, 1.2]}, "score must be a probability"),
        ({"variants": {"v": [0.1]}}, "vectors of one length"),
        ({"user": [0.5, 1.5]}, "user and request must be 2 integers"),
        ({"label": [0, 2]}, "label must be 0 or 1"),
    ],
)
def test_wrong_rows_are_refused(options: dict[str, object], message: str) -> None:
    given = {"label": [0, 1], "base": [0.1, 0.2], "variants": {"v": [0.1, 0.2]}, **options}
    with pytest.raises(DataError, match=message):
        paired_sums(given.pop("label"), given.pop("base"), given.pop("variants"), **given)  # type: ignore[arg-type]
