"""Two and three gloo processes on this machine: they train what one process trains, and end together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr.checkpoint.checkpoint import load_latest, steps
from ctr.distributed.world import World
from ctr.runs.journal import read_rows
from ctr.runs.versions import fbgemm_available
from pipelines.train import train
from tests.ctr import rank_jobs
from tests.ctr.ranks import Ending, run_ranks, start_ranks, torchrun
from tests.ctr.tasks_on_disk import write_tasks
from tests.ctr.tiny_run import endings, tiny_config, tiny_dataset, write_config

# A large eps: where the gradient is nothing but rounding, Adam would turn its sign into whole steps.
EPS = ("optimizer.eps=0.001", "optimizer.ema_decay=0.9")
COMMON = (*EPS, "train.evaluate_every=6", "train.checkpoint_every=4")
RUNS = {
    "in step": COMMON,
    "stale": (*COMMON, "optimizer.dense_staleness=1", "embedding.optimizer=adam", "embedding.eps=0.001"),
    "fewer requests than ranks": (*EPS, "loader.batch_rows=3", "train.max_steps=5"),
    "many buckets": (
        *EPS,
        "distributed.bucket_mb=0.001",
        "train.max_steps=4",
        "loader.id_dropout={item: 0.3}",
    ),
}
# Labels of one task are known of some rows alone, so that its losses are means over other rows.
RUNS["tasks"] = (
    *EPS,
    "tasks.kind=esmm",
    "tasks.use=[click, buy]",
    "tasks.weights=learned",
    "train.max_steps=4",
)
if fbgemm_available():
    SHARDED = ("embedding.engine=torchrec", "embedding.sharding=row_wise", "train.save_in_background=true")
    RUNS["sharded"] = (*EPS, *SHARDED, "train.max_steps=4", "train.evaluate_every=3")
    RUNS["started"] = (*EPS, *SHARDED, "train.max_steps=2", "seed=9")  # from the first run
# What ranks compute in parts, one process computes in one piece.
IN_PARTS = {
    name: ("loader.micro_batches=2",) for name in ("stale", "many buckets", "tasks", "sharded", "started")
}
SKIPPING = (*COMMON, "train.non_finite=skip", "optimizer.dense_staleness=1")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs by one process."""
    folder = tmp_path_factory.mktemp("alone")
    write_tasks(folder)
    for name, options in RUNS.items():
        train(tiny_config(dataset, folder / name, *options, *start_of(name, folder)))
    return folder


def start_of(name: str, alone: Path) -> tuple[str, ...]:
    """The option of a run that starts from another, or is of the data set with several tasks."""
    found = {"started": f"init.run={alone / 'in step'}", "tasks": f"dataset={alone / 'dataset'}"}
    return (found[name],) if name in found else ()


def results(found: list[Ending]) -> list[Any]:
    assert [ending.error for ending in found] == [None] * len(found)
    return [ending.result for ending in found]


def close(one: Path, other: Path) -> None:
    """Checkpoints: dense within 1e-6, tables within 1e-4 of their mean size; the journals' figures too."""
    ours, theirs = load_latest(one / "checkpoints"), load_latest(other / "checkpoints")
    assert ours is not None and theirs is not None and ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in theirs.tensors.items():
        if not name.startswith("rng/"):
            size = tensor.double().abs().mean().item()
            bound = 1e-4 * size if name.startswith("tables/") else 1e-6
            difference = (ours.tensors[name].double() - tensor.double()).abs().max().item()
            assert difference <= bound, f"{name}: {difference:g}"
    pairs = zip(figures(one), figures(other), strict=True)
    for (kind, step, ours_row), (other_kind, other_step, their_row) in pairs:
        assert (kind, step, ours_row.keys()) == (other_kind, other_step, their_row.keys())
        for key, value in their_row.items():
            assert ours_row[key] == pytest.approx(value, rel=1e-4, abs=1e-6), (kind, step, key)


def figures(run: Path) -> list[tuple[str, int, dict[str, Any]]]:
    rows = [row for row in read_rows(run / "journal.jsonl") if row["kind"] in ("train", "valid", "best")]
    hidden = ("kind", "step", "wall", "bytes_")  # what travels depends on the number of ranks
    return [(r["kind"], r["step"], {k: v for k, v in r.items() if not k.startswith(hidden)}) for r in rows]


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_job_of_several_equals_the_job_of_one(
    size: int, dataset: Path, alone: Path, tmp_path: Path
) -> None:
    """Weights, tables, averages and validation figures, with shares that may be empty."""
    other = {2: "stale", 3: "in step"}[size]  # the other size has it
    names = [name for name in RUNS if name != other]
    runs = {name: (*RUNS[name], *IN_PARTS.get(name, ()), *start_of(name, alone)) for name in names}
    found = results(run_ranks(size, rank_jobs.train_runs, dataset, tmp_path, runs))
    assert all(outcome == found[0] for outcome in found)
    for name in names:
        close(tmp_path / name, alone / name)
        assert endings(tmp_path / name) == ["FINISHED"]
        assert steps(tmp_path / name / "checkpoints") == steps(alone / name / "checkpoints")


@pytest.mark.fault(8)
def test_every_row_is_dealt_once_and_the_work_is_even(dataset: Path) -> None:
    found = results(run_ranks(3, rank_jobs.shares, dataset, ("loader.batch_rows=30",)))
    assert len({len(batches) for batches in found}) == 1
    seen: list[int] = []
    for parts in zip(*found, strict=True):
        rows = [len(row_ids) for _, row_ids, _ in parts]
        assert {total for total, _, _ in parts} == {sum(rows)}
        costs = [rows[rank] + events for rank, (_, _, events) in enumerate(parts)]
        assert max(costs) - min(costs) <= 3 + 6  # one request: at most 3 rows and 6 events
        seen += [row for _, row_ids, _ in parts for row in row_ids]
    whole = [row for total, rows, _ in _one_process(dataset) for row in rows]
    assert sorted(seen) == sorted(whole) and len(seen) == len(set(seen))


def _one_process(dataset: Path) -> list[tuple[int, list[int], int]]:
    return rank_jobs.shares(World.single(), dataset, ("loader.batch_rows=30",))


def test_scores_are_those_of_one_process_bit_by_bit(dataset: Path, alone: Path) -> None:
    """More ranks than batches at the end: some score nothing in the last step."""
    arguments = (dataset, alone / "in step", RUNS["in step"])
    found = results(run_ranks(3, rank_jobs.score, *arguments))
    assert found[0] == rank_jobs.score(World.single(), *arguments) and found[1:] == [None, None]


def test_collectives_replicas_and_randomness(dataset: Path) -> None:
    """Plain data of all ranks; and copies of the weights and tables that stay equal bit by bit."""
    options = ("model.dropout=0.3", "distributed.bucket_mb=0.001", "optimizer.dense_staleness=1")
    one = start_ranks(2, rank_jobs.helpers)
    two = start_ranks(3, rank_jobs.replicas, dataset, options)
    first, second = results(one())
    assert first.pop("gathered") == [{"x": [], "y": [[0, 0]]}, {"x": [0.0, 1.0], "y": [[1, 1]]}]
    assert second.pop("gathered") == [] and first == second
    assert first == {
        "sum": [2.0, 1.0],
        "sums": [1.0, 1.0],
        "largest": 10,
        "first": {"from": 0, "nothing": None},
        "copied": [5.0],
    }
    assert results(two()) == [[], [], []]


@pytest.mark.fault(3, 17)
def test_ranks_skip_and_stop_together(dataset: Path, alone: Path, tmp_path: Path) -> None:
    """A bad loss on one rank drops the step on all; a signal to one stops all."""
    skip = start_ranks(2, rank_jobs.skip_on_last_rank, dataset, tmp_path / "skip", SKIPPING)
    stop = start_ranks(2, rank_jobs.stop_on_last_rank, dataset, tmp_path / "stop", RUNS["in step"])
    total = results(skip())
    assert total[0] == total[1]
    rows = [r for r in read_rows(tmp_path / "skip" / "journal.jsonl") if r["kind"] == "train"]
    assert rows[-1]["skipped"] == 2
    ends = results(stop())
    assert ends[0] == ends[1] == [15, 6, None, ends[0][3]]  # signalled while step 5 is shown: after step 6
    assert endings(tmp_path / "stop") == ["KILLED", "FINISHED"]
    close(tmp_path / "stop", alone / "in step")


@pytest.mark.fault(35)
@pytest.mark.parametrize("how", ["killed", "silent", "mistaken"])
def test_a_lost_rank_ends_the_others_with_a_clear_message(how: str) -> None:
    found = run_ranks(3, rank_jobs.die, how, timeout=3.0)
    for survivor in found[:2]:
        assert survivor.exit_code == 75 and survivor.error is not None
        assert (
            "all 3 ranks must answer within 3 s" in survivor.error and "Start the job again" in survivor.error
        )


RESTARTING = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]


def restarted(dataset: Path, alone: Path, folder: Path, start: Callable[[str], tuple[str, str]]) -> None:
    """A job of which rank 0 is killed once, behind the checkpoint of step 8; `start` gives what it told."""
    config = write_config(folder / "run.yaml", dataset, folder / "run", *RUNS["stale"])
    out, err = start(str(config))
    assert out.count("trained 12 steps") == 1 and "resuming after step 8" in err
    assert endings(folder / "run") == ["FINISHED"]
    close(folder / "run", alone / "stale")


@pytest.mark.fault(35)
def test_torchrun_starts_again_after_a_killed_rank_and_ends_with_the_right_result(
    dataset: Path, alone: Path, tmp_path: Path
) -> None:
    """The command of the page, but that its ranks are forked."""

    def start(config: str) -> tuple[str, str]:
        options = [*RESTARTING, "--redirects=3", f"--log-dir={tmp_path / 'logs'}"]
        ended = torchrun(options, rank_jobs.command, "-m", "pipelines.train", config)
        assert ended == {0: 0, 1: 0}
        streams = [sorted(tmp_path.glob(f"logs/**/{name}.log")) for name in ("stdout", "stderr")]
        out, err = ("".join(path.read_text() for path in paths) for paths in streams)
        return out, err

    restarted(dataset, alone, tmp_path, start)


@pytest.mark.slow
def test_the_command_of_the_page(dataset: Path, alone: Path, tmp_path: Path) -> None:
    def start(config: str) -> tuple[str, str]:
        ranks = [sys.executable, "-m", "torch.distributed.run", *RESTARTING]
        environment = {**os.environ, "CTR_FAULT": rank_jobs.KILL, "OMP_NUM_THREADS": "1"}
        command = [*ranks, "-m", "pipelines.train", config]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout, done.stderr

    restarted(dataset, alone, tmp_path, start)
