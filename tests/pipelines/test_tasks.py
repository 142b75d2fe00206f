"""A run of several tasks from its training to what every command says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.metrics import evaluate_table, evaluate_tasks
from ctr.report.result_line import read_lines
from ctr.runs.journal import read_rows
from features.errors import ConfigError
from pipelines.cli import main
from pipelines.logged_model import open_rows
from tests.ctr.tasks_on_disk import write_tasks
from tests.ctr.tiny_run import write_config

pytestmark = pytest.mark.slow
LONGER = ("model.kind=longer", "model.longer.num_queries=4", "train.epochs=1")
ESMM = ("tasks.kind=esmm", 'tasks.use=["click", "buy"]', "train.metric=click.auc+click_and_buy.auc")
ALONE = ("tasks.kind=shared_bottom", 'tasks.use=["buy"]', "train.metric=buy.ne")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def trained(data: Path, name: str, *options: str) -> Path:
    config = write_config(data.parent / f"{name}.yaml", data, data.parent / name, *LONGER, *options)
    assert main(["train", str(config)]) == 0
    return data.parent / name


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    run = trained(data, "both", *ESMM)
    assert main(["evaluate", str(run), "--importance", "20", "--line", str(run / "lines.jsonl")]) == 0
    return run


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    run = trained(data, "alone", *ALONE)
    assert main(["predict", str(run)]) == 0
    return run


def rows_of(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "journal.jsonl") if row["kind"] == kind]


def test_the_journal_has_the_figures_of_each_task(run: Path) -> None:
    train, valid, test = (rows_of(run, kind)[-1] for kind in ("train", "valid", "test"))
    assert train["loss"] == pytest.approx(train["click.loss"] + train["buy.loss"])
    assert {"auc", "buy.auc", "click_and_buy.auc"} <= valid.keys() and "click.auc" not in valid
    assert {"auc", "auc_delong_low", "buy.auc", "click_and_buy.auc_delong_high"} <= test.keys()
    names = [tuple(part["name"][:-1]) for part in rows_of(run, "slices")[-1]["parts"]]
    assert {("history",), ("buy", "history"), ("click_and_buy", "history")} <= set(names)


def test_predictions_have_the_columns_of_each_output(run: Path, data: Path) -> None:
    table = pq.read_table(run / "predictions" / "test.parquet")
    found = {
        name: table[name].to_numpy() for name in table.column_names if name.startswith(("score", "label"))
    }
    assert list(found) == [
        "label",
        "label_buy",
        "label_click_and_buy",
        "score",
        "score_buy",
        "score_click_and_buy",
    ]
    np.testing.assert_allclose(found["score_click_and_buy"], found["score"] * found["score_buy"], rtol=1e-12)
    unknown = np.isnan(found["label_buy"])
    assert unknown[found["label"] == 0].all() and 0 < unknown[found["label"] == 1].mean() < 1
    assert not found["label_click_and_buy"][found["label"] == 0].any()
    known = ~np.isnan(found["label_click_and_buy"])
    assert np.array_equal(known, (found["label"] == 0) | ~unknown)


def test_each_task_is_measured_over_its_known_rows(run: Path) -> None:
    path = run / "predictions" / "test.parquet"
    table, found = pq.read_table(path), evaluate_tasks(path, draws=0)
    assert list(found) == ["click", "buy", "click_and_buy"]
    known = table.filter(table["label_buy"].is_valid())
    plain = {"label": known["label_buy"].to_numpy(), "score": known["score_buy"].to_numpy()}
    expected = evaluate_table(plain, draws=0).overall
    assert found["buy"].overall.rows == expected.rows == len(known) < len(table)
    assert found["buy"].overall.metrics["auc"].value == expected.metrics["auc"].value
    in_slices = [sum(s.rows for s in values.values()) for values in found["buy"].slices.values()]
    assert in_slices and set(in_slices) == {len(known)}
    with pytest.raises(ConfigError, match="has click, buy, click_and_buy, got 'cart'"):
        evaluate_table(path, task="cart")


def test_reports_and_lines_name_each_task(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--split", "valid"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in ("click", "buy", "click_and_buy"))
    page = (run / "report" / "index.html").read_text()
    assert '<a href="buy/index.html">buy</a>' in page and (run / "report" / "buy" / "index.html").is_file()
    assert "../index.html" in (run / "report" / "click_and_buy" / "index.html").read_text()
    (line,) = read_lines(run / "lines.jsonl")
    assert {"auc", "buy.auc", "click_and_buy.ne"} <= line.metrics.keys()


def test_a_task_alone_is_scored_and_compared_over_its_rows(
    run: Path, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(alone / "predictions" / "test.parquet")
    assert {"label_buy", "score_buy", "label_click"}.isdisjoint(table.column_names)
    assert table["label"].null_count > 0 and list(evaluate_tasks(alone / "predictions" / "test.parquet")) == [
        "buy"
    ]
    out = run.parent / "compared"
    command = ["evaluate", "--compare", f"alone={alone}", f"both={run}", "--task", "buy", "--out", str(out)]
    assert main([*command, "--metric", "auc"]) == 0
    found = json.loads((out / "comparison.json").read_text())
    both = evaluate_table(run / "predictions" / "test.parquet", task="buy").overall.metrics["auc"].value
    assert found["task"] == "buy" and str(both) in json.dumps(found)
    capsys.readouterr()
    assert main([*command[:4], "--task", "click"]) == 2
    assert "has buy, got 'click'" in capsys.readouterr().err


def test_scoring_and_a_logged_model_give_the_predictions(run: Path, data: Path) -> None:
    out = run / "scores.parquet"
    assert main(["score", str(run), "--split", "test", "--out", str(out)]) == 0
    scores, predicted = pq.read_table(out), pq.read_table(run / "predictions" / "test.parquet")
    step = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    best = rows_of(run, "best")[-1]["step"]
    logged = open_rows(run / "config.yaml", step.with_name(f"step-{best}"), data)(
        predicted["row_id"].to_numpy()
    )
    assert isinstance(logged, dict)
    for name in ("score", "score_buy", "score_click_and_buy"):
        np.testing.assert_allclose(scores[name], predicted[name], rtol=1e-5)
        np.testing.assert_allclose(logged[name], predicted[name], rtol=1e-5)


def test_what_does_not_fit_the_tasks_is_refused(
    run: Path, alone: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, text in (
        (['tasks.use=["buys"]'], "tasks.use must name the labels of the data set (click, buy, seconds)"),
        (['tasks.use=["buy"]', "tasks.kind=esmm"], "esmm needs binary tasks"),
        (["train.metric=buy.auc"], "train.metric must be a metric of what the run learns"),
    ):
        config = write_config(data.parent / "wrong.yaml", data, data.parent / "wrong", *LONGER, *options)
        assert main(["train", str(config), "--dry-run"]) == 2
        assert text in capsys.readouterr().err
    assert main(["evaluate", str(alone), "--baseline", "logistic"]) == 2
    assert "name click first in tasks.use" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--task", "buy"]) == 2


def test_a_regression_is_learned_beside_clicks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ("tasks.kind=ple", 'tasks.use=["click", "seconds"]', "tasks.weights=learned")
    run = trained(data, "seconds", *tasks, "train.metric=seconds.rmse", "train.evaluate_every=2")
    valid, best = (rows_of(run, kind) for kind in ("valid", "best"))
    assert best[-1]["seconds.rmse"] == min(row["seconds.rmse"] for row in valid) and len(valid) > 1
    assert main(["evaluate", str(run)]) == 0
    assert "\nseconds, " in capsys.readouterr().out
    table = pq.read_table(run / "predictions" / "test.parquet")
    known = table.filter(table["label_seconds"].is_valid())
    rmse = np.sqrt(np.mean((known["score_seconds"].to_numpy() - known["label_seconds"].to_numpy()) ** 2))
    test = rows_of(run, "test")[-1]
    assert test["seconds.rmse"] == pytest.approx(rmse) and "auc" in test and "seconds.auc" not in test
    assert f"RMSE {rmse:.4f}" in (run / "report" / "index.html").read_text()


def test_the_first_label_alone_is_learned_where_a_run_names_no_tasks(data: Path) -> None:
    run = trained(data, "first")
    assert not any("." in key for key in rows_of(run, "valid")[-1])
    assert main(["predict", str(run)]) == 0
    table = pq.read_table(run / "predictions" / "test.parquet")
    assert "label_buy" not in table.column_names and table["label"].null_count == 0
