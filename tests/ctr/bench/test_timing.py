"""Interleaving, medians and ratios, with a clock made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ctr.bench.timing import Samples, exponent, interleave, ratio


class Hands:
    """A clock that jobs move by what they cost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def job(self, name: str, *costs: float) -> Callable[[], None]:
        left = list(costs)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0)

        return run


def test_jobs_take_turns_and_the_warm_up_does_not_count() -> None:
    clock = Hands()
    jobs = {"a": clock.job("a", 100.0, 1.0, 3.0, 2.0), "b": clock.job("b", 100.0, 10.0, 20.0, 60.0)}
    taken = interleave(jobs, rounds=3, warmup=1, clock=clock)
    assert clock.order == ["a", "b"] * 4
    assert taken["a"].seconds == (1.0, 3.0, 2.0) and taken["b"].seconds == (10.0, 20.0, 60.0)
    assert (taken["a"].median, taken["a"].best, taken["b"].per_second(40)) == (2.0, 1.0, 2.0)


def test_a_budget_ends_whole_rounds_but_leaves_one() -> None:
    clock = Hands()
    jobs = {"a": clock.job("a", *[4.0] * 9), "b": clock.job("b", *[4.0] * 9)}
    assert len(interleave(jobs, rounds=5, warmup=0, budget=10.0, clock=clock)["b"].seconds) == 2
    assert len(interleave(jobs, rounds=5, warmup=0, budget=1.0, clock=clock)["b"].seconds) == 1


def test_ratio_compares_inside_each_round() -> None:
    slow_later = Samples((1.0, 10.0, 100.0))
    twice = Samples((2.0, 20.0, 200.0))
    assert ratio(twice, slow_later) == 2.0
    assert ratio(Samples((1.0, 100.0, 10.0)), Samples((10.0, 1.0, 10.0))) == 1.0
    with pytest.raises(ValueError):
        ratio(Samples((1.0,)), twice)


def test_exponent_of_a_power_with_a_factor() -> None:
    points = [(float(n), 7.0 * n**1.5) for n in (256, 512, 4096)]
    assert exponent(points) == pytest.approx(1.5)
