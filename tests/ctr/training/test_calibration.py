"""Calibrators against scikit-learn and their meaning, as plain data, and through a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ctr.metrics import evaluate_raw, evaluate_table
from ctr.runs.journal import read_rows
from ctr.training import calibration as module
from ctr.training.calibration import Calibrators
from ctr.training.outputs import Outputs, probability
from features.dataset import TaskInfo
from pipelines.cli import main
from tests.ctr.tiny_run import tiny_dataset, write_config

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.normal(-1, 1.5, 20_000)
LABEL = (RANDOM.random(20_000) < probability(TRUE)).astype(np.float32)
LOGIT = (0.4 * TRUE + 2).astype(np.float32)  # too timid and much too high


def fit(kind: Any, logit: np.ndarray, label: np.ndarray) -> Any:
    return module.fit(kind, logit, label, np.ones(len(label)))


def test_rows_count_as_often_as_they_weigh() -> None:
    times = np.random.default_rng(1).integers(0, 4, len(LABEL))
    for kind in ("platt", "isotonic"):
        weighted = module.fit(kind, LOGIT, LABEL, times.astype(np.float32))
        repeated = fit(kind, LOGIT.repeat(times), LABEL.repeat(times))
        assert weighted is not None
        np.testing.assert_allclose(weighted(LOGIT), repeated(LOGIT), atol=1e-4)


def test_platt_is_the_logistic_regression_and_finds_the_shift() -> None:
    found = fit("platt", LOGIT, LABEL)
    assert found is not None and found.kind == "platt"
    assert found.slope == pytest.approx(2.5, rel=0.05) and found.offset == pytest.approx(-5.0, rel=0.05)
    theirs = LogisticRegression(C=np.inf).fit(LOGIT[:, None].astype(np.float64), LABEL)
    np.testing.assert_allclose(found(LOGIT), theirs.predict_proba(LOGIT[:, None])[:, 1], rtol=1e-4)


def test_isotonic_is_that_of_scikit_learn_and_never_certain() -> None:
    found = fit("isotonic", LOGIT, LABEL)
    assert found is not None and found.kind == "isotonic"
    theirs = IsotonicRegression(out_of_bounds="clip").fit(LOGIT.astype(np.float64), LABEL)
    ours = found(LOGIT)
    np.testing.assert_allclose(ours, theirs.predict(LOGIT.astype(np.float64)), atol=1e-4)
    assert 0 < found(np.array([-1e9]))[0] < 1e-3 and 1 - 1e-3 < found(np.array([1e9]))[0] < 1
    assert (np.diff(ours[np.argsort(LOGIT)]) >= 0).all()


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_fresh_rows_are_calibrated(kind: str) -> None:
    half = len(LOGIT) // 2
    found = fit(kind, LOGIT[:half], LABEL[:half])
    assert found is not None
    mean, raw = found(LOGIT[half:]).mean(), probability(LOGIT[half:]).mean()
    assert mean / LABEL[half:].mean() == pytest.approx(1.0, abs=0.05)
    assert raw / LABEL[half:].mean() > 2


def test_there_is_none_of_one_class_or_of_an_order_upside_down() -> None:
    assert fit("platt", LOGIT, np.ones_like(LABEL)) is None and fit("isotonic", LOGIT[:0], LABEL[:0]) is None
    assert fit("platt", -LOGIT, LABEL) is None


def test_it_is_plain_data_and_each_output_has_its_own() -> None:
    fitted = {"click": fit("platt", LOGIT, LABEL), "click_and_buy": fit("isotonic", LOGIT, LABEL)}
    calibration = Calibrators.model_validate({"step": 3, "outputs": fitted})
    again = Calibrators.from_plain(json.loads(json.dumps(calibration.model_dump(mode="json"))))
    assert again == calibration
    tasks = [TaskInfo(name="click"), TaskInfo(name="buy", given="click")]
    logits = np.stack([LOGIT, LOGIT], axis=1)
    click, (buy, both) = Outputs(tasks, again).scores(logits)
    assert np.array_equal(click, calibration.outputs["click"](LOGIT))
    assert np.array_equal(buy, probability(LOGIT)) and not np.allclose(both, click * buy)
    raw = Outputs(tasks, again).raw.scores(logits)
    assert np.array_equal(raw[0], probability(LOGIT))


@pytest.mark.parametrize(
    "data", [{}, {"step": 1, "outputs": {"": {"kind": "platt", "slope": -1, "offset": 0}}}]
)
def test_what_is_none_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="calibration: "):
        Calibrators.from_plain(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    options = ("model.kind=longer", "calibration=isotonic", "train.checkpoint_every=5", "train.keep_last=9")
    config = write_config(folder / "run.yaml", tiny_dataset(folder), folder / "run", *options)
    assert main(["train", str(config)]) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_run_scores_with_what_it_fitted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run)]) == 0
    assert "not calibrated" in capsys.readouterr().out
    path = run / "predictions" / "test.parquet"
    table = pq.read_table(path)
    assert not np.array_equal(table["score"], table["raw_score"])
    np.testing.assert_array_equal(table["raw_score"], probability(table["logit"].to_numpy()))
    beside = [row for row in read_rows(run / "journal.jsonl") if row["kind"] == "baselines"][-1]["parts"]
    raw = evaluate_raw(path)[""].overall.metrics["ne"].value
    assert beside[0]["name"] == ["uncalibrated"] and beside[0]["figures"]["ne"] == raw
    assert raw != evaluate_table(path).overall.metrics["ne"].value
    scores = run / "scores.parquet"
    for flags, column in (((), "score"), (("--raw",), "raw_score")):
        assert main(["score", str(run), "--split", "test", "--out", str(scores), *flags]) == 0
        np.testing.assert_allclose(pq.read_table(scores)["score"], table[column], rtol=1e-5)
    assert main(["predict", str(run), "--raw"]) == 0
    own = pq.read_table(path)
    assert "raw_score" not in own.column_names and own["score"].equals(table["raw_score"])


@pytest.mark.slow
def test_weights_of_a_step_that_was_not_validated_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), "--checkpoint", "5"]) == 2
    assert "step 5 must come with a calibration of kind isotonic" in capsys.readouterr().err
    assert main(["predict", str(run), "--checkpoint", "5", "--raw"]) == 0
    config = (run / "config.yaml").read_text().replace("data: train\n", "data: train+valid\n")
    (run.parent / "whole.yaml").write_text(config.replace(str(run), str(run.parent / "whole")))
    assert main(["train", str(run.parent / "whole.yaml")]) == 2
    assert "calibration must be none without a validation part" in capsys.readouterr().err
