"""`ctr ablate PLAN --select` on a small log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.errors import ConfigError
from pipelines.ablate_select import select_columns
from tests.ctr.ablate.small import BASE, small_log, small_plan


def test_what_is_selected_is_written_and_a_second_call_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = small_log(tmp_path)
    base = {"dataset": str(dataset), **BASE, "train": {**BASE["train"], "metric": "auc"}}
    base["model"] = {**BASE["model"], "tokenizer": {"kind": "auto", "tokens": 1}}
    plan = small_plan(dataset, tmp_path / "out", base=base, windows=1)
    plan = plan.model_copy(update={"one_at_a_time": ("hour", "device", "view.item")})
    found = select_columns(plan, margin=1.0, most=3)  # a margin that forgives everything
    said = json.loads((tmp_path / "out" / "select" / "selection.json").read_text())
    assert said["dropped"] == found.dropped and set(found.dropped) <= set(plan.one_at_a_time)
    assert found.dropped and set(said["drop"]) == set(found.dropped) and all(a.kept for a in found.attempts)
    shown = capsys.readouterr().out
    assert "selected minus all columns, validation AUC" in shown and f"drop: {said['drop']}" in shown
    runs = sorted((tmp_path / "out" / "select").glob("*/journal.jsonl"))
    before = [run.read_text().count('"kind":"train"') for run in runs]
    assert select_columns(plan, margin=1.0, most=3) == found
    assert [run.read_text().count('"kind":"train"') for run in runs] == before
    late = {**base, "train": {**base["train"], "data": "train+valid"}}
    with pytest.raises(
        ConfigError, match=r"set train\.data to train and train\.metric to auc, got train\+valid"
    ):
        select_columns(plan.model_copy(update={"base": late}), margin=0.0, most=2)
