"""Backward selection: what is tried and kept, of columns that are known to help or to be noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ctr.ablate.backward import AucDifference, ColumnChoice, Validated, select_backward
from ctr.metrics import MetricValue

ROWS = 3000
GOOD = {"taste": 1.0, "price": 0.5}
NOISE = ["a", "b", "c", "d", "e"]


def loss(value: float) -> MetricValue:
    return MetricValue(value=value, low=value - 0.002, high=value + 0.002, n=ROWS)


class Trainer:
    """Scores are the truth of the columns that are left; each column of noise blurs them."""

    def __init__(self, twins: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.parts = {name: rng.standard_normal(ROWS) for name in [*GOOD, *NOISE]}
        logit = sum(weight * self.parts[name] for name, weight in GOOD.items())
        self.label = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.float32)
        self.user = np.arange(ROWS) // 10
        self.trained: list[tuple[str, ...]] = []
        self.twins = twins

    def __call__(self, dropped: Sequence[str]) -> Validated:
        self.trained.append(tuple(dropped))
        gone = set(dropped)
        names = [*GOOD, *NOISE, *(["twin"] if self.twins else [])]
        told = {n for n in GOOD if n not in gone} | (
            {"taste"} if self.twins and "twin" not in gone else set()
        )
        noise = [n for n in NOISE if n not in gone]
        logit = sum(GOOD[n] * self.parts[n] for n in told) + 0.3 * sum(
            (self.parts[n] for n in noise), np.zeros(ROWS)
        )
        alone = {n: 0.05 * GOOD.get(n, -0.01 * (1 + len(n))) for n in names if n not in gone}
        if self.twins and not {"taste", "twin"} & gone:
            alone |= {"taste": 0.0, "twin": 0.0}  # each stands in for the other
        elif self.twins and "twin" not in gone:
            alone["twin"] = 0.05
        return Validated(
            self.label, 1 / (1 + np.exp(-logit)), self.user, {n: loss(v) for n, v in alone.items()}
        )


def selected(trainer: Trainer, most: int = 12, fits: object = lambda dropped: True) -> ColumnChoice:
    return select_backward(trainer, fits, margin=0.002, most=most)  # type: ignore[arg-type]


def test_all_noise_goes_at_once_and_what_matters_is_never_tried() -> None:
    trainer = Trainer()
    found = selected(trainer)
    assert sorted(found.dropped) == NOISE and trainer.trained == [(), tuple(found.dropped)]
    assert found.whole.value > 0.02 and found.whole.low > 0 and found.attempts[0].kept
    assert found.to_dict()["whole"]["value"] == found.whole.value


def test_columns_that_stand_in_for_each_other_do_not_both_go() -> None:
    """Permuting says of both that they are not missed; the trained model says otherwise."""
    trainer = Trainer(twins=True)
    found = selected(trainer)
    assert set(NOISE) <= set(found.dropped) and len({"taste", "twin"} & set(found.dropped)) <= 1
    assert not all(attempt.kept for attempt in found.attempts) and found.whole.low > 0


def test_no_more_trainings_than_asked_for_and_only_what_can_be_built() -> None:
    assert selected(trainer := Trainer(), most=1).dropped == [] and trainer.trained == [()]
    trainer = Trainer()
    found = selected(trainer, fits=lambda dropped: len(dropped) <= 2)
    assert len(found.dropped) == 2 and set(found.dropped) <= set(NOISE)


def test_a_difference_is_that_of_both_models_with_its_interval() -> None:
    trainer = Trainer()
    whole, less = trainer(()), trainer(NOISE)
    difference = AucDifference.between(less, whole)
    assert difference.low < difference.value < difference.high
    assert AucDifference.between(whole, less).value == pytest.approx(-difference.value)
    assert AucDifference.between(whole, whole) == AucDifference(0.0, 0.0, 0.0)
