"""Interleaved timing: all candidates in turn, round after round, so that a slow minute slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

TimedCall = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Samples:
    """Seconds of one job, one value per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The smallest value."""
        return min(self.seconds)

    def per_second(self, amount: float) -> float:
        """`amount` over the median."""
        return amount / self.median


def ratio(numerator: Samples, denominator: Samples) -> float:
    """Median over the rounds of the two times of one round: drift from round to round cancels.

    Example:
        >>> ratio(Samples((2.0, 4.0, 9.0)), Samples((1.0, 2.0, 3.0)))
        2.0
    """
    pairs = zip(numerator.seconds, denominator.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def interleave(
    jobs: Mapping[str, TimedCall],
    *,
    rounds: int = 5,
    warmup: int = 1,
    settle: int = 0,
    budget: float = float("inf"),
    clock: Clock = time.perf_counter,
) -> dict[str, Samples]:
    """Run A B C, A B C, …: `warmup` rounds unmeasured, then at most `rounds` measured ones.

    Args:
        jobs: what to time, by name.
        rounds: measured rounds; at least one is made whatever the budget.
        warmup: rounds before.
        settle: unmeasured runs of a job in front of each measured one: another job has left its data in the
            caches, which a program with one job meets once.
        budget: seconds of measured rounds after which no further round begins.
        clock: gives the time in seconds.
    """
    for _ in range(warmup):
        for job in jobs.values():
            job()
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    spent = 0.0
    for _ in range(rounds):
        for name, job in jobs.items():
            for _ in range(settle):
                job()
            taken[name].append(_timed(job, clock))
        spent += sum(seconds[-1] for seconds in taken.values())
        if spent > budget:
            break
    return {name: Samples(tuple(seconds)) for name, seconds in taken.items()}


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """p of cost ∝ size^p: the slope of a line through (log size, log cost).

    Example:
        >>> round(exponent([(1, 3.0), (2, 12.0), (4, 48.0)]), 6)
        2.0
    """
    sizes, costs = np.log(np.array(list(points), dtype=np.float64)).T
    return float(np.polyfit(sizes, costs, 1)[0])


def _timed(job: TimedCall, clock: Clock) -> float:
    start = clock()
    job()
    return clock() - start
