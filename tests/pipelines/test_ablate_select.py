"""`ctr ablate PLAN --select` on a small log."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.plan import Plan
from ctr.runs.journal import read_rows
from features.errors import ConfigError
from features.safe_yaml import dump_yaml
from pipelines.ablate_select import select_columns
from pipelines.cli import main
from pipelines.display import LineDisplay
from tests.ctr.ablate.small import BASE, small_log, small_plan


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_log(tmp_path_factory.mktemp("select"))


def plan_of(dataset: Path, out: Path) -> Plan:
    base = {"dataset": str(dataset), **BASE, "train": {**BASE["train"], "metric": "auc"}}
    base["model"] = {**BASE["model"], "tokenizer": {"kind": "auto", "tokens": 1}}
    plan = small_plan(dataset, out, base=base, windows=1)
    return plan.model_copy(update={"one_at_a_time": ("hour", "device", "view.item")})


def test_what_is_selected_is_written_and_a_second_call_trains_nothing(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(dataset, tmp_path / "out")
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
    assert isinstance(plan.base, dict)
    late = {**plan.base, "train": {**plan.base["train"], "data": "train+valid"}}
    with pytest.raises(
        ConfigError, match=r"set train\.data to train and train\.metric to auc, got train\+valid"
    ):
        select_columns(plan.model_copy(update={"base": late}), margin=0.0, most=2)


class SignalBehindStepTwo(LineDisplay):
    """A display that raises a signal, as a person or a scheduler may at any moment."""

    def step(self, *, step: int, **figures: Any) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_in_a_training_ends_the_selection_and_the_same_command_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is half trained is not measured, nor is the next model begun."""
    plan, select = tmp_path / "plan.yaml", tmp_path / "out" / "select"
    asked = plan_of(dataset, tmp_path / "out").model_dump(mode="json")
    plan.write_text(dump_yaml({**asked, "one_at_a_time": ["hour"]}))
    command = ["ablate", str(plan), "--select", "--most", "1"]
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.train.make_display", SignalBehindStepTwo)
        assert main(command) == 143
    assert "stopped; the same command goes on" in capsys.readouterr().err
    (run,) = [path for path in select.iterdir() if path.is_dir()]
    assert not (select / "selection.json").exists()
    assert main(command) == 0
    ends = [r["wall"]["status"] for r in read_rows(run / "journal.jsonl") if "status" in r.get("wall", {})]
    assert ends == ["KILLED", "FINISHED"]
    assert json.loads((select / "selection.json").read_text())["attempts"] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--select", "--dry-run"], "--dry-run is for the comparison of variants"),
        (["--select", "--budget", "9", "--workers", "2"], "--workers, --budget are for the comparison"),
        (["--margin", "0.1"], "--margin is for --select and would do nothing here; leave it out"),
        (["--most", "3"], "--most is for --select"),
    ],
)
def test_options_of_the_other_form_are_refused(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "no-such-plan.yaml", *given]) == 2
    assert message in capsys.readouterr().err
