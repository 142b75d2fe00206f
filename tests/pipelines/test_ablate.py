"""`ctr ablate` from plan to report: shared trainings, restarts, halving, MLflow, and what must be found."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.ablation import Ablation
from ctr.ablate.schedule import Worker
from ctr.ablate.task import Task
from ctr.report.result_line import read_lines
from ctr.runs.journal import read_rows
from features.errors import CtrError
from features.safe_yaml import dump_yaml
from pipelines.ablate import ablate, dry_run
from pipelines.ablate_worker import work
from pipelines.cli import main
from pipelines.results_page import ablation as ablation_table
from tests.ctr.ablate.small import (
    BASE,
    Inline,
    fake_server,
    family,
    open_small,
    results_of,
    small_log,
    small_plan,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_log(tmp_path_factory.mktemp("ablate"))


def do(ablation: Ablation, task_done: Callable[[Task], int] = work, **options: Any) -> tuple[int, list[str]]:
    """Run an ablation in this process; its exit code and the tasks it started."""
    started: list[str] = []

    def launch(task: Task) -> Worker:
        started.append(f"{Path(task.config.run).name.rpartition('-')[0]}@{task.until}")
        return Inline(task, task_done)

    return ablate(ablation, launch=launch, workers=2, **options), started


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation that was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "runs" / "ablation"
    code, started = do(open_small(dataset, out))
    assert code == 0
    # The permuted variant needs no training, and both windows are trained for themselves.
    assert started == ["base.s1.w0@None", "base.s1.w1@None", "short.s1.w0@None", "short.s1.w1@None"]
    return out


@pytest.fixture(autouse=True)
def no_pictures(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first report has drawn them all; later ones need none."""
    monkeypatch.setattr("ctr.ablate.report.draw_all", lambda results: {})


def test_the_report_has_all_its_parts(whole: Path) -> None:
    names = {p.name for p in (whole / "report").iterdir()}
    assert names == {"index.html", "report.md", "results.json", "deltas.png", "windows.png", "cost.png",
                     "slices.png", "lines.jsonl"}  # fmt: skip
    found = json.loads((whole / "report" / "results.json").read_text())
    assert [v["name"] for v in found["variants"]] == ["base", "short", "permuted"]
    short = found["variants"][1]
    assert short["metrics"]["auc"]["rows"] > 300 and len(short["delta_auc_by_window"]) == 2
    assert short["cost"]["flops_per_row"] < found["variants"][0]["cost"]["flops_per_row"]
    assert short["cost"]["wall"]["peak_mib"] > 100
    assert {s["slice"] for s in found["slices"]} == {"history", "known_user", "item_age"}


def test_its_lines_make_the_table_of_a_page(whole: Path) -> None:
    lines = read_lines(whole / "report" / "lines.jsonl")
    assert sorted(line.variant or "base" for line in lines) == ["base", "permuted", "short"]
    found = json.loads((whole / "report" / "results.json").read_text())
    own = {v["name"]: v for v in found["variants"]}
    for line in lines[1:]:
        told = own[str(line.variant)]["metrics"]["auc"]
        assert float(line.metrics["auc"].difference or 0) == told["delta"]
        assert line.metrics["auc"].verdict == told["verdict"] and line.seeds and line.commit
    head, _, base, *others = ablation_table(lines).splitlines()
    assert head.startswith("| variant | AUC | difference | 95 % from") and base.startswith("| base | 0.")
    assert len(others) == 2 and "tracking" not in (lines[0].settings or {})["base"]


def test_a_second_call_trains_nothing_and_says_the_same(dataset: Path, whole: Path) -> None:
    before = results_of(whole)
    assert do(open_small(dataset, whole)) == (0, [])
    assert results_of(whole) == before


@pytest.mark.slow
def test_killed_between_and_inside_trainings_it_ends_with_the_same_report(
    dataset: Path, whole: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Nothing below may catch it."""

    left = [work, lambda task: work(Task(task.config, 3, [])), None]  # one whole, one to step 3, then dead

    def dying(task: Task) -> int:
        step = left.pop(0)
        if step is None:
            raise Killed
        code = step(task)
        if task.until is None and not (Path(task.config.run) / "predictions" / "test.parquet").is_file():
            raise Killed
        return code

    with pytest.raises(Killed):
        do(open_small(dataset, tmp_path), dying)
    code, started = do(open_small(dataset, tmp_path))
    assert (code, started) == (0, ["base.s1.w1@None", "short.s1.w0@None", "short.s1.w1@None"])
    assert results_of(tmp_path) == results_of(whole)


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished ablation, to be gone on with."""
    return Path(shutil.copytree(whole, tmp_path / "runs" / "ablation"))


def test_a_variant_that_fails_is_named_and_the_others_are_compared(
    dataset: Path, again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in again.glob("subruns/short*"):
        shutil.rmtree(path)
    code, started = do(open_small(dataset, again, slices=[]), lambda task: 4)
    assert (code, started) == (4, ["short.s1.w0@None", "short.s1.w1@None"])
    assert "short: failed, exit code 4" in capsys.readouterr().out
    found = results_of(again)
    assert [v["name"] for v in found["variants"]] == ["base", "permuted"]
    assert list(found["failed"]) == ["short"]


def test_without_its_base_nothing_is_compared(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(CtrError, match="the base must train") as caught:
        do(open_small(dataset, tmp_path), lambda task: 4)
    assert caught.value.exit_code == 4 and not (tmp_path / "report" / "index.html").exists()


def test_the_same_run_under_other_names_is_trained_once(dataset: Path, again: Path) -> None:
    lengths = {"view": 2, "cart": 2, "search": 2}
    variants = {"twin": {"max_len": {"view": 8}}, "a": {"max_len": 2}, "b": {"max_len": lengths}}
    assert do(open_small(dataset, again, slices=[], variants=variants)) == (0, [])
    found = {v["name"]: v for v in results_of(again)["variants"]}
    assert found["twin"]["same_as_base"] and not found["twin"]["metrics"]
    assert found["a"]["metrics"]["auc"]["delta"] == found["b"]["metrics"]["auc"]["delta"] != 0


@pytest.mark.slow
def test_a_short_budget_stops_the_worse_half_by_validation(dataset: Path, tmp_path: Path) -> None:
    variants = {name: {"max_len": n} for name, n in (("a", 2), ("b", 3), ("c", 4))}
    ablation = open_small(dataset, tmp_path, windows=1, slices=[], variants=variants)
    code, started = do(ablation, budget=1e-6)
    stopped = results_of(tmp_path)["stopped"]
    assert (code, [s["share"] for s in stopped]) == (0, [0.25, 0.5])
    assert all(s["value"] <= s["kept"] for s in stopped)
    finished = {v["name"] for v in results_of(tmp_path)["variants"]}
    assert finished == {"base", *variants} - {s["variant"] for s in stopped} and len(finished) == 2
    assert {name for name in started if name.endswith("@None")} == {f"{n}.s1.w0@None" for n in finished}
    code, started = do(ablation, budget=1e-6)  # the decisions stay
    assert (code, started) == (0, []) and results_of(tmp_path)["stopped"] == stopped
    assert len(ablation.unfinished(ablation.names)) == 2  # and can be taken up without a budget


def test_a_budget_that_suffices_stops_nothing(dataset: Path, again: Path, whole: Path) -> None:
    assert do(open_small(dataset, again), budget=1e9) == (0, [])
    assert results_of(again) == results_of(whole)


def test_a_dry_run_lists_and_does_nothing(dataset: Path, whole: Path, tmp_path: Path) -> None:
    text = dry_run(open_small(dataset, tmp_path / "new"), 2)
    assert "3 variants, 4 trainings" in text and "base.s1.w1" in text and "no training  permuted" in text
    assert "minutes" in text and not (tmp_path / "new").exists()
    assert dry_run(open_small(dataset, whole), 2).count("done") == 4


def test_mlflow_gets_one_parent_and_nested_children(
    dataset: Path, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake_server(monkeypatch)
    base = {"dataset": str(dataset), **BASE, "tracking": {"uri": "fake:a", "log_every": 4}}
    for _ in range(2):  # sent again, nothing changes
        assert do(open_small(dataset, again, base=base, slices=[])) == (0, [])
    parent, children = family(server, "ablation")
    variants = sorted(run.tags["variant"] for run in children)
    assert variants == ["base, permuted", "base, permuted", "short", "short"]
    assert {key for run in children for key, *_ in run.values()} >= {"test/auc", "train/loss"}
    keys = [key for key, *_ in parent.values()]
    assert "ablation/short/auc/delta" in keys and len(keys) == len(set(keys))
    assert any(place == "report" for _, place in parent.artifacts)


def test_wrong_plans_are_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = small_plan(dataset, tmp_path / "out").model_dump(mode="json")
    file = tmp_path / "plan.yaml"
    for change, names in (
        ({"variants": {"bad": {"set": {"model.d_model": 10}}}}, ["variant bad", "D=10"]),
        ({"variants": {"long": {"max_len": {"view": 999}}}}, ["variant long", "999"]),
        ({"windows": 5000}, ["use fewer"]),
    ):
        file.write_text(dump_yaml({**plan, **change}))
        assert main(["ablate", str(file)]) == 2
        error = capsys.readouterr().err
        assert all(name in error for name in names) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sigkill_of_the_real_command(dataset: Path, whole: Path, tmp_path: Path) -> None:
    """Killed with its workers at work; they end, too, and the same command ends with the same report."""
    file = tmp_path / "plan.yaml"
    file.write_text(dump_yaml(small_plan(dataset, tmp_path / "out").model_dump(mode="json")))
    command = [sys.executable, "-m", "pipelines.cli", "ablate", str(file), "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subruns = tmp_path / "out" / "subruns"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not list(subruns.glob("*/predictions/test.parquet")) and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for lock in subruns.glob("*/lock"):
        with lock.open() as file:  # waits until the worker, which saves first, has ended and freed it
            fcntl.flock(file, fcntl.LOCK_EX)
    finished = {path: path.stat().st_mtime_ns for path in subruns.glob("*/predictions/test.parquet")}
    assert 0 < len(finished) < 4
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert results_of(tmp_path / "out") == results_of(whole)
    # One that had its predictions is not run again, whether its worker came to write its last row or not.
    again = [run for run in subruns.iterdir() if run / "predictions" / "test.parquet" not in finished]
    journals = [read_rows(run / "journal.jsonl") for run in again]
    assert journals and all(rows[-1]["wall"].get("status") == "FINISHED" for rows in journals)
