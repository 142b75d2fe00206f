"""One log prepared twice: a run that is judged by rows that it has learned from is named as such."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.ablate.ablation import Ablation
from ctr.ablate.plan import parse_plan
from ctr.report.result_line import read_lines
from features.prepare import prepare
from features.spec import parse_spec
from pipelines.ablate import ablate
from pipelines.ablate_worker import work
from pipelines.cli import main
from tests.ctr.ablate.small import Inline
from tests.ctr.tiny_run import settings, write_config

SPEC = {
    "name": "log",
    "source": {"kind": "files", "path": ".", "tables": {"shown": {"path": "shown.parquet"}}},
    "impressions": {
        "table": "shown", "user": "user", "item": "item", "time": "at", "label": {"column": "click"},
    },
    "tables": {"user": {"encode": "hash", "rows": 50}, "item": {"encode": "hash", "rows": 50}},
    "features": {"user": {"column": "user", "table": "user"}, "item": {"column": "item", "table": "item"}},
    "domains": {},
    "tokens": {"all": ["user", "item"]},
}  # fmt: skip
RUN = ("model={kind: grid, d_model: 12, head_hidden: [8]}", "train.epochs=1", "train.hidden_rows=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of one log, of which one trains on what tests the other; four runs."""
    root = tmp_path_factory.mktemp("unseen")
    random, rows = np.random.default_rng(1), 240
    at = [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=7 * n) for n in range(rows)]
    columns = {name: random.integers(0, 12, rows).astype(str) for name in ("user", "item")}
    pl.DataFrame({"at": at, **columns, "click": random.integers(0, 2, rows)}).write_parquet(
        root / "shown.parquet"
    )
    for name, split in (("early", {"valid": 0.2, "test": 0.3}), ("late", {"valid": 0.05, "test": 0.1})):
        prepare(parse_spec({**SPEC, "split": split}), root / name, base=root)
    for name, data, *options in (
        ("plain", "early"),
        ("later", "late"),
        ("after", "early", f"init.run={root / 'later'}"),
        ("final", "early", "train.data=train+valid"),
    ):
        assert train(root, name, data, *options) == 0
    return root


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("report.pictures", "ablate.plots"):
        monkeypatch.setattr(f"ctr.{module}.drawn", lambda figures: {})


def train(root: Path, name: str, data: str, *options: str) -> int:
    return main(["train", str(write_config(root / f"{name}.yaml", root / data, root / name, *RUN, *options))])


def test_an_evaluation_says_it_on_the_terminal_in_the_report_and_in_the_line(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = place / "lines.jsonl"
    for run, options in (("plain", ()), ("later", ("--dataset", str(place / "early"))), ("after", ())):
        assert main(["evaluate", str(place / run), "--line", str(lines), *options]) == 0
        (report,) = (place / run / "report").rglob("index.html")
        seen = run != "plain"
        assert ("not of unseen rows" in report.read_text()) == ("not of unseen rows" in caplog.text) == seen
        caplog.clear()
    notes = [line.note for line in read_lines(lines)]
    assert notes[0] is None
    assert notes[1] is not None and "through" not in notes[1]
    assert notes[2] is not None and f"(through init.run={place / 'later'})" in notes[2]


def test_a_training_a_prediction_and_a_comparison_say_it(
    place: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(place / "after.yaml")]) == 0  # nothing is left to do
    assert len([line for line in capsys.readouterr().err.splitlines() if "not of unseen rows" in line]) == 2
    assert main(["predict", str(place / "final"), "--split", "valid"]) == 0
    assert "final learned from rows up to" in caplog.text
    caplog.clear()
    for split in ("train", "test"):
        assert main(["predict", str(place / "final"), "--split", split]) == 0
    assert not caplog.text
    for run in ("plain", "after"):
        assert main(["predict", str(place / run)]) == 0
    out = place / "comparison"
    after = place / "after" / "predictions" / "test.parquet"
    assert main(["evaluate", "--compare", str(place / "plain"), f"b={after}", "--out", str(out)]) == 0
    caveats = json.loads((out / "comparison.json").read_text())["judgements"][0]["caveats"]
    assert [caveat for caveat in caveats if f"{after} learned from rows up to" in caveat]
    assert not [caveat for caveat in caveats if str(place / "plain") in caveat]


def test_a_plan_whose_variant_starts_from_such_a_run_says_it(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = settings(place / "early", place / "base", *RUN)
    variants = {
        "starts": {"set": {"init.run": str(place / "later")}},
        "other": {"set": {"optimizer.lr": 0.1}},
    }
    content = {"name": "x", "base": base, "out": str(place / "plan"), "slices": [], "variants": variants}
    ablation = Ablation.open(parse_plan(content))
    assert ablate(ablation, launch=lambda task: Inline(task, work), workers=1) == 0
    said = json.loads((place / "plan" / "report" / "results.json").read_text())["facts"]["warning"]
    assert said.startswith("starts learned from rows up to") and said in caplog.text and "other" not in said
    assert {line.note for line in read_lines(place / "plan" / "report" / "lines.jsonl")} == {said}


def test_no_member_is_the_best_where_one_saw_the_validation_part_through_another(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert train(place, "goes-on", "early", f"init.run={place / 'final'}") == 0
    out = place / "both"
    runs = [str(place / name) for name in ("plain", "goes-on")]
    assert main(["ensemble", *runs, "--out", str(out)]) == 0
    assert "no member is compared" in capsys.readouterr().out and not caplog.text
    assert json.loads((out / "ensemble.json").read_text())["best"] is None
    assert main(["ensemble", runs[0], str(place / "after"), "--out", str(out)]) == 0
    assert f"through member={place / 'after'}, init.run=" in caplog.text


def test_a_teacher_that_knows_the_validation_or_the_test_part_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("later", "after", "final"):
        assert main(["predict", str(place / name), "--split", "train"]) == 0
        for teacher in (place / name, place / name / "predictions" / "train.parquet"):
            capsys.readouterr()
            assert train(place, "student", "early", f"train.distill.predictions={teacher}") == 2
            said = capsys.readouterr().err
            assert "a teacher must" in said and str(place / name) in said
    assert not (place / "student").exists()
    assert main(["predict", str(place / "plain"), "--split", "train"]) == 0
    assert train(place, "student", "early", f"train.distill.predictions={place / 'plain'}") == 0
