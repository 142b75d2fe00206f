"""One measured number with its interval, or the reason why it is undefined."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """A figure, its 95 % interval and what it was computed from.

    Args:
        value: the figure, or None where it is undefined; `reason` then says why.
        low, high: ends of the 95 % interval, or None; beside a value `reason` then says why.
        interval: how the interval was found: "user bootstrap", "request bootstrap" or "DeLong".
        n: rows that entered the figure; of groups of rows with weights, what they weigh.
        groups, groups_total: users or requests that entered, and all there were; None where ungrouped.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    reason: str | None = None
    n: int = 0
    groups: int | None = None
    groups_total: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON."""
        return asdict(self)


def normal_interval(metric: MetricValue, se: float, method: str) -> MetricValue:
    """`metric` with the interval value ± 1.96 · se.

    Example:
        >>> normal_interval(MetricValue(value=0.5), 0.1, "user bootstrap").low
        0.3040036015...
    """
    if metric.value is None:
        return metric
    return replace(metric, low=metric.value - Z95 * se, high=metric.value + Z95 * se, interval=method)


def logit_interval(metric: MetricValue, se: float, method: str) -> MetricValue:
    """`metric` with an interval that is symmetric in log-odds: sigmoid(logit v ± 1.96 · se / (v (1 − v))).

    An AUC near 1 has a skewed error; the plain interval reaches beyond 1 there, this one cannot, and its
    coverage is better for small samples.

    Args:
        metric: value in [0, 1]; at exactly 0 or 1 the standard error is 0 and no interval is given.
        se: standard error of the value (not of its log-odds).
        method: name of how `se` was found.

    Source: Pepe, The Statistical Evaluation of Medical Tests (2003), section 5.2.

    Example:
        >>> m = logit_interval(MetricValue(value=0.9), 0.05, "DeLong")
        >>> round(m.low, 3), round(m.high, 3)
        (0.752, 0.964)
    """
    value = metric.value
    if value is None:
        return metric
    if not 0.0 < value < 1.0:
        return replace(
            metric, reason=f"no interval: the value is exactly {value:g}, its error is not estimable"
        )
    centre, half = math.log(value / (1.0 - value)), Z95 * se / (value * (1.0 - value))
    return replace(metric, low=_sigmoid(centre - half), high=_sigmoid(centre + half), interval=method)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
