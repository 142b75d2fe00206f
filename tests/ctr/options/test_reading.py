"""What plans share: seeds that differ, one error for all that is wrong, a base in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.ablate.plan import Plan
from ctr.options.knobs import Knobs
from ctr.options.reading import options_from, read_base
from ctr.scaling.sweep import Sweep
from ctr.tune.plan import TuningPlan
from features.errors import ConfigError

PLANS: list[tuple[type[Knobs], dict[str, object]]] = [
    (Plan, {}),
    (TuningPlan, {"search": {"seed": [1, 2]}}),
    (Sweep, {"values": [1, 2, 3, 4]}),
]


@pytest.mark.parametrize(("kind", "own"), PLANS, ids=lambda value: getattr(value, "__name__", ""))
def test_seeds_of_a_plan_differ(kind: type[Knobs], own: dict[str, object]) -> None:
    plan = {"name": "p", "base": {}, **own}
    assert options_from(kind, {**plan, "seeds": [3, 1]}, what="p").model_dump()["seeds"] == (3, 1)
    with pytest.raises(ConfigError, match=r"seeds must differ from each other, got \[1, 3, 1\]"):
        options_from(kind, {**plan, "seeds": [1, 3, 1]}, what="p")
    with pytest.raises(ConfigError, match=r"seeds: .*at least 1 item"):
        options_from(kind, {**plan, "seeds": []}, what="p")


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        options_from(Plan, {"name": "p", "base": {}, "windows": 0, "colour": "blue"}, what="plan.yaml")
    assert str(raised.value).startswith("plan.yaml is not valid:\n")
    assert "windows" in str(raised.value) and "colour" in str(raised.value)


def test_a_base_is_given_or_in_a_file_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("dataset: d\n")
    assert read_base("base.yaml", tmp_path) == {"dataset": "d"} == read_base({"dataset": "d"}, tmp_path)
