"""Trainings are combined by classical formulas; users are drawn alike in all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ctr.compare import Cell, combine
from ctr.compare.student import Error
from ctr.compare.units import Units, error_of, pooled_variance
from features.errors import ConfigError
from tests.ctr.compare.tables import table_of


def units_of(
    base: np.ndarray, variant: np.ndarray, strata: list[int], drawn: np.ndarray | None = None
) -> Units:
    return Units(
        names=tuple((f"w{stratum}", k) for k, stratum in enumerate(strata)),
        base=base,
        variant=variant,
        drawn=np.zeros((50, len(strata))) if drawn is None else drawn,
        strata=np.array(strata),
    )


def test_without_noise_of_users_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    base, variant = rng.normal(size=(2, 4))
    units = units_of(base, variant, [0, 0, 0, 0])
    error = error_of(units, clusters=100)
    expected = stats.ttest_rel(variant, base)
    assert error.p_value(units.delta.mean()) == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert error.critical(0.05) * error.se == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_one_training_has_the_spread_of_its_draws() -> None:
    drawn = np.random.default_rng(1).normal(size=(400, 1))
    error = error_of(units_of(np.zeros(1), np.ones(1), [0], drawn), clusters=50)
    assert error.users == pytest.approx(drawn.var(ddof=1) * 50 / 49)
    assert (error.training, error.df_training, error.df_users) == (0.0, 0, 49)


def test_windows_are_strata_that_count_alike() -> None:
    delta = np.array([1.0, 3.0, 10.0, 14.0, 12.0])
    units = units_of(np.zeros(5), delta, [0, 0, 1, 1, 1])
    error = error_of(units, clusters=100)
    spread = (2.0 + 8.0) / 3  # sums of squares within windows, over (2 − 1) + (3 − 1)
    assert units.weights @ delta == pytest.approx((2.0 + 12.0) / 2)
    assert error.training == pytest.approx(spread * (1 / 2 + 1 / 3) / 4)
    assert error.df_training == 3


def test_random_windows_are_units_themselves() -> None:
    delta = np.array([1.0, 3.0, 10.0, 14.0, 12.0])
    error = error_of(units_of(np.zeros(5), delta, [0, 0, 1, 1, 1]).by_window(), clusters=100)
    assert error.training == pytest.approx(np.var([2.0, 12.0], ddof=1) / 2)
    assert error.df_training == 1


def test_the_variance_is_unbiased() -> None:
    """Of the mean of three trainings with common noise of users, own noise of users and noise of training."""
    rng = np.random.default_rng(2)
    common, own, training = 1.0, 0.5, 0.7
    estimates, means = [], []
    for _ in range(1000):
        drawn = common * rng.normal(size=(60, 1)) + own * rng.normal(size=(60, 3))
        delta = common * rng.normal() + own * rng.normal(size=3) + training * rng.normal(size=3)
        error = error_of(units_of(np.zeros(3), delta, [0, 0, 0], drawn), clusters=10**6)
        estimates.append(error.se**2)
        means.append(delta.mean())
    truth = common**2 + (own**2 + training**2) / 3
    assert np.var(means) == pytest.approx(truth, rel=0.15)
    assert np.mean(estimates) == pytest.approx(truth, rel=0.03)


def test_pooled_noise_is_the_residual_of_models_and_units() -> None:
    rng = np.random.default_rng(3)
    strata = [0, 0, 0, 1, 1, 1]
    models = rng.normal(size=(4, 6)) + rng.normal(size=6) + 5.0 * rng.normal(size=(4, 1))
    variants = [units_of(models[0], model, strata) for model in models[1:]]
    cells = [(m, k) for m in range(4) for k in range(6)]
    design = np.zeros((24, 6 + 8))
    for row, (m, k) in enumerate(cells):
        design[row, k] = design[row, 6 + 2 * m + strata[k]] = 1.0
    y = models.reshape(-1)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    df = 24 - np.linalg.matrix_rank(design)
    assert pooled_variance(variants) == (pytest.approx(2 * residual @ residual / df), df)


def test_pooled_noise_of_one_variant_is_its_own() -> None:
    base, variant = np.random.default_rng(4).normal(size=(2, 3))
    units = units_of(base, variant, [0, 0, 0])
    assert pooled_variance([units]) == (pytest.approx(units.delta.var(ddof=1)), 2)


def test_reference_distribution_is_between_its_parts() -> None:
    few, many = Error(training=1.0, df_training=2), Error(users=1.0, df_users=10**6)
    both = Error(users=1.0, df_users=10**6, training=1.0, df_training=2)
    assert both.critical(0.01) == pytest.approx((few.critical(0.01) + many.critical(0.01)) / 2)
    assert both.p_value(both.critical(0.01) * both.se) == pytest.approx(0.01)
    assert many.p_value(1e9) < 1e-100 and Error().p_value(0.0) == 1.0 and Error().p_value(0.1) == 0.0


def test_combined_cells_of_different_users() -> None:
    """Windows whose users differ are independent: the variance of the mean is a quarter of the sum."""
    first, second = table_of(0), table_of(1)
    second = replace(second, user=second.user + 1000)
    cells = [Cell(pair=first.pair(4000), window="a"), Cell(pair=second.pair(4000), window="b")]
    alone = [combine({"v": [cell]})["auc"]["v"].error for cell in cells]
    both = combine({"v": cells})["auc"]["v"]
    assert both.error is not None and alone[0] is not None and alone[1] is not None
    assert both.clusters == 80
    assert both.error.users == pytest.approx((alone[0].users + alone[1].users) / 4, rel=0.1)
    again = combine({"v": [cells[0], replace(cells[0], window="b")]})["auc"]["v"].error
    assert again is not None and again.users == pytest.approx(alone[0].users, rel=1e-9)


def test_too_few_users_and_undefined_figures_say_so() -> None:
    few = table_of(0, 100, users=5)
    found = combine({"v": [Cell(pair=few.pair())]})
    assert found["auc"]["v"].reason == "no interval: 5 are too few to resample (at least 10)"
    none = replace(few, label=np.zeros(100, dtype=np.int8), user=np.arange(100))
    found = combine({"v": [Cell(pair=none.pair())]})
    assert (
        found["auc"]["v"].reason == "undefined: only one class" and found["log_loss"]["v"].error is not None
    )


@pytest.mark.parametrize("other", [{"draws": 400}, {"seed": 1}])
def test_cells_whose_users_were_drawn_differently_are_refused(other: dict[str, int]) -> None:
    cells = [Cell(pair=table_of(0).pair()), Cell(pair=table_of(0).pair(**other), seed=1)]
    with pytest.raises(ConfigError, match="must have the same bootstrap"):
        combine({"v": cells})


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([("a", 1), ("a", 1)], {}, "one training for each window and seed, got .* twice"),
        ([], {}, "got none for v"),
        ([("a", 1), ("a", 2)], {"windows": "random"}, "windows taken as random must be two or more"),
        ([("a", 1)], {"noise": "pooled"}, "pooled noise must have every variant in the same"),
    ],
)
def test_wrong_cells_are_refused(names: list[tuple[str, int]], options: dict[str, str], message: str) -> None:
    pair = table_of(0).pair()
    cells = {"v": [Cell(pair=pair, window=w, seed=s) for w, s in names]}
    if "noise" in options:
        cells["w"] = [Cell(pair=pair, window="b")]
    with pytest.raises(ConfigError, match=message):
        combine(cells, **options)  # type: ignore[arg-type]
