"""Backward selection of columns: what a model is not surely the worse without, half of it at a time.

    train with all columns
    repeat   of the columns that permuting does not surely hurt, drop those that matter least, and train
             keep that if it is no worse on the validation part; else try with half as many

"Surely" is a 95 % interval over users. Permuting says nothing of columns that stand in for each other: so a
drop counts only when a model trained without it has been compared, on the same rows of the validation part.

Source: permutation as Breiman, Random Forests (2001); halving in the spirit of Jamieson and Talwalkar
(arXiv 1502.07943). Differs from recursive feature elimination: what surely matters is never tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctr.compare.paired import Paired, paired_sums
from ctr.metrics import MetricValue

DRAWS = 200
_NORMAL = 1.96


@dataclass(frozen=True)
class Validated:
    """A trained model on the validation part.

    Attributes:
        label, score, user: (n,), the same rows in the same order for every model.
        losses: item → what the AUC loses when it is permuted, with its interval.
    """

    label: np.ndarray
    score: np.ndarray
    user: np.ndarray
    losses: Mapping[str, MetricValue]


@dataclass(frozen=True)
class AucDifference:
    """AUC of one model minus that of another on the same rows, with its 95 % interval over users."""

    value: float
    low: float
    high: float

    @classmethod
    def between(cls, one: Validated, other: Validated) -> AucDifference:
        """`one` minus `other`."""
        pair = paired_sums(other.label, other.score, {"one": one.score}, user=one.user, draws=DRAWS)["one"]
        half = _NORMAL * _deviation(pair)
        return cls(pair.delta("auc"), pair.delta("auc") - half, pair.delta("auc") + half)


def _deviation(pair: Paired) -> float:
    return float(np.std(pair.drawn("auc"), ddof=1))


@dataclass(frozen=True)
class DropAttempt:
    """Some items dropped, beside the best model so far."""

    dropped: list[str]  # in this attempt
    difference: AucDifference
    kept: bool


@dataclass(frozen=True)
class ColumnChoice:
    """What was dropped in the end, and how it came to it.

    Attributes:
        dropped: items, in the order in which they went.
        attempts: all of them.
        whole: the model with the selected columns, minus that with all.
    """

    dropped: list[str]
    attempts: list[DropAttempt]
    whole: AucDifference

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        attempts = [{**vars(a), "difference": vars(a.difference)} for a in self.attempts]
        return {"dropped": self.dropped, "whole": vars(self.whole), "attempts": attempts}


def select_backward(
    measure: Callable[[Sequence[str]], Validated],
    fits: Callable[[Sequence[str]], bool],
    *,
    margin: float,
    most: int,
) -> ColumnChoice:
    """Drop items as long as the validation part does not miss them.

    Args:
        measure: trains without some items and measures on the validation part.
        fits: whether a model can be built without them.
        margin: AUC that a model may surely lose at most: an attempt is kept if it is above the best one, or
            if the lower end of the difference is above −margin.
        most: trainings, the first one included.
    """
    first = best = measure(())
    dropped: list[str] = []
    attempts: list[DropAttempt] = []
    offered = _not_missed(best)
    size = len(offered)
    while size and len(attempts) + 1 < most:
        trial = offered[:size]
        if not fits([*dropped, *trial]):
            size -= 1
            continue
        found = measure([*dropped, *trial])
        difference = AucDifference.between(found, best)
        kept = difference.value >= 0 or difference.low > -margin
        attempts.append(DropAttempt(trial, difference, kept))
        if kept:
            dropped, best = [*dropped, *trial], found
            offered = _not_missed(best)
            size = len(offered)
        else:
            size //= 2
    return ColumnChoice(dropped, attempts, AucDifference.between(best, first))


def _not_missed(measured: Validated) -> list[str]:
    """The items that are not surely missed, those that matter least first."""
    losses = {n: loss for n, loss in measured.losses.items() if loss.value is not None}
    unsure = [n for n, loss in losses.items() if loss.low is None or loss.low <= 0]
    return sorted(unsure, key=lambda name: (losses[name].value, name))
