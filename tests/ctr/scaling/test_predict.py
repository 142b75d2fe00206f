"""Predictions: naive ones beside the curve's, how they score, and that a journal keeps the first."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ctr.scaling.measured import Measured
from ctr.scaling.predict import LAST, LINE, ROW, Record, predict, record_key, recorded, score
from features.errors import ConfigError


def points(sizes: list[float]) -> list[Measured]:
    rng = np.random.default_rng(0)
    return [
        Measured(x, {"auc": list(0.8 - 0.1 * x**-0.5 + rng.normal(0, 1e-4, 2))}, flops=x * 1e9) for x in sizes
    ]


def test_a_curve_that_bends_is_predicted_better_than_by_naive_means() -> None:
    known, coming = points([5, 10, 20, 40]), [80.0, 160.0]
    made = predict(known, "auc", [(x, 2) for x in coming], "x")
    for x, prediction in zip(coming, made, strict=True):
        found = score(prediction, [0.8 - 0.1 * x**-0.5])
        assert found.inside and min(found.errors, key=lambda n: abs(found.errors[n])) == "curve"
        assert found.errors[LAST] > 0 > found.errors[LINE]
    assert made[0].naive[LAST] == known[-1].mean("auc")
    x, y = (np.repeat(np.log([5, 10, 20, 40]), 2), [v for p in known for v in p.values["auc"]])
    assert made[1].naive[LINE] == pytest.approx(np.polyval(np.polyfit(x, y, 1), np.log(160)))


def test_an_observation_outside_is_outside() -> None:
    [made] = predict(points([5, 10, 20, 40]), "auc", [(80.0, 2)], "x")
    assert not score(made, [made.forecast.high + 1e-6]).inside
    assert not score(made, [made.forecast.low - 1e-6]).inside
    assert score(made, [made.forecast.low, made.forecast.high]).inside


def test_against_operations_the_axis_is_theirs() -> None:
    [by_size] = predict(points([5, 10, 20, 40]), "auc", [(80.0, 2)], "x")
    [by_flops] = predict(points([5, 10, 20, 40]), "auc", [(80e9, 2)], "flops")
    assert by_flops.forecast.value == pytest.approx(by_size.forecast.value)
    with pytest.raises(ConfigError, match="against parameters"):
        predict(points([5, 10, 20, 40]), "auc", [(1.0, 2)], "parameters")


def test_the_first_record_in_a_journal_counts_and_comes_back_bit_for_bit() -> None:
    made = predict(points([5, 10, 20, 40]), "auc", [(80.0, 2)], "x")
    first = Record("k", True, {"auc": {"x-80": made[0]}})
    later = Record("k", True, {"auc": {"x-80": predict(points([5, 10, 20]), "auc", [(80.0, 2)], "x")[0]}})
    rows: list[dict[str, Any]] = [
        {"kind": "run", "step": 0},
        *({"kind": ROW, "step": i, **r.values()} for i, r in enumerate((first, later))),
    ]
    rows = json.loads(json.dumps(rows))
    assert recorded(rows, "k") == first != later
    assert recorded(rows, "other") is None


def test_the_key_knows_trainings_and_what_is_predicted() -> None:
    about = {"fitted": ["a", "b"], "held_out": ["c"], "metrics": ["auc"]}
    keys = {record_key(about), *(record_key({**about, k: ["other"]}) for k in about)}
    assert len(keys) == 4
