"""`ctr ensemble`: predictions and figures of several runs as one, and what takes its directory as a run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.config import RunConfig, parse_config
from ctr.report.result_line import read_lines
from ctr.runs.journal import read_rows
from ctr.training.outputs import probability
from ctr.training.scoring import Scores
from features.dataset import Dataset
from features.safe_yaml import dump_yaml
from pipelines.cli import main
from pipelines.ensemble import _Scoring
from pipelines.train import train
from tests.ctr.dataset_fixture import write_dataset
from tests.ctr.tiny_run import SIZES, settings, tiny_dataset


def trained(data: Path, run: Path, *options: str) -> Path:
    train(parse_config(settings(data, run, "train.epochs=1", "train.hidden_rows=0", *options)))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("ensemble")
    data = tiny_dataset(folder)
    options = [(), ("calibration=platt", "drop=[price]")]
    return [trained(data, folder / f"run-{k}", f"seed={k}", *options[k]) for k in range(2)]


@pytest.fixture(scope="module")
def made(runs: list[Path]) -> Path:
    out = runs[0].parent / "both"
    assert main(["ensemble", *map(str, runs), "--out", str(out), "--train"]) == 0
    return out


def _of_a_period(config: RunConfig, *, at: Path | None = None) -> Dataset:
    """Each seed sees a validation part of its own size."""
    dataset = Dataset(config.dataset)
    splits = dict(dataset.manifest.splits)
    splits["valid"] = splits["valid"].model_copy(update={"requests": 10 + config.seed})
    return dataset.seen_as(dataset.manifest.model_copy(update={"splits": splits}))


def logits(path: Path) -> np.ndarray:
    return pq.read_table(path)["logit"].to_numpy()


def test_logits_are_means_and_all_else_is_as_of_a_run(made: Path, runs: list[Path]) -> None:
    for split in ("train", "valid", "test"):
        table = pq.read_table(made / "predictions" / f"{split}.parquet")
        own = [logits(made / "predictions" / f"{split}-{number}.parquet") for number in (1, 2)]
        mean = ((own[0].astype(np.float64) + own[1]) / 2).astype(np.float32)
        assert np.array_equal(table["logit"].to_numpy(), mean) and not np.array_equal(own[0], own[1])
        assert np.array_equal(table["score"].to_numpy(), probability(mean))
    for number, run in enumerate(runs, start=1):
        assert main(["predict", str(run), "--raw"]) == 0
        alone = pq.read_table(run / "predictions" / "test.parquet")
        beside = pq.read_table(made / "predictions" / f"test-{number}.parquet")
        assert beside.equals(alone)
        assert table.drop_columns(["score", "logit"]).equals(alone.drop_columns(["score", "logit"]))


def test_members_are_shown_beside_and_the_best_on_validation_is_the_base(
    made: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = json.loads((made / "ensemble.json").read_text())
    values = [member["value"] for member in plain["members"]]
    valid = [[row for row in read_rows(r / "journal.jsonl") if row["kind"] == "valid"][-1] for r in runs]
    assert values == [row["auc"] for row in valid] and plain["best"] == int(np.argmax(values)) + 1
    again = made.with_name("again")
    assert main(["ensemble", *map(str, runs), "--out", str(again), "--calibration", "platt"]) == 0
    shown = capsys.readouterr().out
    best = runs[plain["best"] - 1]
    assert f"{best}, best on validation" in shown and all(str(run) in shown for run in runs)
    assert f"base: {best}, the best member on validation (auc)" in shown and "AUC (DeLong)" in shown
    journal = read_rows(again / "journal.jsonl")
    (test,) = [row for row in journal if row["kind"] == "test"]
    (lines,) = [row for row in journal if row["kind"] == "baselines"]
    assert [part["name"] for part in lines["parts"]] == [["member-1"], ["member-2"], ["uncalibrated"]]
    table = pq.read_table(again / "predictions" / "test.parquet")
    assert (
        "raw_score" in table.column_names
        and "raw_score" in pq.read_schema(again / "predictions" / "test-1.parquet").names
    )  # members are calibrated too, so that their log loss says something beside that of the ensemble
    assert np.array_equal(table["logit"].to_numpy(), logits(made / "predictions" / "test.parquet"))
    assert main(["evaluate", str(again), "--line", str(again / "lines.jsonl")]) == 0
    (line,) = read_lines(again / "lines.jsonl")
    assert line.seeds == [0, 1] and float(line.metrics["auc"].value or 0) == test["auc"]
    assert f"ctr ensemble {runs[0]} {runs[1]} --out {again} --calibration platt" in (line.commands or [""])[0]


def test_what_no_calibration_fits_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Labels that are rarer where logits are higher."""
    logit = np.linspace(-1, 1, 8, dtype=np.float32)
    ones, label = np.ones(8, dtype=np.float32), (logit < 0).astype(np.float32)
    zeros = np.zeros(8, dtype=np.int64)
    scoring = _Scoring(cast(Any, None), Path("out"), "platt", [])
    found = scoring._fitted("runs/a", Scores(logit, label, ones > 0, ones, zeros, zeros), 3)
    assert found is not None and found.outputs == {}
    assert "no platt calibration fits runs/a" in caplog.text


def test_its_directory_is_compared_as_that_of_a_run(
    made: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"one={made / 'predictions' / 'test-1.parquet'}"
    assert main(["evaluate", "--compare", base, f"mean={made}", "--metric", "auc"]) == 0
    assert "mean" in capsys.readouterr().out
    assert main(["evaluate", str(made), "--split", "valid"]) == 0
    assert (made / "report" / "index.html").is_file()


def test_what_needs_one_run_is_refused(
    made: Path, runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = runs[0].parent / "dataset"
    one, two = map(str, runs)
    elsewhere = made.parent / "run-x"
    elsewhere.mkdir()  # refused before its weights are read
    other = write_dataset(made.parent / "other", SIZES, seed=2)
    (elsewhere / "config.yaml").write_text(dump_yaml(settings(other, elsewhere)))
    final = trained(data, made.parent / "run-f", "train.data=train+valid")
    out = str(made.parent / "new")
    wrong = {
        "ctr ensemble needs two runs or more, each once": ["ensemble", one, one, "--out", out],
        "the data set of": ["ensemble", one, str(elsewhere), "--out", out],
        "holds a run; name another": ["ensemble", one, two, "--out", one],
        "holds an ensemble, which has predictions and no weights, got --raw": [
            "evaluate",
            str(made),
            "--raw",
        ],
        "must be the directory of one run": ["predict", str(made)],
        "no member may be trained on it": ["ensemble", one, str(final), "--out", out, "--calibration=platt"],
    }
    for message, command in wrong.items():
        assert main(command) == 2, message
        assert message in capsys.readouterr().err
    monkeypatch.setattr("pipelines.ensemble.open_dataset", _of_a_period)
    assert main(["ensemble", one, two, "--out", out]) == 2
    assert "the parts (period) of" in capsys.readouterr().err
    monkeypatch.undo()
    assert not Path(out).exists()
    with pytest.raises(Exception, match="must be the directory of one run"):
        trained(data, made)
    assert main(["ensemble", one, str(final), "--out", out]) == 0
    assert "no member is compared" in capsys.readouterr().out
    assert main(["evaluate", out, "--split", "valid"]) == 2
