"""How a metric is computed, once for an evaluation with its interval and once to compare two models.

An evaluation walks over the rows (`Walk`) and then asks each metric for its value. A comparison keeps sums of
each cluster of users and the AUC's draws (`ctr.compare.sums`), and asks for the figure of their totals: those
of all clusters, or of a bootstrap draw. Both are bounded in memory: no computation sees all rows at once.

K: clusters. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from ctr.metrics.bootstrap import weighted_totals
from ctr.metrics.records import Floats
from ctr.metrics.sums import GroupFigure, GroupSums, RowColumn
from ctr.metrics.value import MetricValue

if TYPE_CHECKING:
    from ctr.metrics.metric import Metric
    from ctr.metrics.walk import Walk

Totals: TypeAlias = Mapping[Hashable, Floats]  # column → its total in each draw, (D,)
AUC = "AUC"  # given in its draws, since it is no function of sums


class Computation(Protocol):
    """What an entry of the table says of its computation."""

    @property
    def columns(self) -> tuple[Hashable, ...]:
        """Sums per cluster that a comparison keeps for it."""

    def evaluate(self, metric: Metric, walk: Walk) -> MetricValue:
        """The figure of the rows that were walked over, with its interval."""

    def compare(self, totals: Totals) -> Floats:
        """The figure of each row of totals, (D,); NaN where undefined."""

    def undefined(self, metric: Metric) -> str:
        """Why it may be undefined, in a comparison."""


@dataclass(frozen=True)
class RowSums:
    """A function of sums over rows, such as a mean of something that each row adds.

    Args:
        columns: what is summed over rows; see `ctr.metrics.sums`.
        value: the figure of the sums, (D,) each, in the order of `columns`.
    """

    columns: tuple[RowColumn, ...]
    value: Callable[..., Floats]

    def evaluate(self, metric: Metric, walk: Walk) -> MetricValue:
        """From the totals; the interval from those of the draws."""
        if reason := metric.missing_labels(walk.rows, walk.positives):
            return MetricValue(value=None, reason=reason, n=walk.rows)
        value = float(self.compare(walk.totals)[0])
        if np.isnan(value):
            return MetricValue(value=None, reason="the figure is not finite", n=walk.rows)
        return walk.interval(metric, MetricValue(value=value, n=walk.rows), self.compare(walk.drawn))

    def compare(self, totals: Totals) -> Floats:
        """The function of the totals; what is not finite is undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.value(*(totals[column] for column in self.columns))
        return np.where(np.isfinite(found), found, np.nan)

    def undefined(self, metric: Metric) -> str:
        """What its labels lack."""
        return {"any": "no rows", "both classes": "only one class", "a positive": "no label is 1"}[
            metric.labels
        ]


@dataclass(frozen=True)
class GroupMean:
    """A figure within each user or request, averaged over those that have it.

    Args:
        group: whose rows belong together.
        figure: of the groups; it may use the order of scores and which are equal, not the scores themselves.
        by_rows: a group weighs as much as it has rows; else each counts once.
        having: what a group must have.
    """

    group: Literal["user", "request"]
    figure: GroupFigure
    by_rows: bool
    having: str

    @property
    def columns(self) -> tuple[Hashable, ...]:
        """Weighted sum of the groups' figures, and sum of the weights."""
        return (self, "weighted"), (self, "weight")

    def sums(self, clusters: int) -> GroupSums:
        """Empty sums for K clusters."""
        return GroupSums(self.figure, by_rows=self.by_rows, clusters=clusters)

    def evaluate(self, metric: Metric, walk: Walk) -> MetricValue:
        """The weighted mean over the groups."""
        sums = walk.groups.get(self)
        if sums is None:
            return MetricValue(
                value=None, reason=f"no {self.group} ids were given" if walk.rows else "no rows"
            )
        rows, total = round(sums.rows), sums.groups_total
        counted = MetricValue(value=None, n=rows, groups=sums.groups, groups_total=total)
        if not sums.groups:
            reason = f"none of the {sums.groups_total} {self.group}s has {self.having}"
            return replace(counted, reason=reason)
        mean = replace(counted, value=float(sums.weighted.sum() / sums.weight.sum()))
        totals = weighted_totals(walk.weights, np.stack([sums.weighted, sums.weight], axis=1))
        drawn = self.compare(dict(zip(self.columns, totals.T, strict=True)))
        return walk.interval(metric, mean, drawn, clusters=int(np.count_nonzero(sums.weight)))

    def compare(self, totals: Totals) -> Floats:
        """The ratio of the two sums."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return totals[self, "weighted"] / totals[self, "weight"]

    def undefined(self, metric: Metric) -> str:
        """No such group."""
        return f"no {self.group} ids, or no {self.group} with {self.having}"


@dataclass(frozen=True)
class RocArea:
    """Area under the ROC curve.

    It is no function of sums over rows. `AucDraws` draws it exactly in one walk over the rows by score, for
    an evaluation and for each model of a comparison.

    Args:
        delong: take rows as independent, with DeLong's interval: a check.
    """

    delong: bool = False

    @property
    def columns(self) -> tuple[Hashable, ...]:
        """None: its draws are kept instead."""
        return ()

    def evaluate(self, metric: Metric, walk: Walk) -> MetricValue:
        """With the spread of the draws where users are known."""
        if self.delong or not walk.weights.shape[1]:
            return replace(walk.ranks.delong(), n=walk.rows)
        auc = replace(walk.ranks.auc(), n=walk.rows)
        return walk.interval(metric, auc, walk.auc_draws.values())

    def compare(self, totals: Totals) -> Floats:
        """As it was drawn."""
        return totals[AUC]

    def undefined(self, metric: Metric) -> str:
        """It needs both classes."""
        return "only one class"


@dataclass(frozen=True)
class BinnedGap:
    """Mean |prediction − label| over bins of equal mass: ECE. It is not compared."""

    columns: tuple[Hashable, ...] = ()

    def evaluate(self, metric: Metric, walk: Walk) -> MetricValue:
        """From the bins of the reliability curve, without an interval."""
        return replace(walk.curves.ece(), n=walk.rows)

    def compare(self, totals: Totals) -> Floats:
        """Never asked for: `Metric.not_compared` says why."""
        raise NotImplementedError

    def undefined(self, metric: Metric) -> str:
        """It needs rows."""
        return "no rows"
