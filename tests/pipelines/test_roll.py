"""`ctr roll` over three small days: killed in and between its steps it ends the same, and MLflow has it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.dataset import Dataset
from features.safe_yaml import dump_yaml
from features.synthetic import simulate, write_days
from pipelines.cli import main
from tests.forks import run_command

pytestmark = pytest.mark.slow
SPEC = Path(__file__).parents[2] / "pipelines" / "configs" / "specs" / "simulator.yaml"
BASE: dict[str, Any] = {
    "dataset": "-",
    "run": "-",
    "model": {"kind": "grid", "d_model": 16, "heads": 2, "head_hidden": [8],
              "sequence": {"kind": "din", "hidden": [8], "recent": 8}, "interaction": {"kind": "mlp"}},
    "embedding": {"dim": 4, "optimizer": "adam"},
    "loader": {"batch_rows": 256},
    "train": {"checkpoint_every": 2},
    "tracking": {"uri": None},
}  # fmt: skip
KILLS = (
    "dataset.before_rename",
    "dataset.after_rename",
    "step:2",
    "ckpt.before_rename",
    "predictions.before_rename",
    "roll.train.before_rename",
    "roll.decide.after_rename",
    "dataset.after_rename",
    "predictions.after_rename",
    "roll.test.before_rename",
    "ckpt.after_rename",
    "roll.compare.after_rename",
    "roll.decide.before_rename",
    "roll.prepare.after_rename",
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    simulate(root / "log", users=120, items=200, days=3)
    write_days(root / "log", root / "days")
    return root / "days"


def plan(folder: Path, logs: Path, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "plan.yaml"
    own = {
        "name": "small",
        "logs": f"{logs}/day-*",
        "spec": str(SPEC),
        "base": BASE,
        "out": str(folder / "roll"),
    }
    path.write_text(dump_yaml({**own, **more}))
    return path


def ends(root: Path) -> dict[str, Any]:
    """What a roll has made, without times and places."""
    days = sorted((root / "data").iterdir())
    scores = {
        str(path.relative_to(root)): pq.read_table(path)["score"].to_pylist()
        for path in sorted((root / "predictions").rglob("*.parquet"))
    }
    data = {d.name: {n: h for n, h in Dataset(d).manifest.files.items() if n != "spec.yaml"} for d in days}
    return {
        "results": json.loads((root / "report" / "results.json").read_text()),
        "scores": scores,
        "data": data,
    }


@pytest.fixture(scope="module")
def whole(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A roll that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["roll", str(plan(folder, logs))]) == 0
    return ends(folder / "roll")


def test_killed_in_and_between_steps_it_ends_the_same(
    logs: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    command = ["roll", str(plan(tmp_path, logs))]
    for point in KILLS:
        job = run_command(*command, fault=f"{point}:kill")
        assert job.code == -signal.SIGKILL, (point, job.err[-2000:])
    assert main(command) == 0
    assert ends(tmp_path / "roll") == whole
    made = sorted(p.stat().st_mtime_ns for p in (tmp_path / "roll" / "data").rglob("manifest.json"))
    assert main(command) == 0  # nothing is left to do
    assert ends(tmp_path / "roll") == whole
    assert made == sorted(p.stat().st_mtime_ns for p in (tmp_path / "roll" / "data").rglob("manifest.json"))


def test_days_that_come_later_go_on(
    logs: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "days").mkdir()
    for number in (1, 2, 3):
        name = f"day-0{number}"
        (tmp_path / "days" / name).symlink_to(logs / name)
        assert main(["roll", str(plan(tmp_path, tmp_path / "days"))]) == 0
    assert ends(tmp_path / "roll") == whole
    assert "unseen" not in caplog.text + capsys.readouterr().err  # each day is judged before it is learned
    assert (tmp_path / "roll" / "days" / "day-03" / "learned.json").is_file()


def test_a_model_from_scratch_and_mlflow(logs: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    base = {**BASE, "tracking": {"uri": "auto", "experiment": "roll"}}
    assert main(["roll", str(plan(tmp_path, logs, base=base, scratch="last"))]) == 0
    found = json.loads((tmp_path / "roll" / "report" / "results.json").read_text())
    assert [sorted(day["figures"]) for day in found["days"]] == [
        [], ["frozen", "rolled"], ["frozen", "rolled", "scratch"],
    ]  # fmt: skip
    assert {j["variant"] for j in found["beside_scratch"]} == {"frozen", "rolled"}
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("roll")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs["roll"].info.run_id
    children = [runs[f"day-0{n}"].data.tags["mlflow.parentRunId"] for n in (1, 2, 3)]
    assert children == [parent] * 3
    champion = found["days"][-1]["decision"]["champion"]
    version = client.get_model_version_by_alias("small", "champion")
    assert version.run_id == runs[champion].info.run_id
    assert main(["roll", str(plan(tmp_path, logs, base=base, scratch="last"))]) == 0
    promoted = sum(day["decision"]["promoted"] for day in found["days"])
    assert len(client.search_model_versions("name = 'small'")) == promoted
