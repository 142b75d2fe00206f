"""The door for a metric: one entry, once registered, is what all of the pipeline shows and compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import brier_score_loss

from ctr.ablate.ablation import Ablation
from ctr.ablate.plan import parse_plan
from ctr.ablate.task import Task
from ctr.metrics import METRICS, Metric, register
from ctr.metrics.computation import RowSums
from ctr.metrics.records import Floats, Ints
from ctr.metrics.sums import rows
from ctr.runs.journal import read_rows
from ctr.scaling.measure import measured
from pipelines.ablate import ablate
from pipelines.cli import main
from pipelines.evaluate import evaluate
from tests.ctr.ablate.small import Inline, pretend, results_of
from tests.ctr.tiny_run import settings, tiny_dataset, write_config


def squared_error(score: Floats, pos: Ints, neg: Ints) -> Any:
    return pos * (1.0 - score) ** 2 + neg * score**2


BRIER = Metric(
    name="brier",
    label="Brier score",
    meaning="mean squared error of the prediction",
    better="lower",
    computation=RowSums((squared_error, rows), lambda error, rows: error / rows),
    interval="log-odds",
)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    register(BRIER)
    yield
    del METRICS[BRIER.name]


@pytest.fixture(scope="module")
def run(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best step the new metric chooses."""
    folder = tmp_path_factory.mktemp("metric")
    overrides = ("train.metric=brier", "train.evaluate_every=2", "train.epochs=2")
    config = write_config(folder / "run.yaml", tiny_dataset(folder), folder / "run", *overrides)
    assert main(["train", str(config)]) == 0
    (folder / "evaluate.txt").write_text(evaluate(folder / "run").text())
    return folder / "run"


def journal(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "journal.jsonl") if row["kind"] == kind]


def test_it_chooses_the_step(run: Path) -> None:
    values = {row["step"]: row["brier"] for row in journal(run, "valid")}
    assert len(values) > 3
    assert journal(run, "best")[-1]["step"] == min(values, key=lambda step: values[step])


def test_it_is_said_while_training(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = run.parent / "dataset"
    config = write_config(tmp_path / "run.yaml", dataset, tmp_path / "run", "train.metric=brier")
    assert main(["train", str(config)]) == 0
    shown = capsys.readouterr()
    assert "  brier 0." in shown.err and "best validation brier 0." in shown.out


def test_it_is_evaluated_shown_and_tracked(run: Path) -> None:
    assert "\nBrier score  0." in (run.parent / "evaluate.txt").read_text()
    found = json.loads((run / "report" / "metrics.json").read_text())["overall"]["metrics"]["brier"]
    table = pq.read_table(run / "predictions" / "test.parquet")
    expected = brier_score_loss(table["label"].to_numpy(), table["score"].to_numpy())
    assert found["value"] == pytest.approx(expected, abs=1e-12)
    assert found["reason"] == "no interval: 9 users are too few to resample (at least 10)"
    assert BRIER.meaning in (run / "report" / "index.html").read_text()
    assert journal(run, "test")[-1]["brier"] == found["value"]


def test_two_models_are_compared_by_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(run / "predictions" / "test.parquet").to_pandas()
    table["user_id"] = table["row_id"]  # more users than the tiny data set has
    paths = [tmp_path / f"{name}.csv" for name in ("base", "better")]
    table.to_csv(paths[0], index=False)
    table["score"] = 0.7 * table["score"] + 0.3 * table["label"]
    table.to_csv(paths[1], index=False)
    command = ["evaluate", "--compare", *map(str, paths), "--metric", "brier", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "Brier score  better" in capsys.readouterr().out
    [judged] = json.loads((tmp_path / "out" / "comparison.json").read_text())["judgements"]
    label, scores = table["label"], [pq.read_table(run / "predictions" / "test.parquet")["score"].to_numpy()]
    scores.append(table["score"])
    base, value = (brier_score_loss(label, score) for score in scores)
    assert (judged["base"], judged["value"]) == (pytest.approx(base), pytest.approx(value))
    assert judged["verdict"] == "helps" and judged["low"] < value - base < judged["high"] < 0


def pretend_training(task: Task) -> int:
    """Predictions that are a little better where the learning rate is lower."""
    rng = np.random.default_rng(task.config.seed)
    label = rng.integers(0, 2, 300)
    score = 0.5 + (label - 0.5) * (0.5 - task.config.optimizer.lr) + rng.uniform(-0.2, 0.2, 300)
    user = np.arange(300) // 5
    return pretend(task, {"row_id": np.arange(300), "user_id": user, "label": label, "score": score})


def test_an_ablation_is_ordered_by_it_and_a_sweep_measures_it(run: Path, tmp_path: Path) -> None:
    base = settings(run.parent / "dataset", tmp_path / "unused")
    plan = parse_plan(
        {
            "name": "small",
            "base": {key: value for key, value in base.items() if key != "run"},
            "out": str(tmp_path / "out"),
            "metrics": ["brier", "auc"],
            "variants": {"slow": {"set": {"optimizer.lr": 0.2}}, "slower": {"set": {"optimizer.lr": 0.1}}},
        }
    )
    ablation = Ablation.open(plan)
    assert ablate(ablation, launch=lambda task: Inline(task, pretend_training), workers=1) == 0
    page = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "| Δ brier score |" in page
    found = results_of(tmp_path / "out")["variants"]
    deltas = {variant["name"]: variant["metrics"]["brier"]["delta"] for variant in found[1:]}
    assert 0 < deltas["slower"] < deltas["slow"]
    assert {variant["metrics"]["brier"]["verdict"] for variant in found[1:]} == {"hurts"}
    point = measured(1.0, ablation.subruns[:1], ["brier"])
    assert point.values["brier"] == [pytest.approx(found[1]["metrics"]["brier"]["base"], abs=1e-12)]
