"""Roll plans: what they say, what is refused, and the training that each day becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctr.roll.plan import PromotionRule, load_roll
from features.errors import ConfigError
from features.safe_yaml import dump_yaml
from features.spec import load_spec

PLANS = Path(__file__).resolve().parents[3] / "pipelines" / "configs" / "rolls"
BASE = {"dataset": "d", "run": "r", "train": {"epochs": 3}, "tracking": {"experiment": "x"}}


def plan(folder: Path, **more: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(
        dump_yaml({"name": "a", "logs": str(folder / "day-*"), "spec": "s.yaml", "base": BASE, **more})
    )
    return path


def test_each_day_goes_on_from_the_champion_and_the_first_from_nothing(tmp_path: Path) -> None:
    found = load_roll(plan(tmp_path, set={"train.epochs": 1}, first=["train.epochs=2"]), ["optimizer=drop"])
    first = found.run_config(run=Path("runs/1"), dataset=Path("data/1"), start=None)
    later = found.run_config(run=Path("runs/2"), dataset=Path("data/2"), start=Path("runs/1"))
    assert (first.train.epochs, first.init, first.dataset, first.run) == (2, None, "data/1", "runs/1")
    assert later.train.epochs == 1 and later.init is not None
    assert (later.init.run, later.init.optimizer, later.init.checkpoint) == ("runs/1", "drop", "best")
    assert later.tracking.uri is None and later.tracking.experiment == "x"
    assert found.spec == str(tmp_path / "s.yaml") and found.directory == Path("runs/roll-a")


def test_the_days_are_directories_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("day-02", "day-10", "day-01"):
        (tmp_path / name).mkdir()
    (tmp_path / "day-11").write_text("no directory")
    assert [day.name for day in load_roll(plan(tmp_path)).days()] == ["day-01", "day-02", "day-10"]
    with pytest.raises(ConfigError, match=r"logs must match .* 'nowhere/\*' matches none"):
        load_roll(plan(tmp_path, logs="nowhere/*")).days()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base": {**BASE, "init": {"run": "r"}}}, "must not have init"),
        ({"promotion": {"metric": "ece"}}, "ece"),
        ({"split": {"test": 0}}, r"split\.test"),
        ({"scratch": "first"}, "scratch"),
        ({"alias": "a/b"}, "alias"),
        ({"night": 1}, "unknown key"),
        ({"set": {"run": "z"}}, "`set` of plan a must not set run"),
        ({"set": {"init": {"run": "z"}}}, r"`set` of plan a must not set init\.run"),
        ({"first": ["dataset=z"]}, "`first` of plan a must not set dataset"),
    ],
)
def test_what_is_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_roll(plan(tmp_path, **wrong))


def test_the_roll_reports_where_its_base_and_set_say(tmp_path: Path) -> None:
    assert load_roll(plan(tmp_path)).tracking_uri() == "auto"
    assert load_roll(plan(tmp_path, set={"tracking.uri": None})).tracking_uri() is None
    with pytest.raises(ConfigError, match="log_every"):
        load_roll(plan(tmp_path, set={"tracking.log_every": 0})).tracking_uri()


def test_the_rules_of_promotion() -> None:
    verdicts = ("helps", "no evidence", "hurts")
    assert [PromotionRule().promotes(v) for v in verdicts] == [True, True, False]
    assert [PromotionRule(rule="if_better").promotes(v) for v in verdicts] == [True, False, False]


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_plan_says_its_command_and_is_valid(path: Path) -> None:
    assert f"ctr roll pipelines/configs/rolls/{path.name}" in path.read_text()
    found = load_roll(path)
    for start in (None, Path("runs/before")):
        found.run_config(run=Path("runs/a"), dataset=Path("data/a"), start=start)
    assert load_spec(found.spec).features
