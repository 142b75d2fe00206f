"""`ctr tune`: no test part in the search, finalists named before it is read, the same after a restart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.schedule import Worker
from ctr.ablate.task import Task
from ctr.runs.journal import read_rows
from ctr.tune.plan import TuningPlan, load_tuning_plan
from features.dataset import Dataset
from features.errors import ConfigError, CtrError
from features.safe_yaml import dump_yaml
from pipelines.ablate_worker import work
from pipelines.tune import tune
from tests.ctr.ablate.small import BASE, Inline, results_of, small_log

pytest.importorskip("optuna", reason="not installed: see requirements/tune.txt")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_log(tmp_path_factory.mktemp("tune"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr.tune.report.drawn", lambda figures: {})


def small_plan(dataset: Path, out: Path, **changes: Any) -> TuningPlan:
    """Three trials over a learning rate and a choice; one finalist, two seeds."""
    content: dict[str, Any] = {
        "name": "small",
        "base": {"dataset": str(dataset), **BASE},
        "out": str(out),
        "search": {
            "optimizer.lr": {"low": 1e-4, "high": 0.1, "log": True},
            "model.encoder": [{"kind": "swiglu"}, {"kind": "transformer"}],
        },
        "trials": 3,
        "startup": 2,
        "rungs": [0.5],
        "finalists": 1,
        "seeds": [1, 2],
    }
    return TuningPlan.model_validate({**content, **changes})


def do(plan: TuningPlan, task_done: Callable[[Task], int] = work) -> tuple[int, list[str]]:
    """Run a search in this process; its exit code and the tasks it started."""
    started: list[str] = []

    def launch(task: Task) -> Worker:
        test = "test" if task.until is None else "end" if task.until > 10**6 else str(task.until)
        started.append(f"{Path(task.config.run).name.partition('.w')[0]}@{test}")
        return Inline(task, task_done)

    return tune(plan, Dataset(Path(str(plan.base["dataset"]))), launch=launch, workers=1), started  # type: ignore[index]


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A search that was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "runs" / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctr.tune.report.drawn", lambda figures: {})
        code, started = do(small_plan(dataset, out))
    assert code == 0
    return out, started


def test_the_test_part_is_read_for_named_finalists_alone(whole: tuple[Path, list[str]]) -> None:
    out, started = whole
    searched = [name for name in started if not name.endswith("@test")]
    tested = [name for name in started if name.endswith("@test")]
    assert started == [*searched, *tested]  # all of the search comes first
    (row,) = [row for row in read_rows(out / "journal.jsonl") if row["kind"] == "finalists"]
    winner = f"trial-{row['trials'][0]}"
    assert sorted(tested) == sorted(f"{name}.s{seed}@test" for name in ("base", winner) for seed in (1, 2))
    there = {
        path.parent.parent.name.partition(".w")[0] for path in out.glob("subruns/*/predictions/test.parquet")
    }
    assert there == {name.removesuffix("@test") for name in tested}
    results = results_of(out)
    (promise,) = results["finalists"]
    best = max(t["value"] for t in results["trials"] if t["state"] == "complete")
    assert promise["searched"] == pytest.approx(best - results["base"])
    assert [line["name"] for line in results["test"]["variants"]] == ["base", winner]
    assert "promised" in (out / "report" / "report.md").read_text()


@pytest.mark.slow
def test_killed_it_asks_and_finds_the_same(
    whole: tuple[Path, list[str]], dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "search"

    class Killed(Exception):
        pass

    def after(limit: int) -> Callable[[Task], int]:
        left = [limit]

        def dies(task: Task) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return work(task)

        return dies

    for limit in (2, 2, 3):  # in trial 0, later, and among the finalists
        with pytest.raises(Killed):
            do(small_plan(dataset, out), after(limit))
    code, _ = do(small_plan(dataset, out))
    assert code == 0
    own, other = results_of(out), results_of(whole[0])
    for results in (own, other):
        results["plan"].pop("base"), results["test"].pop("plan")
    assert own == other


def test_without_its_base_nothing_is_searched(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(CtrError, match=r"the base must train, .*base.s1.*; see .*log.txt") as caught:
        do(small_plan(dataset, tmp_path / "out"), lambda task: 4)
    assert caught.value.exit_code == 4


@pytest.fixture
def without(whole: tuple[Path, list[str]], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the search without a report and without some of its trainings."""

    def copied(subruns: str) -> Path:
        out = Path(shutil.copytree(whole[0], tmp_path / "runs" / "search"))
        for path in (out / "report", *out.glob(f"subruns/{subruns}")):
            shutil.rmtree(path)
        return out

    return copied


def test_without_its_base_no_finalist_is_compared(dataset: Path, without: Callable[[str], Path]) -> None:
    out = without("base.s2*")
    with pytest.raises(CtrError, match="the base must train") as caught:
        do(small_plan(dataset, out), lambda task: 5)
    assert caught.value.exit_code == 5 and not (out / "report" / "index.html").exists()


def test_a_finalist_that_fails_is_named_and_gives_its_exit_code(
    dataset: Path, without: Callable[[str], Path]
) -> None:
    out = without("trial-*.s2*")  # the search had the other seed
    code, started = do(small_plan(dataset, out), lambda task: 5)
    assert code == 5 and len(started) == 1
    found = results_of(out)
    assert list(found["test"]["failed"]) == [started[0].partition(".")[0]] and not found["finalists"]


def test_another_search_is_refused_and_a_closed_one_stays_closed(
    whole: tuple[Path, list[str]], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = whole[0]
    with pytest.raises(ConfigError, match="begun with other values of seeds"):
        do(small_plan(dataset, out, seeds=[1, 3]))
    assert do(small_plan(dataset, out, trials=9)) == (0, [])
    assert "the search is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"optimizer.rate": [1, 2]}}, "optimizer.rate"),
        ({"base": {"train": {"data": "train+valid"}}}, "set it to train"),
    ],
)
def test_plans_that_cannot_be_searched(
    changes: dict[str, Any], message: str, dataset: Path, tmp_path: Path
) -> None:
    plan = small_plan(dataset, tmp_path / "out")
    base = {**plan.base, **changes.pop("base", {})}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=message):
        do(small_plan(dataset, tmp_path / "out", base=base, **changes))


@pytest.mark.parametrize(
    ("search", "by"),
    [
        ({"seed": {"low": 1, "high": 3}}, "`seeds`"),
        ({"dataset": ["a", "b"]}, "`set.dataset`"),
        ({"train": [{"epochs": 1}, {"metric": "ne"}]}, "train.metric: .*one metric"),
        ({"train.data": ["train", "train+valid"]}, "validation part"),
        ({"period.window": {"low": 0, "high": 1}}, "`windows`"),
    ],
)
def test_what_would_change_nothing_is_not_searched(search: dict[str, Any], by: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(dump_yaml({"name": "x", "base": {"dataset": "d"}, "search": search}))
    with pytest.raises(ConfigError, match=f"`search` of plan x must not set .*{by}"):
        load_tuning_plan(path)


def test_a_range_says_what_it_must_be() -> None:
    for wrong in ({"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}):
        with pytest.raises(ValueError, match="low"):
            TuningPlan.model_validate({"name": "x", "base": "y", "search": {"seed": wrong}})
    assert (
        json.loads(json.dumps(TuningPlan(name="x", base="y", search={"seed": (1, 2)}).fixed()))["name"] == "x"
    )
