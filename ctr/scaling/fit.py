"""The curve y = αx^β + γ through measured points, with intervals by profile likelihood.

For a given β the other two parameters are solved exactly (`ctr.scaling.lines`): the search is over β alone,
on a grid, and ends in no local minimum. β passes through 0, where the curve is a straight line in log x: it
has no asymptote there, and α and γ have no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from ctr.scaling.lines import Lines

BETA_RANGE = (-3.0, 1.0)  # from a step that is over at once to a straight line
MIN_FOR_CURVE = 4  # distinct x; with 3 of them a straight line in log x
LEVEL = 0.95
_GRID = 401  # values of β, 0 among them


@dataclass(frozen=True)
class Parameter:
    """A parameter and its interval; None where the points do not tell, on that side or at all."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forecast:
    """What the curve says of a point that it was not fitted to.

    Args:
        x: where.
        repeats: trainings that the point will be the mean of.
        value, low, high: of that mean, with a 95 % interval that counts the noise of these trainings too.
    """

    x: float
    repeats: int
    value: float
    low: float
    high: float


class Curve:
    """The least-squares curve, and all those that fit nearly as well.

    A measurement is the curve plus noise, independent and of one variance, which all residuals estimate: so a
    point counts by its number of trainings. A curve fits nearly as well if its sum of squares exceeds the
    least by at most s² t², t being Student's with n − 3 degrees of freedom; an interval is what these curves
    say. For a straight line these are the textbook intervals.

    Args:
        x: positive, at least 3 distinct values; with 3 β is fixed at 0.
        y: as many.

    Raises:
        ValueError: fewer than 3 distinct x.

    Source: profile likelihood, Bates and Watts, Nonlinear Regression Analysis (1988), chapter 6.

    Example:
        >>> x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
        >>> curve = Curve(x, 0.8 - 0.1 * x**-0.5)
        >>> [round(p.value, 4) for p in (curve.alpha, curve.beta, curve.gamma)]
        [-0.1, -0.5, 0.8]
    """

    def __init__(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> None:
        self._x, self._y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        distinct = len(np.unique(self._x))
        if distinct < 3:
            raise ValueError(f"a curve needs 3 distinct x, got {distinct}")
        self._log_m = float(np.log(self._x).mean())
        self._u = np.log(self._x) - self._log_m
        self.is_line = distinct < MIN_FOR_CURVE
        self._grid = np.zeros(1) if self.is_line else np.linspace(*BETA_RANGE, _GRID)
        best = self._least()
        self._best = self._lines(best)
        self.rss = float(self._best.rss[0])
        self.df = len(self._x) - (2 if self.is_line else 3)
        self.variance = self.rss / self.df  # s²
        rounding = len(self._y) * (4 * np.finfo(float).eps * float(np.abs(self._y).max())) ** 2
        t = float(special.stdtrit(self.df, (1 + LEVEL) / 2))
        self._limit = max(self.variance * t**2, rounding)
        self._near = self._lines(self._nearly_as_good(best))
        self._slack = np.clip(self._limit - (self._near.rss - self.rss), 0.0, None)
        self.beta = self._beta(best)

    def _lines(self, betas: float | np.ndarray) -> Lines:
        return Lines(np.atleast_1d(np.asarray(betas, dtype=np.float64)), self._u, self._y)

    def _excess(self, beta: float) -> float:
        return float(self._lines(beta).rss[0]) - self.rss - self._limit

    def _least(self) -> float:
        """The best β of the grid, refined between its neighbours."""
        rss = self._lines(self._grid).rss
        at = int(np.argmin(rss))
        bounds = (self._grid[max(0, at - 1)], self._grid[min(len(self._grid) - 1, at + 1)])
        if bounds[0] == bounds[1]:
            return float(self._grid[at])
        found = optimize.minimize_scalar(
            lambda beta: float(self._lines(beta).rss[0]),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-10},
        )
        return float(found.x if found.fun < rss[at] else self._grid[at])

    def _nearly_as_good(self, best: float) -> np.ndarray:
        """The β whose curves fit nearly as well, many of them between the smallest and the largest."""
        inside = self._grid[self._lines(self._grid).rss - self.rss <= self._limit]
        low = self._end(min([best, *inside]), self._grid[::-1][self._grid[::-1] < min([best, *inside])])
        high = self._end(max([best, *inside]), self._grid[self._grid > max([best, *inside])])
        dense = np.linspace(low, high, _GRID)
        kept = dense[self._lines(dense).rss - self.rss <= self._limit]
        return np.unique([low, best, high, *kept])

    def _end(self, inside: float, beyond: np.ndarray) -> float:
        """Where the sum of squares reaches its limit, between a β inside and the next of the grid."""
        if not len(beyond) or self._excess(inside) >= 0:
            return inside
        return float(optimize.brentq(self._excess, inside, float(beyond[0]), xtol=1e-12))

    def _beta(self, best: float) -> Parameter:
        if self.is_line:
            return Parameter(0.0, 0.0, 0.0)
        low, high = float(self._near.betas[0]), float(self._near.betas[-1])
        below, above = low > BETA_RANGE[0] + 1e-9, high < BETA_RANGE[1] - 1e-9
        known = (below or above) and BETA_RANGE[0] + 1e-6 < best < BETA_RANGE[1] - 1e-6
        return Parameter(best if known else None, low if below else None, high if above else None)

    @property
    def has_asymptote(self) -> bool:
        """Whether every curve that fits nearly as well levels off as x grows: β below 0."""
        return self.beta.high is not None and self.beta.high < 0

    @property
    def gamma(self) -> Parameter:
        """γ: where the curve ends as x grows (β < 0), or begins at 0 (β > 0); unknown if β may be 0."""
        if self._beta_may_be_zero():
            return Parameter(None, None, None)
        value, _ = self._best.at_z(-1 / self._best.betas[:, None])
        near, factor = self._near.at_z(-1 / self._near.betas[:, None])
        return self._parameter(float(value[0, 0]), near[:, 0], factor[:, 0])

    @property
    def alpha(self) -> Parameter:
        """α, the curve's height over γ at x = 1; unknown if β may be 0."""
        if self._beta_may_be_zero():
            return Parameter(None, None, None)
        scale = np.exp(-self._near.betas * self._log_m) / self._near.betas
        own = np.exp(-self._best.betas * self._log_m) / self._best.betas
        factor = self._near.slope_variance() * scale**2
        return self._parameter(float((self._best.slope * own)[0]), self._near.slope * scale, factor)

    def _beta_may_be_zero(self) -> bool:
        return self.is_line or self._near.betas[0] <= 0 <= self._near.betas[-1] or self.beta.value is None

    def _parameter(self, value: float, near: np.ndarray, factor: np.ndarray) -> Parameter:
        """With bounds where β has bounds on both sides: they move together."""
        if self.beta.low is None or self.beta.high is None:
            return Parameter(value, None, None)
        half = np.sqrt(self._slack * factor)
        return Parameter(value, float((near - half).min()), float((near + half).max()))

    def forecast(self, x: float, *, repeats: int) -> Forecast:
        """The mean of some new trainings at x."""
        value, low, high = self.band([x], noise=1 / repeats)
        return Forecast(x, repeats, float(value[0]), float(low[0]), float(high[0]))

    def band(
        self, x: Sequence[float] | np.ndarray, *, noise: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The curve at P positions with its 95 % band, three arrays (P,).

        Args:
            x: positive.
            noise: further variance in units of a measurement's; 0 is the band of the curve itself.
        """
        u = np.log(np.asarray(x, dtype=np.float64)) - self._log_m
        near, factor = self._near.at(u)
        half = np.sqrt(self._slack[:, None] * (factor + noise))
        return self._best.at(u)[0][0], (near - half).min(axis=0), (near + half).max(axis=0)

    @property
    def explained(self) -> float | None:
        """R²: the share of the measurements' variance that the curve explains."""
        if np.ptp(self._y) == 0:
            return None
        return 1 - self.rss / float(((self._y - self._y.mean()) ** 2).sum())

    def misfit(self) -> float | None:
        """p-value of the points' distances from the curve, given how far trainings of one point lie apart.

        The F test for lack of fit; None where there are no repeats, or as many parameters as points.
        """
        positions, of = np.unique(self._x, return_inverse=True)
        means = np.bincount(of, self._y) / np.bincount(of)
        pure = float(((self._y - means[of]) ** 2).sum())
        df_pure, df_lack = len(self._y) - len(positions), self.df - (len(self._y) - len(positions))
        if df_pure < 1 or df_lack < 1 or pure <= 0:
            return None
        lack = max(0.0, self.rss - pure)
        return float(special.fdtrc(df_lack, df_pure, (lack / df_lack) / (pure / df_pure)))
