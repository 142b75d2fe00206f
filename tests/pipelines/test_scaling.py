"""`ctr scaling` from sweep to report: the prediction stands before its trainings, nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr.ablate.task import Task
from ctr.runs.journal import read_rows
from ctr.scaling.predict import ROW
from ctr.scaling.sweep import Chain, Sweep
from features.durable.own import MARKER
from features.errors import CtrError
from features.safe_yaml import dump_yaml
from pipelines.ablate_worker import work
from pipelines.cli import main
from pipelines.scaling import scale
from tests.ctr.ablate.small import BASE, Inline, fake_server, family, pretend, small_log

ROWS = 400


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_log(tmp_path_factory.mktemp("scaling"))


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test draws; the others need none."""
    if "draws" not in request.node.name:
        monkeypatch.setattr("ctr.scaling.report.draw_all", lambda results: {})


def open_sweep(dataset: Path, out: Path, **changes: Any) -> Chain:
    content = {
        "name": "small", "base": {"dataset": str(dataset), **BASE}, "out": str(out), "axis": "history",
        "values": [1, 2, 4, 6, 8], "seeds": [1], "metrics": ["auc", "ne"],
    }  # fmt: skip
    return Chain.open(Sweep.model_validate({**content, **changes}))


def stand_in(task: Task) -> int:
    """A training that ends at once; its AUC grows with the history, and with a little noise of the seed."""
    rng = np.random.default_rng(task.config.seed)
    length = max(task.config.loader.max_len.values())
    label = np.arange(ROWS) % 4 == 0
    score = 1 / (1 + np.exp(-(label * (1 - 0.8 / length) + rng.normal(0, 1, ROWS) - 1)))
    return pretend(task, {"label": label.astype("f4"), "score": score}, flops_per_row=100.0 + length)


def do(chain: Chain, job: Callable[[Task], int] = stand_in) -> tuple[int, list[str]]:
    """Run a sweep in this process; its exit code and the trainings it started."""
    started: list[str] = []

    def launch(task: Task) -> Any:
        started.append(Path(task.config.run).name.rpartition("-")[0])
        return Inline(task, job)

    return scale(chain, launch=launch, workers=2), started


def results(out: Path) -> Any:
    return json.loads((out / "report" / "results.json").read_text())


def predictions(out: Path) -> list[Any]:
    rows = read_rows(out / "journal.jsonl")
    return [{k: v for k, v in row.items() if k != "wall"} for row in rows if row["kind"] == ROW]


class Killed(BaseException):
    """Nothing below may catch it."""


def dies_at(*names: str) -> Callable[[Task], int]:
    def job(task: Task) -> int:
        if Path(task.config.run).name.startswith(names):
            raise Killed
        return stand_in(task)

    return job


def test_the_prediction_is_on_the_disk_before_its_point_is_trained(dataset: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def job(task: Task) -> int:
        if Path(task.config.run).name.startswith("x-8"):
            seen.append(len(predictions(tmp_path)))
        return stand_in(task)

    code, started = do(open_sweep(dataset, tmp_path, seeds=[1, 2]), job)
    assert (code, seen) == (0, [1, 1])
    assert started == [f"x-{x}.s{seed}.w0" for x in (1, 2, 4, 6, 8) for seed in (1, 2)]
    found = results(tmp_path)
    [made] = predictions(tmp_path)
    assert made["before"] and found["predicted_before_training"]
    for metric in ("auc", "ne"):
        [scored] = found["metrics"][metric]["predictions"]
        assert {k: scored[k] for k in made["metrics"][metric]["x-8"]} == made["metrics"][metric]["x-8"]
        assert scored["observed"] == pytest.approx(np.mean(found["points"][-1]["values"][metric]))
        assert scored["inside"] == (scored["low"] <= scored["observed"] <= scored["high"])
    assert [p["x"] for p in found["points"]] == [1, 2, 4, 6, 8]
    assert found["points"][-1]["flops_per_row"] == 108 and found["points"][-1]["parameters"] == 100


def test_a_restart_keeps_the_prediction_and_repeats_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    do(open_sweep(dataset, whole))
    with pytest.raises(Killed):
        do(open_sweep(dataset, broken), dies_at("x-4"))
    assert predictions(broken) == []  # not all points of the fit are there
    with pytest.raises(Killed):
        do(open_sweep(dataset, broken), dies_at("x-8"))
    made = predictions(broken)
    monkeypatch.setattr("ctr.scaling.run.predict", lambda *_: pytest.fail("predicted again"))
    assert do(open_sweep(dataset, broken)) == (0, ["x-8.s1.w0"])
    assert predictions(broken) == made == predictions(whole)
    assert results(broken)["metrics"] == results(whole)["metrics"]
    assert do(open_sweep(dataset, broken)) == (0, [])


def test_a_prediction_that_comes_after_its_points_is_told(dataset: Path, tmp_path: Path) -> None:
    do(open_sweep(dataset, tmp_path))
    assert do(open_sweep(dataset, tmp_path, hold_out=2)) == (0, [])  # x-6 and x-8 are known already
    assert [row["before"] for row in predictions(tmp_path)] == [True, False]
    report = (tmp_path / "report" / "report.md").read_text()
    assert not results(tmp_path)["predicted_before_training"] and "after their points were measured" in report
    assert do(open_sweep(dataset, tmp_path, values=[1, 2, 4, 6, 7])) == (0, ["x-7.s1.w0"])
    assert [row["before"] for row in predictions(tmp_path)] == [True, False, True]


def test_a_training_that_fails_ends_the_sweep_without_a_prediction(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(CtrError, match="every size must train, but x-1") as caught:
        do(open_sweep(dataset, tmp_path), lambda task: 4)
    assert caught.value.exit_code == 4 and predictions(tmp_path) == []
    assert not (tmp_path / "report" / "index.html").exists()


def test_against_operations_the_place_is_known_before_the_training(dataset: Path, tmp_path: Path) -> None:
    assert do(open_sweep(dataset, tmp_path, against="flops"))[0] == 0
    [made] = predictions(tmp_path)
    found = results(tmp_path)
    assert made["metrics"]["auc"]["x-8"]["x"] > 1e6 and found["against"] == "flops"


def test_mlflow_gets_one_parent_and_nested_children(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake_server(monkeypatch)
    base = {"dataset": str(dataset), **BASE, "tracking": {"uri": "fake:a"}}
    for _ in range(2):  # sent again, nothing changes
        assert do(open_sweep(dataset, tmp_path / "sweep", base=base))[0] == 0
    parent, children = family(server, "sweep")
    assert sorted(run.tags["variant"] for run in children) == ["x-1", "x-2", "x-4", "x-6", "x-8"]
    assert {run.tags["scaling"] for run in server.runs.values()} == {"small"}
    keys = [key for key, *_ in parent.values()]
    assert {"prediction/metrics/auc/x-8/value", "scaling/auc/at-8/inside"} <= set(keys)
    assert len(keys) == len(set(keys)) and any(place == "report" for _, place in parent.artifacts)


def test_the_command_lists_and_refuses_before_it_writes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = open_sweep(dataset, tmp_path / "out").sweep.model_dump(mode="json")
    file = tmp_path / "sweep.yaml"
    file.write_text(dump_yaml(sweep))
    assert main(["scaling", str(file), "--dry-run", "--workers", "1"]) == 0
    assert "5 variants, 5 trainings" in capsys.readouterr().out
    for arguments, word in (
        ([str(file), "--set", "values=[1, 2, 4, 6, 999]"], "x-999"),
        ([str(file), "--set", "axis=loader.prefetch"], "are the same"),
        ([str(file), "--set", "axis=seed", "--set", "seeds=[1]"], "the plan's `seeds`"),
        ([str(file), "--hold-out", "2"], "--hold-out is for --points"),
        (["--points", "t.csv", "--dry-run"], "--dry-run is for a sweep"),
        ([], "either a sweep"),
        ([str(file), "--points", "t.csv"], "either a sweep"),
    ):
        assert main(["scaling", *arguments]) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def write_points(path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["x,y,seed,flops"]
    lines += [
        f"{x},{0.8 - 0.1 * x**-0.5 + rng.normal(0, 2e-4)},{s},{1e9 * (x + 50)}"
        for x in (10, 20, 40, 80, 160, 320)
        for s in (1, 2)
    ]
    path.write_text("\n".join(lines) + "\n")


def test_points_from_a_table_need_no_model_and_draws_their_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_points(tmp_path / "measured.csv")
    command = ["scaling", "--points", str(tmp_path / "measured.csv"), "--out", str(tmp_path / "out")]
    assert main([*command, "--hold-out", "2", "--metric", "auc"]) == 0
    text = capsys.readouterr().out
    assert (
        "AUC at 160: computed from smaller sizes" in text and text.count("the interval; errors: curve") == 2
    )
    assert {p.name for p in (tmp_path / "out" / "report").iterdir()} == {MARKER, 
        "index.html", "report.md", "results.json", "auc.png"
    }  # fmt: skip
    beta = results(tmp_path / "out")["metrics"]["auc"]["curve"]["beta"]
    assert beta["low"] < -0.5 < beta["high"] < 0
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "What makes the sizes" not in page
    assert main([*command, "--hold-out", "4"]) == 2
    assert "3 be left" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_sweep(dataset: Path, tmp_path: Path) -> None:
    code, started = do(open_sweep(dataset, tmp_path, values=[1, 2, 4, 8]), work)
    assert (code, len(started)) == (0, 4)
    found = results(tmp_path)
    flops = [point["flops"] for point in found["points"]]
    assert flops == sorted(flops) and flops[0] > 0
    assert found["metrics"]["auc"]["curve"]["line_in_log_x"]  # three sizes are left
    assert 0.3 < found["metrics"]["auc"]["predictions"][0]["observed"] < 0.9
