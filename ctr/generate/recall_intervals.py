"""Intervals of recalls and of differences to the baselines: bootstrap of users, Student's t of seeds.

R requests, S runs (seeds), K users, D bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.compare.units import Units, error_of
from ctr.metrics.bootstrap import MIN_CLUSTERS, poisson_weights, weighted_totals
from features.durable import replacing
from features.errors import DataError
from features.names import markdown

BASELINES = ("popularity", "item-kNN")
DRAWS = 500
_KEYS = ("request_id", "user_id")


@dataclass(frozen=True)
class Recalls:
    """Recall of every request in one run.

    Args:
        request_id: (R,).
        user_id: (R,).
        recall: strategy → (R,) recall among the first k items.
    """

    request_id: np.ndarray
    user_id: np.ndarray
    recall: dict[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None with fewer than 10 users."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class StrategyRecall:
    """One strategy: its mean recall over the runs, the recall of each run, differences to the baselines."""

    mean: Interval
    runs: list[float]
    minus: dict[str, Interval]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def with_intervals(runs: Sequence[Recalls]) -> dict[str, StrategyRecall]:
    """The recall of each strategy that all runs have, with intervals.

    With one run the intervals cover the sample of users alone; with several also the noise of training
    (`ctr.compare.units.error_of`).

    Raises:
        DataError: the runs are of different requests.
    """
    first = runs[0]
    if any(not np.array_equal(run.request_id, first.request_id) for run in runs):
        raise DataError("runs that are combined must hold the same requests; evaluate them in one way")
    users, user = np.unique(first.user_id, return_inverse=True)
    weights = poisson_weights(len(users), DRAWS, 0)
    drawn = {
        name: np.stack([_draws(run.recall[name], user, weights) for run in runs], axis=1)
        for name in first.recall
        if all(name in run.recall for run in runs)
    }
    means = {name: np.array([run.recall[name].mean() for run in runs]) for name in drawn}
    means[""], drawn[""] = (
        np.zeros(len(runs)),
        np.zeros((DRAWS, len(runs))),
    )  # a mean alone is its difference to this

    def minus(name: str, base: str) -> Interval:
        return _interval(means[base], means[name], drawn[name] - drawn[base], clusters=len(users))

    return {
        name: StrategyRecall(
            minus(name, ""),
            means[name].tolist(),
            {base: minus(name, base) for base in BASELINES if base in drawn and name not in BASELINES},
        )
        for name in drawn
        if name
    }


def _draws(values: np.ndarray, user: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D,): the mean of every draw of the users."""
    sums = np.stack([np.bincount(user, values), np.bincount(user).astype(np.float64)], axis=1)
    totals = weighted_totals(weights, sums)
    return totals[:, 0] / np.maximum(totals[:, 1], 1.0)


def _interval(base: np.ndarray, variant: np.ndarray, drawn: np.ndarray, *, clusters: int) -> Interval:
    value = float((variant - base).mean())
    if clusters < MIN_CLUSTERS:
        return Interval(value)
    names = tuple(("", run) for run in range(len(base)))
    strata = np.zeros(len(base), dtype=np.int64)
    units = Units(names=names, base=base, variant=variant, drawn=drawn, strata=strata)
    error = error_of(units, clusters=clusters)
    half = error.critical(0.05) * error.se
    return Interval(value, value - half, value + half)


def write_recalls(path: Path, recalls: Recalls) -> None:
    """A row per request, a column per strategy; the file appears whole or not at all."""
    columns = {"request_id": recalls.request_id, "user_id": recalls.user_id, **recalls.recall}
    with replacing(path, point="recalls") as partial:
        pq.write_table(pa.table(columns), partial, write_page_checksum=True)


def read_recalls(path: Path) -> Recalls:
    """What `write_recalls` wrote.

    Raises:
        DataError: there is no such file.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} must be written by ctr generate evaluate: {error}") from None
    request_id, user_id = (table[name].to_numpy() for name in _KEYS)
    names = [name for name in table.column_names if name not in _KEYS]
    return Recalls(request_id, user_id, {name: table[name].to_numpy() for name in names})


def as_markdown(recalls: Mapping[str, StrategyRecall], *, k: int) -> str:
    """A table, a line for each strategy."""
    several = any(len(found.runs) > 1 for found in recalls.values())
    columns = ["strategy", f"recall@{k}", *(["lowest", "highest"] if several else [])]
    columns += [f"− {base}" for base in BASELINES if base in recalls]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in recalls.items():
        ends = [f"{end(found.runs):.4f}" for end in (min, max)] if several else []
        minus = [_shown(found.minus[b], "+") if b in found.minus else "" for b in BASELINES if b in recalls]
        lines.append(f"| {' | '.join([markdown(name), _shown(found.mean), *ends, *minus])} |")
    return "\n".join(lines)


def _shown(found: Interval, sign: str = "") -> str:
    value = f"{found.value:{sign}.4f}"
    return value if found.low is None else f"{value} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"
