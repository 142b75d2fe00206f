"""The fitted curve: what it finds, how often its intervals hold the truth, and what it leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from ctr.scaling.fit import Curve

SIZES = 5.0 * 2.0 ** np.arange(6)  # the last is predicted
SEEDS = 2


def power(x: np.ndarray, alpha: float, beta: float, gamma: float) -> np.ndarray:
    return alpha * x**beta + gamma


def noisy(
    rng: np.random.Generator, truth: tuple[float, float, float], sd: float
) -> tuple[np.ndarray, np.ndarray]:
    x = np.repeat(SIZES[:-1], SEEDS)
    return x, power(x, *truth) + rng.normal(0, sd, len(x))


@pytest.mark.parametrize("truth", [(-0.1, -0.5, 0.8), (2.0, -1.7, 0.3), (0.02, 0.4, 0.5), (-1.0, -0.1, 1.5)])
def test_without_noise_the_curve_is_found(truth: tuple[float, float, float]) -> None:
    curve = Curve(SIZES, power(SIZES, *truth))
    found = [p.value for p in (curve.alpha, curve.beta, curve.gamma)]
    assert found == pytest.approx(truth, rel=1e-4)
    assert curve.forecast(500.0, repeats=1).value == pytest.approx(power(np.array(500.0), *truth), rel=1e-6)
    assert curve.explained == pytest.approx(1.0)
    assert curve.has_asymptote == (truth[1] < 0)


def test_it_is_the_least_squares_curve_of_scipy() -> None:
    x, y = noisy(np.random.default_rng(1), (-0.1, -0.5, 0.8), 0.001)
    starts = [(-0.1, beta, 0.8) for beta in (-2.0, -1.0, -0.3)]
    found = [optimize.curve_fit(power, x, y, p0=start, maxfev=20_000)[0] for start in starts]
    best = min(found, key=lambda p: ((power(x, *p) - y) ** 2).sum())
    curve = Curve(x, y)
    assert [curve.alpha.value, curve.beta.value, curve.gamma.value] == pytest.approx(best, rel=1e-3)
    assert curve.rss == pytest.approx(((power(x, *best) - y) ** 2).sum(), rel=1e-6)


def coverage(truth: tuple[float, float, float], sd: float, draws: int = 200) -> dict[str, float]:
    """How often each interval holds what it is about, over simulated sweeps."""
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(("alpha", "beta", "gamma", "next"), 0)
    for _ in range(draws):
        curve = Curve(*noisy(rng, truth, sd))
        new = power(SIZES[-1:], *truth)[0] + rng.normal(0, sd, SEEDS).mean()
        forecast = curve.forecast(SIZES[-1], repeats=SEEDS)
        hits["next"] += bool(forecast.low <= new <= forecast.high)
        for name, value in zip(("alpha", "beta", "gamma"), truth, strict=True):
            p = getattr(curve, name)
            hits[name] += (p.low is None or p.low <= value) and (p.high is None or value <= p.high)
    return {name: count / draws for name, count in hits.items()}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    found = coverage((-0.1, -0.5, 0.8), 0.0005)  # every parameter is determined
    assert all(0.90 <= share <= 0.99 for share in found.values()), found  # ± 3 standard errors of 95 % in 200


def test_intervals_hold_the_truth_also_where_noise_hides_the_curve() -> None:
    found = coverage((-0.1, -0.5, 0.8), 0.01)
    assert all(share >= 0.90 for share in found.values()), found


def test_three_sizes_make_a_straight_line_with_the_textbook_intervals() -> None:
    x = np.repeat([1.0, 2.0, 4.0], 3)
    y = 0.7 + 0.02 * np.log(x) + np.random.default_rng(2).normal(0, 0.002, 9)
    curve = Curve(x, y)
    fit = stats.linregress(np.log(x), y)
    sd = np.sqrt(((y - fit.intercept - fit.slope * np.log(x)) ** 2).sum() / 7)
    u = np.log(x) - np.log(x).mean()
    error = sd * np.sqrt(1 / 2 + 1 / 9 + (np.log(8) - np.log(x).mean()) ** 2 / (u**2).sum())
    forecast = curve.forecast(8.0, repeats=2)
    assert curve.is_line and curve.alpha.value is None and curve.gamma.value is None
    assert forecast.value == pytest.approx(fit.intercept + fit.slope * np.log(8))
    assert forecast.high - forecast.value == pytest.approx(error * stats.t.ppf(0.975, 7))


def test_what_cannot_be_told_is_not_told() -> None:
    x = np.repeat(SIZES, 2)
    noise = np.random.default_rng(3).normal(0, 0.01, len(x))
    flat = Curve(x, 0.7 + noise)
    assert flat.beta.value is None and flat.alpha.value is None and flat.gamma.value is None
    logarithm = Curve(x, 0.7 + 0.02 * np.log(x) + noise / 50)
    assert logarithm.beta.value == pytest.approx(0, abs=0.1) and logarithm.gamma.value is None
    assert not logarithm.has_asymptote
    constant = Curve(x, np.full(len(x), 0.7))
    assert constant.beta.value is None and constant.explained is None
    assert constant.forecast(999.0, repeats=2).value == pytest.approx(0.7)


def test_a_bound_can_be_open_on_one_side() -> None:
    rng = np.random.default_rng(5)
    x = np.repeat(SIZES, 2)
    steep = Curve(x, 0.8 - 0.1 * (x / 5) ** -2.5 + rng.normal(0, 0.003, len(x)))
    assert steep.beta.low is None and steep.beta.high is not None and steep.beta.high < 0
    assert steep.gamma.value is not None and steep.gamma.low is None and steep.gamma.high is None


def test_units_do_not_matter_and_auc_may_be_turned_round() -> None:
    x, y = noisy(np.random.default_rng(4), (-0.1, -0.5, 0.8), 0.001)
    curve, turned = Curve(x, y), Curve(1000 * x, 1 - y)
    assert turned.beta.value == pytest.approx(curve.beta.value, rel=1e-4)
    one, other = curve.forecast(200.0, repeats=2), turned.forecast(200_000.0, repeats=2)
    assert [1 - other.value, 1 - other.high, 1 - other.low] == pytest.approx([one.value, one.low, one.high])


def test_a_prediction_counts_the_noise_of_the_new_point() -> None:
    curve = Curve(*noisy(np.random.default_rng(6), (-0.1, -0.5, 0.8), 0.002))
    _, low, high = curve.band([SIZES[-1]])
    one, many = (curve.forecast(SIZES[-1], repeats=n) for n in (1, 100))
    assert one.low < many.low < low[0] < high[0] < many.high < one.high
    assert one.value == many.value


def test_a_wrong_form_shows_as_misfit() -> None:
    x = np.repeat(SIZES, 3)
    rng = np.random.default_rng(7)
    good = Curve(x, power(x, -0.1, -0.5, 0.8) + rng.normal(0, 0.001, len(x)))
    bad = Curve(x, 0.7 + 0.02 * np.sin(3 * np.log(x)) + rng.normal(0, 0.001, len(x)))
    assert good.misfit() > 0.05 and bad.misfit() < 1e-4  # type: ignore[operator]
    assert Curve(SIZES, power(SIZES, -0.1, -0.5, 0.8)).misfit() is None


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 distinct x, got 2"):
        Curve([1.0, 1.0, 2.0], [0.5, 0.6, 0.7])
