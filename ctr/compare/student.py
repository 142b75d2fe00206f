"""Tests and intervals for a difference whose variance is a sum of two, one of them from few trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, special

_SMALLEST_LOG_P = -460.0  # Student's quantile is not computed far beyond


@dataclass(frozen=True, kw_only=True)
class Error:
    """The squared standard error of a difference, in two parts.

    The reference distribution weights Student's quantiles of the two parts by their variances (Cochran). It
    keeps its level for any mixture of the two; Satterthwaite's degrees of freedom do not, with two or three
    seeds (12.6 % and 7.8 % at the 5 % level where the users' part is a tenth of the variance).

    Args:
        users: variance from the sample of users.
        df_users: its degrees of freedom, clusters − 1.
        training: variance from trainings; 0 where only one training was made.
        df_training: its degrees of freedom; 0 where there are none.

    Source: Cochran, Biometrics 20 (1964), section 3.

    Example:
        >>> Error(users=1.0, df_users=10**6).critical(0.05), Error(training=1.0, df_training=2).critical(0.05)
        (1.95..., 4.30...)
    """

    users: float = 0.0
    df_users: int = 1
    training: float = 0.0
    df_training: int = 0

    @property
    def se(self) -> float:
        """The standard error."""
        return math.sqrt(self.users + self.training)

    def quantile(self, tail: float) -> float:
        """The value, in standard errors, that is exceeded with probability `tail`."""
        parts = [(self.users, self.df_users), (self.training, self.df_training)]
        parts = [(variance, df) for variance, df in parts if variance > 0]
        if not parts:
            return -float(special.ndtri(tail))
        total = sum(variance for variance, _ in parts)
        return -sum(variance / total * float(special.stdtrit(df, tail)) for variance, df in parts)

    def critical(self, level: float) -> float:
        """The number of standard errors beyond which a difference is significant, two-sided."""
        return self.quantile(level / 2.0)

    def p_value(self, delta: float) -> float:
        """Two-sided: the level at which `delta` lies on the border of significance."""
        if delta == 0.0:
            return 1.0
        if self.se == 0.0:
            return 0.0
        ratio = abs(delta) / self.se
        if self.critical(math.exp(_SMALLEST_LOG_P)) <= ratio:
            return math.exp(_SMALLEST_LOG_P)
        log_p = optimize.brentq(lambda x: self.critical(math.exp(x)) - ratio, _SMALLEST_LOG_P, 0.0)
        return math.exp(log_p)
