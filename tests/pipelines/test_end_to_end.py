"""From a simulated log to a report, command by command, in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr.baseline import BASELINES
from ctr.report.result_line import read_lines
from ctr.runs.journal import read_rows
from features.dataset import Dataset
from features.safe_yaml import dump_yaml, load_yaml
from pipelines import cli
from pipelines.cli import main
from tests.ctr.tiny_run import endings

CONFIGS = Path(cli.__file__).parent / "configs"
SIZES = (
    "--users 60 --items 200 --categories 12 --days 10 "
    "--requests-per-user 6 --candidates 5 --events-per-user 20"
)
TINY = {
    "model": {"d_model": 16, "layers": 1, "heads": 2, "head_hidden": [8], "positions": 8},
    "embedding": {"dim": 4},
    "optimizer": {"warmup_steps": 2, "lr": 0.01, "ema_decay": 0.9},
    "loader": {"batch_rows": 256},
    "train": {"epochs": 3, "metric": "auc", "checkpoint_every": 2, "keep_last": 2, "device": "cpu"},
    "tracking": {"uri": None, "log_every": 2},
}
COLUMNS = [
    "row_id",
    "request_id",
    "user_id",
    "item_id",
    "time",
    "label",
    "score",
    "logit",
    "user_key",
    "item_key",
    "log_row",
    "log_file",
    "slice_history",
    "slice_known_user",
    "slice_known_item",
    "slice_item_age",
]


def ctr(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must succeed; what it printed."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log, dataset, run.yaml and a trained run."""
    folder = tmp_path_factory.mktemp("end to end")  # with a space in its name
    log, dataset, spec = folder / "log", folder / "dataset", CONFIGS / "specs" / "simulator.yaml"
    assert main(["simulate", "--out", str(log), *SIZES.split()]) == 0
    assert main(["prepare", "--spec", str(spec), "--source", str(log), "--out", str(dataset)]) == 0
    (folder / "run.yaml").write_text(dump_yaml({"dataset": str(dataset), "run": str(folder / "run"), **TINY}))
    assert main(["train", str(folder / "run.yaml")]) == 0
    return folder


def figures(run: Path) -> dict[str, Any]:
    content = json.loads((run / "report" / "metrics.json").read_text())
    return {name: metric["value"] for name, metric in content["overall"]["metrics"].items()}


def test_the_run_directory_has_all_its_parts(place: Path) -> None:
    run = place / "run"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "journal.jsonl", "lock", "checkpoints"}
    assert load_yaml(run / "config.yaml")["model"]["d_model"] == 16
    kinds = [row["kind"] for row in read_rows(run / "journal.jsonl")]
    assert kinds[:2] == ["run", "session"] and {"train", "valid", "best"} <= set(kinds)
    assert endings(run)[0] == "FINISHED"


def test_predictions_are_complete_and_in_file_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ctr(capsys, "predict", place / "run", "--split", "test")
    table = pq.read_table(place / "run" / "predictions" / "test.parquet")
    data = Dataset(place / "dataset").split("test")
    assert f"wrote {table.num_rows:,} rows" in text
    assert table["row_id"].to_pylist() == data.impressions["row_id"].to_pylist()
    assert table["label"].to_pylist() == data.impressions["label"].to_pylist()
    users = data.requests["user_id"].to_pylist()
    counts = data.requests["num_rows"].to_pylist()
    assert table["user_id"].to_pylist() == [u for u, n in zip(users, counts, strict=True) for _ in range(n)]
    assert table.column_names == [*COLUMNS, "slice_segment", "slice_device"]
    assert all(0 < score < 1 for score in table["score"].to_pylist())


def test_report_agrees_with_scikit_learn_on_the_predictions(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    text = ctr(capsys, "evaluate", run, "--baseline", "logistic")
    assert f"report: {run / 'report' / 'index.html'}" in text
    table = pq.read_table(run / "predictions" / "test.parquet").to_pydict()
    shown = figures(run)
    assert shown["auc"] == pytest.approx(roc_auc_score(table["label"], table["score"]), abs=1e-9)
    assert shown["log_loss"] == pytest.approx(log_loss(table["label"], table["score"]), abs=1e-9)
    page = (run / "report" / "index.html").read_text()
    assert "logistic regression" in page and "hyformer on simulator, test" in page
    pictures = list((run / "report").glob("*.png"))
    assert len(pictures) >= 4 and all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    assert read_rows(run / "journal.jsonl")[-1]["kind"] == "session" and endings(run)[-1] == "FINISHED"
    (logged,) = [row for row in read_rows(run / "journal.jsonl") if row["kind"] == "test"]
    assert logged["auc"] == shown["auc"]


def test_the_validation_figure_of_training_is_that_of_the_evaluation(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best checkpoint, with averaged weights, scores as it did while training."""
    best = [row for row in read_rows(place / "run" / "journal.jsonl") if row["kind"] == "best"][-1]
    text = ctr(capsys, "evaluate", place / "run", "--split", "valid", "--checkpoint", best["step"])
    assert "report: " in text
    shown = figures(place / "run")
    assert {name: shown[name] for name in ("auc", "gauc", "ne")} == {
        k: best[k] for k in ("auc", "gauc", "ne")
    }


def test_checkpoints_are_chosen_by_name_or_step(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "run"
    steps = sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").iterdir())
    assert f"weights of step {steps[-1]})" in ctr(capsys, "predict", run, "--checkpoint", "last")
    assert f"weights of step {steps[0]})" in ctr(capsys, "predict", run, "--checkpoint", steps[0])
    for wrong, code, names in (
        ("first", 2, "best, last or a step number"),
        ("7777", 5, f"got 7777; there are {steps}"),
    ):
        assert main(["predict", str(run), "--checkpoint", wrong]) == code
        assert names in capsys.readouterr().err


def test_doctor_finds_the_data_sound(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ctr(capsys, "doctor", place / "dataset")
    assert "PASS" in text and "FAIL" not in text


def test_a_moved_data_set_is_found_and_another_one_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = place / "moved"
    (place / "dataset").rename(moved)
    manifest = moved / "manifest.json"
    original = manifest.read_text()
    try:
        assert main(["predict", str(place / "run")]) == 3
        assert "ctr prepare" in capsys.readouterr().err
        ctr(capsys, "predict", place / "run", "--dataset", moved)
        plain = {key: value for key, value in json.loads(original).items() if key != "seal"}
        other_order = dict(reversed(plain["tokens"].items()))
        manifest.write_text(json.dumps({**plain, "tokens": other_order}))
        assert main(["predict", str(place / "run"), "--dataset", str(moved)]) == 5
        assert "tokens: expected" in capsys.readouterr().err
    finally:
        manifest.write_text(original)
        moved.rename(place / "dataset")


def test_baselines_append_a_line_for_each_seed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "baselines.jsonl"
    ctr(capsys, "baseline", place / "dataset", "--kind", "lightgbm", "--seeds", 2, "--line", file)
    first, second = read_lines(file)
    assert (first.seeds, second.seeds) == ([1], [2]) and first.model == "lightgbm" and first.rows
    assert first.metrics.keys() >= {"auc", "gauc"} and first.metrics["auc"].low is not None


@pytest.mark.parametrize("kind", BASELINES)
def test_baselines_print_their_figures(
    place: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ctr(capsys, "baseline", place / "dataset", "--kind", kind, "--out", tmp_path / "b.parquet")
    assert "(seed 1) on test: auc 0." in text and "[" in text
    assert "user bootstrap" in text.split("Calibration")[1]  # every metric has its interval
    ctr(capsys, "predict", place / "run")
    ours, theirs = (
        pq.read_table(p) for p in (place / "run" / "predictions" / "test.parquet", tmp_path / "b.parquet")
    )
    assert [(f.name, f.type) for f in ours.schema] == [(f.name, f.type) for f in theirs.schema]
    same = [name for name in ours.column_names if name not in ("score", "logit")]
    assert ours.select(same).equals(theirs.select(same))


def test_a_baseline_of_an_evaluation_can_be_compared_with_the_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    ctr(capsys, "evaluate", run, "--baseline", "lightgbm-ids")
    text = ctr(
        capsys,
        "evaluate",
        "--compare",
        run / "predictions" / "test-lightgbm-ids.parquet",
        run,
        "--metric",
        "auc",
    )
    assert "AUC" in text and "rows" in text
    page = (run / "report" / "index.html").read_text().split("<h2>Comparison</h2>")[1].split("</table>")[0]
    assert "LightGBM with IDs" in page and page.count(" to 0.") >= 10  # both lines, every interval


def test_importance_is_in_report_and_journal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "run"
    text = ctr(capsys, "evaluate", run, "--importance", 300)
    assert "AUC lost without a feature" in text and "match_category" in text
    assert (run / "report" / "importance.png").is_file()
    row = [r for r in read_rows(run / "journal.jsonl") if r["kind"] == "importance"][-1]
    assert {"item", "view"} <= {part["name"][0] for part in row["parts"]}
    ctr(capsys, "evaluate", run)  # without it
    assert not (run / "report" / "importance.png").exists()


def test_sync_counts_values(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.sync.sync", lambda path, uri: 1234)
    assert ctr(capsys, "sync", place / "run").endswith("run: sent 1,234 values\n")


def test_sync_without_a_server_to_send_to(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens there: a message, exit code 75, and the journal as it was."""
    before = (place / "run" / "journal.jsonl").read_bytes()
    assert main(["sync", str(place / "run"), "--uri", "http://127.0.0.1:9"]) == 75
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert (place / "run" / "journal.jsonl").read_bytes() == before
