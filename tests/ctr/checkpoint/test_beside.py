"""Readers beside a writer, and kills between its renames: one complete checkpoint at every instant."""

from __future__ import annotations

import errno
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ctr.checkpoint import load
from ctr.checkpoint.checkpoint import TENSORS, save_checkpoint
from ctr.checkpoint.directories import saved, settle, steps
from ctr.checkpoint.load import Checkpoint, load_best, load_checkpoint, load_latest, load_step
from ctr.errors import CheckpointError, RetryableError
from features.durable import sweep
from features.durable.faults import InjectedFault, injected

# The step is saved a second time, with other values; each of the renames in between is a place to die.
AGAIN = ("ckpt.again", "ckpt.aside", "ckpt.settle")
POINTS = [f"{name}.{when}_rename" for name in AGAIN for when in ("before", "after")]
# One process imports torch; it forks a child for each kill, so that the children start at once.
KILLED = """
import os, sys, torch
from pathlib import Path
from ctr.checkpoint.checkpoint import save_checkpoint
from features.durable.faults import injected
for order in sys.argv[2:]:
    point, first, second = order.split(",")
    root = Path(sys.argv[1]) / point
    def save(step, value):
        tensors = {"w": torch.full((50,), float(value))}
        save_checkpoint(root, int(step), tensors=tensors, state={}, keep_last=1)
    save(first, 1)
    if (pid := os.fork()) == 0:
        with injected(f"{point}:kill"):
            save(second, 2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9, point
"""
WRITER = """
import sys, torch
from pathlib import Path
from ctr.checkpoint.checkpoint import save_checkpoint
root, again = Path(sys.argv[1]), sys.argv[2:] == ["again"]
for count in range(1, 100_000):
    step = 1 + count // 2 if again else count
    best = {"best_step": step if step % 7 else None}
    tensors = {"w": torch.full((200_000,), float(step))}
    save_checkpoint(root, step, tensors=tensors, state={"progress": best, "step": step}, keep_last=1)
"""


def save(root: Path, step: int, value: float, **state: object) -> Path:
    return save_checkpoint(root, step, tensors={"w": torch.full((50,), value)}, state=state, keep_last=1)


def value(found: Checkpoint | None) -> float:
    assert found is not None
    return float(found.tensors["w"][0])


def killed(folder: Path, *orders: str) -> None:
    """Save twice below a folder per order `point,step,step`; the second time the job dies at the point."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", KILLED, str(folder), *orders], env=environment, check=True)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory per point in which step 7 was saved, and again until the kill."""
    folder = tmp_path_factory.mktemp("dead")
    killed(folder, *(f"{point},7,7" for point in POINTS))
    return folder


@pytest.mark.fault(44)
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_while_a_step_is_saved_again(point: str, dead: Path) -> None:
    """With `keep_last: 1` the only complete one is the old or the new, never none; then all goes on."""
    root = dead / point
    found = load_latest(root)
    assert found is not None and found.step == 7
    assert value(found) == (1.0 if point == "ckpt.again.before_rename" else 2.0)
    sweep(root)  # what the next job does first, and then:
    assert settle(found.path) == root / "step-7"
    assert os.listdir(root) == ["step-7"] and value(load_latest(root)) == value(found)
    save(root, 7, 3.0)
    assert os.listdir(root) == ["step-7"] and value(load_latest(root)) == 3.0


@pytest.mark.fault(44)
@pytest.mark.parametrize("point", POINTS)
def test_saving_again_needs_no_tidying_before(point: str, tmp_path: Path) -> None:
    save(tmp_path, 7, 1.0)
    with injected(f"{point}:raise"), pytest.raises(InjectedFault):
        save(tmp_path, 7, 2.0)
    save(tmp_path, 7, 3.0)
    assert saved(tmp_path) == [tmp_path / "step-7"] and value(load_latest(tmp_path)) == 3.0
    save(tmp_path, 8, 4.0)
    assert saved(tmp_path) == [tmp_path / "step-8"]


@pytest.mark.fault(44)
def test_a_kill_between_saving_and_deleting(tmp_path: Path) -> None:
    killed(tmp_path, point := "ckpt.aside.before_rename,1,2")
    root = tmp_path / point.partition(",")[0]
    assert steps(root) == [1, 2] and value(load_latest(root)) == 2.0
    save(root, 3, 3.0)
    assert steps(root) == [3]


def test_a_damaged_second_saving_gives_way_to_the_first(tmp_path: Path) -> None:
    save(tmp_path, 7, 1.0)
    with injected("ckpt.aside.before_rename:raise"), pytest.raises(InjectedFault):
        save(tmp_path, 7, 2.0)
    assert [path.name for path in saved(tmp_path)] == ["step-7", "step-7.1"]
    os.truncate(tmp_path / "step-7.1" / TENSORS, 20)
    assert value(load_latest(tmp_path)) == value(load_step(tmp_path, 7)) == 1.0


@pytest.fixture(params=["", "again"], ids=["each step", "each step twice"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory that another process saves into, keeping one."""
    root = tmp_path / "checkpoints"
    command = [sys.executable, "-c", WRITER, str(root), *([request.param] if request.param else [])]
    writer = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        while not steps(root) and writer.poll() is None:
            time.sleep(0.01)
        yield root
        assert writer.poll() is None, "the writer must still be writing"
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.fault(43)
@pytest.mark.slow
def test_two_hundred_opens_beside_a_writer(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No step is saved for longer than a moment; whoever reads never hears of damage."""
    dice, seen = random.Random(5), set()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            for open_it in (load_latest, load_best):
                found = open_it(written)
                assert found is not None and found.state["step"] == found.step
                assert bool((found.tensors["w"] == found.step).all())
                seen.add(found.step)
            time.sleep(dice.uniform(0.0, 0.02))
    assert caplog.text == "" and len(seen) > 20, "the writer must have been faster than the reader"


@pytest.mark.fault(43)
def test_a_reader_looks_again_when_what_it_listed_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the job goes on each time before the reader has opened what it saw."""
    save(tmp_path, 1, 1.0)
    todo = [2, 3, 4]

    def open_late(directory: Path, **options: object) -> Checkpoint:
        if todo:
            save(tmp_path, step := todo.pop(0), float(step))
        return load_checkpoint(directory)

    monkeypatch.setattr(load, "load_checkpoint", open_late)
    assert value(load_latest(tmp_path)) == 4.0 and not todo


@pytest.mark.fault(43)
def test_one_of_the_same_name_that_took_its_place_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 1.0)
    opened: list[Path] = []

    def broken_once(directory: Path, **options: object) -> Checkpoint:
        opened.append(directory)
        if len(opened) == 1:
            save(tmp_path, 1, 2.0)
            raise CheckpointError("half of the old one")
        return load_checkpoint(directory)

    monkeypatch.setattr(load, "load_checkpoint", broken_once)
    assert value(load_latest(tmp_path)) == 2.0


@pytest.mark.fault(43)
def test_the_best_step_that_was_replaced_by_a_better_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest still named the old best one when that was deleted."""
    save(tmp_path, 5, 5.0, progress={"best_step": 3})
    real = load.load_step

    def late(root: Path, step: int, **options: object) -> Checkpoint | None:
        found = real(root, step)
        if step == 3 and 6 not in steps(root):
            save(root, 6, 6.0, progress={"best_step": 6})
        return found

    monkeypatch.setattr(load, "load_step", late)
    assert value(load_best(tmp_path)) == 6.0


def test_a_best_step_that_is_gone_for_good_is_named(tmp_path: Path) -> None:
    save(tmp_path, 5, 5.0, progress={"best_step": 3})
    with pytest.raises(CheckpointError, match=r"must hold the best step 3 that step-5 names, but it is gone"):
        load_best(tmp_path)


@pytest.mark.fault(43)
def test_a_directory_that_never_rests_ends_with_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 1.0)

    def always_late(directory: Path, **options: object) -> Checkpoint:
        save(tmp_path, steps(tmp_path)[-1] + 1, 0.0)
        return load_checkpoint(directory)

    monkeypatch.setattr(load, "load_checkpoint", always_late)
    with pytest.raises(RetryableError, match=r"replaced each that was tried, 100 times") as caught:
        load_latest(tmp_path)
    assert caught.value.exit_code == 75


def test_to_delete_is_advised_only_after_reading_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = save(tmp_path, 1, 1.0)
    os.truncate(damaged / TENSORS, 20)
    read: list[Path] = []

    def counted(directory: Path, **options: object) -> Checkpoint:
        read.append(directory)
        return load_checkpoint(directory)

    monkeypatch.setattr(load, "load_checkpoint", counted)
    with pytest.raises(CheckpointError, match=r"all 1 .* are damaged, read twice"):
        load_latest(tmp_path)
    assert read == [damaged, damaged]


def test_what_the_disk_does_not_give_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 1.0)

    def broken_disk(path: Path, entry: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(load, "check_file", broken_disk)
    with pytest.raises(RetryableError, match=r"Input/output error.*mend the disk") as caught:
        load_latest(tmp_path)
    assert "delete" not in str(caught.value)


@pytest.mark.fault(31)
def test_what_memory_does_not_hold_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to delete what could not be mapped for want of memory."""
    save(tmp_path, 1, 1.0)

    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError("unable to mmap 200 bytes from file <w>: Cannot allocate memory (12)")

    monkeypatch.setattr("ctr.checkpoint.tensors.safe_open", no_room)
    with pytest.raises(MemoryError, match="cannot be mapped"):
        load_latest(tmp_path)
