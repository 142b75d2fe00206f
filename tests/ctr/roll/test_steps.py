"""Steps that are done once, whatever happens between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.roll.steps import PlainResult, StepLog
from features.durable.faults import InjectedFault, injected


class Action:
    """Counts how often it is done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> PlainResult:
        self.done += 1
        return {"done": self.done, "share": 0.1 + 0.2}


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    action = Action()
    for _ in range(2):
        assert StepLog(tmp_path).do("day-01.train", ["a", 1], action) == {"done": 1, "share": 0.1 + 0.2}
    assert StepLog(tmp_path).do("day-01.train", ["a", 2], action)["done"] == 2  # something else is asked for
    assert StepLog(tmp_path).do("day-02.train", ["a", 2], action)["done"] == 3


@pytest.mark.parametrize(("moment", "again"), [("before_rename", 2), ("after_rename", 1)])
def test_an_interrupted_step_has_no_result_or_the_whole(tmp_path: Path, moment: str, again: int) -> None:
    action = Action()
    with injected(f"roll.train.{moment}:raise"), pytest.raises(InjectedFault):
        StepLog(tmp_path).do("day-01.train", [], action)
    assert StepLog(tmp_path).do("day-01.train", [], action)["done"] == again


def test_a_damaged_result_is_no_result(tmp_path: Path) -> None:
    action = Action()
    StepLog(tmp_path).do("a.b", [], action)
    for text in ("", "{", "[]", '{"inputs": 1}'):
        (tmp_path / "a.b.json").write_text(text)
        assert StepLog(tmp_path).find("a.b", []) is None
    assert StepLog(tmp_path).do("a.b", [], action)["done"] == 2
