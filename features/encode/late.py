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


def fit_delays(
    delay: NDArray[np.float64], age: NDArray[np.float64], all_ages: NDArray[np.float64]
) -> DelayLaw:
    """The law of delays that are seen where they are at most as long as their row is old.

    Args:
        delay: seconds (P,) of the rows with label 1.
        age: seconds (P,) of these rows at the end of the log, each ≥ its delay.
        all_ages: seconds of all rows.

    Example:
        >>> ages = np.array([2.0, 9.0, 9.0])
        >>> law = fit_delays(np.array([1.0, 1.0, 3.0]), ages, np.append(ages, 2.0))
        >>> law.delays.tolist(), law.share.tolist()  # two rows could show 3: of them one did so late
        ([1.0, 3.0], [0.5, 1.0])
    """
    values, counts = np.unique(delay, return_counts=True)
    risk = np.searchsorted(np.sort(delay), values, side="right") - np.searchsorted(np.sort(age), values)
    kept = 1.0 - counts / np.maximum(risk, 1)
    # F(d_j) is the product over all longer delays.
    share = np.append(np.cumprod(kept[::-1])[::-1][1:], 1.0) if len(values) else kept
    law = DelayLaw(values, share, 0.0)
    rate = float((1.0 / law.come(age)).sum() / max(len(all_ages), 1))
    return DelayLaw(values, share, min(rate, 0.99))


def with_late_weights(
    rows: pl.DataFrame, shown: Impressions, train: int, scale: ClockScale | None
) -> pl.DataFrame:
    """Rows whose weights say how many labels will have come, of the tasks with `late`.

    Args:
        rows: of the log, in time order, with targets and the clocks at which these are known.
        shown: the spec of the impressions.
        train: rows of the train part, the first ones.
        scale: of the clock.

    Raises:
        DataError: no label is 1 in the train part.
    """
    for name, task in shown.tasks.items():
        if task.late is not None:
            assert scale is not None
            rows = _weighted(rows, name, train, scale)
    return rows


def _weighted(rows: pl.DataFrame, name: str, train: int, scale: ClockScale) -> pl.DataFrame:
    target = rows[TARGET + name].fill_null(0.0).to_numpy().astype(np.float64)
    known = rows[TARGET + name].is_not_null().to_numpy()
    delay = (rows[known_column(TARGET + name)] - rows[CLOCK]).to_numpy() / scale.per_second
    positive, time = known & (target == 1), rows[TIME].to_numpy().astype(np.float64)
    train_rows = np.arange(rows.height) < train
    own = positive & train_rows
    if not own.any():
        raise DataError(f"label {name!r}: late must have rows with label 1 in the train part, there are none")
    # What is known of the newest label, the log cannot have ended before.
    end = max(time.max(), (time + delay)[positive].max())
    age = end - time
    law = fit_delays(delay[own], age[own], age[known & train_rows])
    weight = np.where(known, law.weights(target, age), 0.0)
    if WEIGHT + name in rows.columns:
        weight = weight * rows[WEIGHT + name].to_numpy()
    return rows.with_columns(pl.Series(WEIGHT + name, weight.astype(np.float32)))
