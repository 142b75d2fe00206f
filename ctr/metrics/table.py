"""The table of metrics. Whatever shows, chooses by, compares or documents metrics reads it.

To add one: an entry here. A program that uses this package may `register` its own instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import AfterValidator

from ctr.metrics.computation import BinnedGap, GroupMean, RocArea, RowSums
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import auc_in_groups
from ctr.metrics.records import Floats
from ctr.metrics.regression import REGRESSION_METRICS
from ctr.metrics.sums import loss, positives, prediction, rows
from features.errors import ConfigError


def normalised_entropy(loss: Floats, positives: Floats, rows: Floats) -> Floats:
    """Log loss over that of the base rate.

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook (2014), section 3.
    """
    rate = positives / rows
    return loss / rows / -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))


_ENTRIES = (
    Metric(
        name="auc",
        label="AUC",
        meaning="chance that a clicked impression scores above one that was not",
        better="higher",
        computation=RocArea(),
        labels="both classes",
        interval="log-odds",
        headline=True,
    ),
    Metric(
        name="auc_delong",
        label="AUC (DeLong)",
        meaning="AUC with an interval that takes rows as independent",
        better="higher",
        computation=RocArea(delong=True),
        labels="both classes",
        interval="log-odds",
        in_validation=False,
        check_of="auc",
    ),
    Metric(
        name="gauc",
        label="GAUC",
        meaning="AUC within each user, weighted by impressions",
        better="higher",
        computation=GroupMean("user", auc_in_groups, by_rows=True, having="rows of both classes"),
        interval="log-odds",
        headline=True,
        in_slices=True,
    ),
    Metric(
        name="query_auc",
        label="Query AUC",
        meaning="AUC within each request, averaged",
        better="higher",
        computation=GroupMean("request", auc_in_groups, by_rows=False, having="rows of both classes"),
        interval="log-odds",
        headline=True,
    ),
    Metric(
        name="log_loss",
        label="Log loss",
        meaning="mean binary cross-entropy",
        better="lower",
        computation=RowSums((loss, rows), lambda loss, rows: loss / rows),
    ),
    Metric(
        name="ne",
        label="NE",
        meaning="log loss / entropy of the base rate; below 1 is better than the base rate",
        better="lower",
        computation=RowSums((loss, positives, rows), normalised_entropy),
        labels="both classes",
        headline=True,
        in_slices=True,
    ),
    Metric(
        name="calibration",
        label="Calibration",
        meaning="mean prediction / mean label; 1 is right",
        better="nearest 1",
        computation=RowSums((prediction, positives), lambda prediction, positives: prediction / positives),
        labels="a positive",
        not_compared="neither larger nor smaller is better: 1 is right",
    ),
    Metric(
        name="ece",
        label="ECE",
        meaning="mean |prediction − label| over 20 bins of equal mass",
        better="lower",
        computation=BinnedGap(),
        interval=None,
        in_slices=True,
        in_validation=False,
        not_compared="noise alone makes it positive, so an interval of a difference would mislead",
    ),
)
METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Add an entry.

    Raises:
        ConfigError: a name that is taken, or that is no name.
    """
    if not metric.name.isidentifier():  # + joins names, and a dot is kept for the name of a task
        raise ConfigError(f"a metric must be named by letters, digits and _, got {metric.name!r}; rename it")
    if metric.name in METRICS or metric.name in REGRESSION_METRICS:
        raise ConfigError(f"a metric must have a name of its own, got {metric.name!r} twice")
    METRICS[metric.name] = metric
    return metric


for _entry in _ENTRIES:
    register(_entry)


def shown() -> list[Metric]:
    """Those that people see, in order: all but checks of others."""
    return [metric for metric in METRICS.values() if metric.check_of is None]


def headlines() -> list[Metric]:
    """Those that are named where there is room for a few."""
    return [metric for metric in shown() if metric.headline]


def validated() -> list[Metric]:
    """Those that are computed when a split is scored while training."""
    return [metric for metric in METRICS.values() if metric.in_validation]


def compared() -> list[Metric]:
    """Those by which two models are compared."""
    return [metric for metric in shown() if not metric.not_compared]


def check_compared(name: str) -> str:
    """The name of a metric by which models are compared.

    Raises:
        ValueError: there is none of this name, or it judges no model.
    """
    return _check(name, compared(), lambda metric: metric.not_compared)


def metric_of(name: str) -> Metric:
    """The metric of a name that may have a task in front of it, be it of a regression.

    Example:
        >>> metric_of("buy.auc") is metric_of("auc"), metric_of("seconds.rmse").better
        (True, 'lower')
    """
    own = name.rpartition(".")[2]
    return REGRESSION_METRICS[own] if own in REGRESSION_METRICS else METRICS[own]


def check_selection(text: str) -> str:
    """What `train.metric` may say: a metric, or several of one direction joined by +; of a task `click.auc`.

    Raises:
        ValueError: an unknown metric, one that chooses no step, or directions that differ.

    Example:
        >>> check_selection("click.auc+buy.gauc"), check_selection("click.ne+seconds.rmse")
        ('click.auc+buy.gauc', 'click.ne+seconds.rmse')
    """
    names = [name.rpartition(".")[2] for name in text.split("+")]
    choosing = [m for m in (*validated(), *REGRESSION_METRICS.values()) if m.direction]
    for name in names:
        _check(name, choosing, _not_selectable)
    if len({metric_of(name).direction for name in names}) > 1:
        ways = ", ".join(f"{name}: {metric_of(name).better}" for name in names)
        raise ValueError(f"a mean of metrics needs one direction in all of them, got {ways}")
    return text


def _not_selectable(metric: Metric) -> str:
    if metric.check_of:
        return f"it is a check of {metric.check_of}"
    return metric.not_compared if not metric.direction else "it is not computed in validation"


def _check(name: str, allowed: Iterable[Metric], why: Callable[[Metric], str]) -> str:
    names = [metric.name for metric in allowed]
    if name in names:
        return name
    known = METRICS | REGRESSION_METRICS
    reason = f": {why(known[name])}" if name in known and why(known[name]) else ""
    raise ValueError(f"a metric must be among {', '.join(names)}, got {name!r}{reason}")


MetricName: TypeAlias = Annotated[str, AfterValidator(check_compared)]
Selection: TypeAlias = Annotated[str, AfterValidator(check_selection)]
