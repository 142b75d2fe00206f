"""A run that is killed, at whatever moment, and started again ends with the same bits as one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.durable.faults import InjectedFault, injected
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tasks_on_disk import write_tasks
from tests.ctr.tiny_run import STEPS_PER_EPOCH, endings, outcome_of, tiny_config, tiny_dataset, write_config
from tests.forks import run_command

# Everything that has a state of its own.
FULL = (
    "model.dropout=0.3",
    "model.feature_dropout=0.2",
    "optimizer.ema_decay=0.95",
    "embedding.optimizer=adam",
    "train.evaluate_every=4",
    "train.checkpoint_every=3",
    "train.epochs=3",
)
VARIANTS = {
    "plain": ("train.checkpoint_every=2",),
    "full": FULL,
    "time order": ("loader.order=time", "train.checkpoint_every=5"),
    "early stopping": (
        "train.evaluate_every=2",
        "train.early_stopping=2",
        "train.epochs=4",
        "optimizer.lr=0.3",
    ),
    "longer, two threads, equal average": (
        "model.kind=longer",
        "train.swa={start: 0.4, every: 2}",
        "model.column_gates={l1: 0.05}",
        "loader.workers=2",
        "train.checkpoint_every=1",
        "model.dropout=0.2",
    ),
    "OneTrans, packed": (
        "model.kind=one_trans",
        "model.d_model=16",
        "model.layers=3",
        "model.pyramid_step=2",
        "model.dropout=0.2",
        "train.checkpoint_every=2",
        "train.epochs=1",
    ),
    "MTGR": (
        "model.kind=hstu",
        "model.action_tokens=added",
        "model.group_norm=true",
        "train.checkpoint_every=2",
        "train.epochs=1",
    ),
    "DIEN, DCNv2": (
        "model.kind=grid",
        "model.layers=2",
        "model.sequence.kind=dien",
        "model.interaction.kind=dcn",
        "model.dropout=0.2",
        "train.checkpoint_every=2",
        "train.epochs=1",
    ),
    "skipped steps": ("train.non_finite=skip", "train.checkpoint_every=3", "train.max_skipped=3"),
    "stale": (
        "optimizer.dense_staleness=1",
        "optimizer.ema_decay=0.9",
        "model.dropout=0.2",
        "loader.micro_batches=2",
        "loader.id_dropout={item: 0.3}",
        "train.checkpoint_every=3",
        "train.non_finite=skip",
        "train.save_in_background=true",
    ),
    "tables drawn anew": (
        "embedding.restart=[item, tag]",
        "embedding.optimizer=adam",
        "train.epochs=3",
        "train.checkpoint_every=3",
    ),
    "bf16": ("train.precision=bf16", "train.checkpoint_every=4", "model.dropout=0.1"),
}
SLOW = ("plain", "time order", "bf16", "OneTrans, packed", "MTGR", "DIEN, DCNv2")
IN_A_SAVE = (
    "ckpt.before_data",
    "ckpt.after_data",
    "ckpt.after_manifest",
    "ckpt.before_rename",
    "ckpt.after_rename",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def skipped(name: str) -> str:
    """Steps whose loss is made NaN in both runs."""
    return "loss:3:nan,loss:8:nan,loss:9:nan" if name in ("skipped steps", "stale") else ""


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in VARIANTS]
)
def test_interrupted_run_equals_the_uninterrupted_one(
    name: str, dataset: Path, tmp_path: Path, chaos_seed: int
) -> None:
    """Broken off by an error inside its first save and at two steps."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with injected(skipped(name)):
        train(tiny_config(dataset, whole, *VARIANTS[name]))
    last = outcome_of(whole)["steps"][-1]
    draw = random.Random(f"{name} {chaos_seed}")
    points = [f"{draw.choice(IN_A_SAVE)}:raise"]  # the first save
    points += [
        f"step:{step}:raise" for step in sorted(draw.sample(range(last // 2, last), 2))
    ]  # none before the first save
    config = tiny_config(dataset, broken, *VARIANTS[name])
    for point in points:
        with injected(f"{skipped(name)},{point}"), pytest.raises(InjectedFault):
            train(config)
    with injected(skipped(name)):
        train(config)
    assert outcome_of(broken) == outcome_of(whole)
    assert endings(broken)[-1] == "FINISHED"


def test_a_run_of_several_tasks_goes_on_bit_by_bit(tmp_path: Path) -> None:
    """With the losses of each task since the last row of the journal, learned weights and calibrators."""
    options = ("tasks.kind=mmoe", "tasks.weights=learned", "tasks.use=[click, buy]", "calibration=platt")
    often = ("train.checkpoint_every=1", "train.evaluate_every=4", "tracking.log_every=4", "train.epochs=1")
    data, whole, broken = write_tasks(tmp_path), tmp_path / "whole", tmp_path / "broken"
    train(tiny_config(data, whole, *options, *often))
    with injected("step:3:raise"), pytest.raises(InjectedFault):
        train(tiny_config(data, broken, *options, *often))
    train(tiny_config(data, broken, *options, *often))
    assert outcome_of(broken) == outcome_of(whole)


def killed_runs_equal(dataset: Path, folder: Path, faults: Sequence[str]) -> None:
    """Run the command with a kill -9 at each fault, then without; compare with a run of this process."""
    whole, run = folder / "whole", folder / "run"
    config = write_config(folder / "run.yaml", dataset, run, *FULL)
    for fault in faults:
        done = run_command("train", str(config), fault=fault)
        assert done.code == -signal.SIGKILL, (fault, done.err)
    done = run_command("train", str(config))
    assert done.code == 0, done.err
    train(tiny_config(dataset, whole, *FULL))
    assert outcome_of(run) == outcome_of(whole), faults
    assert main(["predict", str(run)]) == main(["predict", str(whole)]) == 0
    tables = [pq.read_table(path / "predictions" / "test.parquet") for path in (run, whole)]
    assert tables[0].equals(tables[1]) and tables[0].num_rows > 0
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.fault(1, 2)
def test_kill_9_at_a_step_and_inside_a_save(
    dataset: Path, tmp_path: Path, counted: Callable[..., None]
) -> None:
    killed_runs_equal(dataset, tmp_path, ["step:5:kill", "ckpt.before_rename:12:kill"])
    counted(kills=2)


@pytest.mark.fault(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_kill_9_anywhere(
    number: int, dataset: Path, tmp_path: Path, chaos_seed: int, counted: Callable[..., None]
) -> None:
    """Steps in rising order, so that each is reached; saves happen at multiples of 3 and 4."""
    draw, last = random.Random(f"{number} {chaos_seed}"), 3 * STEPS_PER_EPOCH
    saves = [step for step in range(STEPS_PER_EPOCH, last) if step % 3 == 0 or step % 4 == 0]
    at_steps = [(step, f"step:{step}:kill") for step in draw.sample(range(STEPS_PER_EPOCH, last), 2)]
    in_saves = [(step, f"{draw.choice(IN_A_SAVE)}:{step}:kill") for step in draw.sample(saves, 3)]
    in_loader = f"loader.batch:{draw.randrange(STEPS_PER_EPOCH)}:kill"
    faults = [in_loader, *(fault for _, fault in sorted(at_steps + in_saves))]
    killed_runs_equal(dataset, tmp_path, faults)
    counted(kills=len(faults))


@pytest.mark.fault(3)
@pytest.mark.slow
def test_sigterm_from_outside(dataset: Path, tmp_path: Path) -> None:
    """kill -TERM of a real process: exit 143 soon, saved at its last step, and resumed to the same end."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    config = write_config(tmp_path / "run.yaml", dataset, run, *FULL)
    environment = {**os.environ, "CTR_FAULT": "step:7:sleep=20", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "train", str(config)], env=environment)
    try:
        while not (run / "checkpoints" / "step-6").is_dir() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    finally:
        process.kill()
    assert endings(run) == ["KILLED"]
    assert run_command("train", str(config)).code == 0
    train(tiny_config(dataset, whole, *FULL))
    assert outcome_of(run) == outcome_of(whole)
