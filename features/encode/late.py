"""Labels that become 1 late: rows weighted so that what is observed early counts as what will be known.

A click of an hour ago that is not followed by a purchase is no negative yet. With F(e) the share of purchases
that come within an elapsed time e, and π the rate of those that come at all, the rows of age e weigh

    1 / F(e)                        where the label is 1: as many as will have come
    (1 − π) / (1 − π F(e))          where it is 0: the chance that it stays 0

F and π are of the training rows. A positive is seen only if it came before the log ended, so that long delays
are seen too rarely: F is the product-limit estimate for such truncated data,

    F(t) = Π_{d_j > t} (1 − 1 / n_j),    n_j = rows with d_i ≤ d_j ≤ e_i.

Source: Lynden-Bell, A method of allowing for known observational selection (1971), for F; the weights are
importance weights as of Ktena et al., Addressing Delayed Feedback for Continuous Training (2019), section
3.3, with the delay's law and the mean rate in place of a model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.errors import DataError
from features.read.clock import CLOCK, TIME, ClockScale
from features.read.known_clock import TARGET, known_column
from features.read.targets import WEIGHT
from features.spec import Impressions

_LEAST = 0.05  # of F: no row weighs more than 20 times another


@dataclass(frozen=True)
class DelayLaw:
    """How late labels become 1.

    Attributes:
        delays: seconds, ascending, (J,).
        share: F at each of them, (J,).
        rate: π.
    """

    delays: NDArray[np.float64]
    share: NDArray[np.float64]
    rate: float

    def come(self, elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
        """F(elapsed), at least 0.05."""
        at = np.searchsorted(self.delays, elapsed, side="right")
        return np.maximum(np.append(0.0, self.share)[at], _LEAST)

    def weights(self, label: NDArray[np.float64], elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much rows of this label and age count."""
        come = self.come(elapsed)
        return np.where(label > 0, 1.0 / come, (1.0 - self.rate) / (1.0 - self.rate * come))


def fit_delays(delay: NDArray[np.float64], age: NDArray[np.float64], rows: int) -> DelayLaw:
    """The law of delays that are seen where they are at most as long as their row is old.

    Args:
        delay: seconds (P,) of the rows with label 1.
        age: seconds (P,) of these rows at the end of the log, each ≥ its delay.
        rows: how many there are, whatever their label.

    Example:
        >>> ages = np.array([2.0, 9.0, 9.0])
        >>> law = fit_delays(np.array([1.0, 1.0, 3.0]), ages, rows=4)
        >>> law.delays.tolist(), law.share.tolist()  # two rows could show 3: of them one did so late
        ([1.0, 3.0], [0.5, 1.0])
    """
    values, counts = np.unique(delay, return_counts=True)
    risk = np.searchsorted(np.sort(delay), values, side="right") - np.searchsorted(np.sort(age), values)
    kept = 1.0 - counts / np.maximum(risk, 1)
    # F(d_j) is the product over all longer delays.
    share = np.append(np.cumprod(kept[::-1])[::-1][1:], 1.0) if len(values) else kept
    law = DelayLaw(values, share, 0.0)
    rate = float((1.0 / law.come(age)).sum() / max(rows, 1))
    return DelayLaw(values, share, min(rate, 0.99))


@dataclass(frozen=True)
class Delays:
    """What the delays of a task's labels are in some rows.

    Attributes:
        delay: seconds (P,) of the training rows with label 1.
        time: seconds (P,) of these rows.
        known: how many training rows have a label.
        end: seconds, the latest time that these rows know of.
    """

    delay: NDArray[np.float64]
    time: NDArray[np.float64]
    known: int
    end: float


def delays_of(rows: pl.DataFrame, name: str, train: int, per_second: int) -> Delays:
    """The delays of one task.

    Args:
        rows: of the log, in time order, with targets and the clocks at which these are known.
        name: of the task.
        train: rows of the train part, the first ones.
        per_second: units of the clock.
    """
    target, known = _target(rows, name)
    delay = (rows[known_column(TARGET + name)] - rows[CLOCK]).to_numpy() / per_second
    positive, time = known & (target == 1), rows[TIME].to_numpy().astype(np.float64)
    train_rows = np.arange(rows.height) < train
    own = positive & train_rows
    # What is known of the newest label, the log cannot have ended before.
    end = max(time.max(initial=-np.inf), (time + delay)[positive].max(initial=-np.inf))
    return Delays(delay[own], time[own], int((known & train_rows).sum()), float(end))


def law_of(delays: Sequence[Delays], name: str) -> tuple[DelayLaw, float]:
    """The law of all rows, and the time (s) at which they end.

    Args:
        delays: of pieces of the log, in time order.
        name: of the task, for messages.

    Raises:
        DataError: no label is 1 in the train part.
    """
    end, rows = max(d.end for d in delays), sum(d.known for d in delays)
    delay, time = (np.concatenate([getattr(d, what) for d in delays]) for what in ("delay", "time"))
    if not len(delay):
        raise DataError(f"label {name!r}: late must have rows with label 1 in the train part, there are none")
    return fit_delays(delay, end - time, rows), end


def weighted(rows: pl.DataFrame, name: str, law: DelayLaw, end: float) -> pl.DataFrame:
    """Rows whose weights say how many labels of one task will have come; the law and end of `law_of`."""
    target, known = _target(rows, name)
    age = end - rows[TIME].to_numpy().astype(np.float64)
    weight = np.where(known, law.weights(target, age), 0.0)
    if WEIGHT + name in rows.columns:
        weight = weight * rows[WEIGHT + name].to_numpy()
    return rows.with_columns(pl.Series(WEIGHT + name, weight.astype(np.float32)))


def late_tasks(shown: Impressions) -> list[str]:
    """The tasks whose rows are weighted by how late labels become 1."""
    return [name for name, task in shown.tasks.items() if task.late is not None]


def with_late_weights(
    rows: pl.DataFrame, shown: Impressions, train: int, scale: ClockScale | None
) -> pl.DataFrame:
    """Rows whose weights say how many labels will have come, of the tasks with `late`.

    Args:
        rows: of the whole log, as of `delays_of`.
        shown: the spec of the impressions.
        train: rows of the train part, the first ones.
        scale: of the clock.

    Raises:
        DataError: no label is 1 in the train part.
    """
    for name in late_tasks(shown):
        assert scale is not None
        rows = weighted(rows, name, *law_of([delays_of(rows, name, train, scale.per_second)], name))
    return rows


def _target(rows: pl.DataFrame, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The labels (N,), 0 where they are not known, and which are."""
    target = rows[TARGET + name]
    return target.fill_null(0.0).to_numpy().astype(np.float64), target.is_not_null().to_numpy()
