"""ctr.metrics.regression against scipy and scikit-learn, and rows written k times."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, roc_auc_score

from ctr.metrics.regression import REGRESSION_METRICS, RegressionAccumulator, RegressionSummary
from features.errors import DataError
from tests.ctr.metrics.weighted import Rows, in_parts, repeated


def make_rows(seed: int = 0, rows: int = 300) -> Rows:
    random = np.random.default_rng(seed)
    value = np.where(random.random(rows) < 0.4, 0.0, random.integers(1, 20, rows) * 3.0)
    return {
        "value": value,
        "prediction": np.round(value * random.random(rows) + random.random(rows) * 10),  # with ties
        "user": random.integers(0, 25, rows),
        "weight": random.integers(0, 4, rows).astype(np.float64),
    }


def summary(rows: Rows, draws: int = 40) -> RegressionSummary:
    accumulator = RegressionAccumulator(draws=draws)
    for part in in_parts(rows):
        accumulator.update(**part)
    return accumulator.compute()


@pytest.mark.parametrize("name", REGRESSION_METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_a_row_of_weight_k_is_k_equal_rows(name: str, seed: int) -> None:
    rows = make_rows(seed)
    found, expected = summary(rows).metrics[name], summary(repeated(rows)).metrics[name]
    assert found.interval == expected.interval == "user bootstrap"
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scipy_and_scikit_learn(seed: int) -> None:
    rows = make_rows(seed)
    value, guess, weight = rows["value"], rows["prediction"], rows["weight"]
    found = {name: metric.value for name, metric in summary(rows, 0).metrics.items()}
    assert found["rmse"] == pytest.approx(np.sqrt(mean_squared_error(value, guess, sample_weight=weight)))
    assert found["mae"] == pytest.approx(mean_absolute_error(value, guess, sample_weight=weight))
    area = roc_auc_score(value > 0, guess, sample_weight=weight * np.where(value > 0, value, 1.0))
    assert found["value_auc"] == pytest.approx(area)
    plain = summary({n: c for n, c in rows.items() if n != "weight"}, 0).metrics
    assert plain["spearman"].value == pytest.approx(spearmanr(value, guess).statistic)


def test_draws_are_the_figures_of_drawn_users() -> None:
    rows = make_rows(rows=4000)
    found = summary(rows, 200).metrics["rmse"]
    assert found.value is not None and found.low is not None and found.high is not None
    errors = np.square(rows["value"] - rows["prediction"])
    per_user = [
        np.average(errors[rows["user"] == u], weights=rows["weight"][rows["user"] == u]) for u in range(25)
    ]
    half = 1.96 * np.std(per_user, ddof=1) / 5 / (2 * found.value)  # by the delta method
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.3)


def test_what_is_undefined_or_wrong_says_so() -> None:
    accumulator = RegressionAccumulator(draws=0)
    accumulator.update([3.0, 3.0], [1.0, 2.0])
    found = accumulator.compute().metrics
    assert found["spearman"].value is None and found["value_auc"].reason == "undefined for 2 rows"
    with pytest.raises(DataError, match="value must be 1 finite numbers"):
        accumulator.update([np.nan], [1.0])
    with pytest.raises(DataError, match="must bring the same keys"):
        accumulator.update([1.0], [1.0], user=[3])
