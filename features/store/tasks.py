"""What a data set's models can learn: one task a label, and how the values of a regression are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from features.computed import Strict, is_false, is_none
from features.known import LABEL

TARGET, TARGET_WEIGHT = "target.", "target_weight."  # prefixes of columns in impressions.arrow
KEEP_RATE = "keep_rate"  # a column there, where the rate of sampling differs between rows


class TargetScale(Strict):
    """From the values of a regression, such as seconds watched, to what a model learns, and back.

    none: y. log: log(1 + y), y ≥ 0. quantile: the share of training rows below y, in [0, 1], linear between
    the fitted `quantiles`; values beyond them are 0 or 1.

    Example:
        >>> TargetScale(kind="log").forward(np.array([0.0, np.e - 1])).tolist()
        [0.0, 1.0]
        >>> scale = TargetScale(kind="quantile", quantiles=[0.0, 10.0, 100.0])
        >>> scale.forward(np.array([5.0, 55.0, 1e9])).tolist(), scale.inverse(np.array([0.75])).tolist()
        ([0.25, 0.75, 1.0], [55.0])
    """

    kind: Literal["none", "log", "quantile"] = "none"
    quantiles: list[float] = Field(
        default=[], exclude_if=lambda values: not values
    )  # at equal steps of share

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a model learns, float64."""
        if self.kind == "log":
            return np.log1p(values)
        if self.kind == "quantile":
            return np.interp(values, self.quantiles, np.linspace(0.0, 1.0, len(self.quantiles)))
        return values

    def inverse(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in the unit of the log, float64, of what a model predicts."""
        if self.kind == "log":
            return np.expm1(scaled)
        if self.kind == "quantile":
            return np.interp(scaled, np.linspace(0.0, 1.0, len(self.quantiles)), self.quantiles)
        return scaled


class TaskInfo(Strict):
    """One label of a data set and what is to be learned of it.

    Args:
        name: of the task; `label` where the spec has a single label.
        kind: binary labels are 0 or 1; a regression has any finite values.
        given: the binary task that must be 1 for this label to exist, such as the click of a purchase.
        scale: of a regression.
        weighted: whether its rows have weights.
        mature: seconds before the end of the log; the label of younger rows is not known.
    """

    name: str = LABEL
    kind: Literal["binary", "regression"] = "binary"
    given: str | None = Field(default=None, exclude_if=is_none)
    scale: TargetScale | None = Field(default=None, exclude_if=is_none)
    weighted: bool = Field(default=False, exclude_if=is_false)
    mature: float | None = Field(default=None, exclude_if=is_none)


def is_plain(tasks: Sequence[TaskInfo]) -> bool:
    """Whether there is one binary label, known and counted once in every row: `label` says all of it then."""
    return list(tasks) == [TaskInfo()]


class TaskCounts(Strict):
    """What one task has in one split.

    Args:
        known: rows of its loss and metrics.
        young: rows whose label is left out only since they are not mature.
        positives: known rows with label 1, of a binary task.
    """

    known: int
    young: int = 0
    positives: int | None = None


def chain_of(task: TaskInfo, tasks: Sequence[TaskInfo]) -> list[int]:
    """Positions of a task's ancestors among `tasks`, the first one first, and of itself.

    Those that are not among `tasks` are left out, with theirs.

    Example:
        >>> click, buy = TaskInfo(name="click"), TaskInfo(name="buy", given="click")
        >>> chain_of(buy, [click, buy]), chain_of(buy, [buy])
        ([0, 1], [0])
    """
    places = {other.name: place for place, other in enumerate(tasks)}
    found = [places[task.name]]
    while task.given in places:
        task = tasks[places[task.given]]
        found.insert(0, places[task.name])
    return found
