from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ctr.checkpoint.checkpoint import (
    MANIFEST,
    STATE,
    TENSORS,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    steps,
)
from ctr.checkpoint.manifest import sealed
from ctr.errors import CheckpointError, RetryableError
from features.durable import sweep
from features.durable.faults import injected

POINTS = [
    "ckpt.before_data",
    "ckpt.after_data",
    "ckpt.after_manifest",
    "ckpt.before_rename",
    "ckpt.after_rename",
]
# One process imports torch; it forks a child for each kill, so that the children start at once.
KILLS = """
import os, random, sys, time, torch
from pathlib import Path
from ctr.checkpoint.checkpoint import save_checkpoint
from features.durable.faults import injected

def save(root, step, plan=""):
    with injected(plan):
        save_checkpoint(root, step, tensors={"w": torch.full((50_000,), float(step))}, state={"step": step})

def die_at(root, point):
    save(root, 1)
    save(root, 2, f"{point}:2:kill")

def save_on(root):
    for step in range(1, 10_000):
        save(root, step)

def child(root, work, *arguments):
    root.mkdir()
    pid = os.fork()
    if pid == 0:
        work(root, *arguments)
        os._exit(0)
    return pid

top, seed, points = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
for point in points:
    assert os.waitpid(child(top / point, die_at, point), 0)[1] == 9, point
dice = random.Random(seed)
for trial in range(20):
    pid = child(top / f"random-{trial}", save_on)
    while not (top / f"random-{trial}" / "step-1").exists():
        time.sleep(0.001)
    time.sleep(dice.uniform(0.0, 0.1))
    os.kill(pid, 9)
    assert os.waitpid(pid, 0)[1] == 9
"""


def save(root: Path, step: int, **options: int | set[int]) -> Path:
    tensors = {"w": torch.arange(12.0).reshape(3, 4) + step, "ids": torch.tensor([step])}
    return save_checkpoint(root, step, tensors=tensors, state={"step": step, "loss": 0.1}, **options)


def test_every_kind_of_tensor_comes_back_bit_by_bit(tmp_path: Path) -> None:
    weird = torch.tensor([0x7FC00001, -0x80000000, 1], dtype=torch.int32).view(
        torch.float32
    )  # NaN payload, -0, denormal
    shared = torch.arange(6.0)
    tensors = {
        "float": torch.randn(3, 2),
        "weird": weird,
        "bf16": torch.randn(5).bfloat16(),
        "half": torch.randn(2, 2).half(),
        "double": torch.randn(2, dtype=torch.float64),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "also empty": torch.empty(0),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "shared": shared,
        "view of shared": shared[2:4],
        "with gradient": torch.nn.Parameter(torch.ones(2)),
    }
    save_checkpoint(tmp_path / "c", 7, tensors=tensors, state={"a": [1, 0.1, None, "ü"], "b": {}})
    found = load_latest(tmp_path / "c")
    assert found is not None and found.step == 7 and found.state == {"a": [1, 0.1, None, "ü"], "b": {}}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got, want = found.tensors[name], tensor.detach().contiguous()
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        assert torch.equal(got.reshape(-1).view(torch.uint8), want.reshape(-1).view(torch.uint8)), name


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep_last=2, keep={3})
    assert steps(tmp_path) == [3, 6, 7]
    assert not list(tmp_path.glob(".tmp-*"))


def test_steps_are_ordered_as_numbers_and_later_ones_of_a_given_up_course_go(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        save(tmp_path, step)
    assert load_latest(tmp_path).step == 100  # type: ignore[union-attr]
    save(tmp_path, 11, keep_last=2)
    assert steps(tmp_path) == [10, 11]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, 1, tensors={"w": torch.ones(1)}, state={"again": True})
    found = load_latest(tmp_path)
    assert found is not None and found.state == {"again": True} and os.listdir(tmp_path) == ["step-1"]


@pytest.mark.fault(4)
def test_forty_flipped_bits_are_all_found(
    tmp_path: Path, chaos_seed: int, counted: Callable[..., None]
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    dice = random.Random(chaos_seed)
    for trial in range(40):
        path = newest / (TENSORS, STATE, MANIFEST)[trial % 3]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=path.name):
            load_checkpoint(newest)
        assert load_latest(tmp_path).step == 1  # type: ignore[union-attr]
        path.write_bytes(whole)
    assert load_latest(tmp_path).step == 2  # type: ignore[union-attr]
    counted(flips=40)


@pytest.mark.fault(4)
def test_warning_names_file_and_both_hashes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / TENSORS
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with caplog.at_level(logging.WARNING):
        load_latest(tmp_path)
    assert f"{path} is damaged" in caplog.text and "stepping back" in caplog.text
    assert len({word.strip(";") for word in caplog.text.split() if len(word.strip(";,")) == 64}) == 2


def drop(path: Path) -> None:
    (path / TENSORS).unlink()


def cut(path: Path) -> None:
    os.truncate(path / TENSORS, 20)


def empty_state(path: Path) -> None:
    (path / STATE).write_bytes(b"")


def no_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def renamed_step(path: Path) -> None:
    (path / MANIFEST).write_bytes(sealed(json.loads((path / MANIFEST).read_bytes()) | {"step": 9}))


def deep_manifest(path: Path) -> None:
    (path / MANIFEST).write_text("[" * 100_000)


def extra_file(path: Path) -> None:
    (path / "more.safetensors").write_bytes(b"")


def linked_file(path: Path) -> None:
    (path / TENSORS).rename(path.parent / "elsewhere")
    (path / TENSORS).symlink_to(path.parent / "elsewhere")


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "damage",
    [drop, cut, empty_state, no_manifest, renamed_step, deep_manifest, extra_file, linked_file],
)
def test_damage_steps_back_and_without_an_earlier_one_ends_with_5(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    assert load_latest(tmp_path).step == 1  # type: ignore[union-attr]
    damage(tmp_path / "step-1") if damage is not linked_file else drop(tmp_path / "step-1")
    with pytest.raises(CheckpointError, match=r"all 2 .* step-1\) are damaged, read twice") as caught:
        load_latest(tmp_path)
    assert caught.value.exit_code == 5


def test_no_checkpoint_at_all_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "absent") is None
    assert load_latest(tmp_path) is None


class Bomb:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.sentinel,))


@pytest.mark.fault(6)
@pytest.mark.parametrize("name", [".metadata", "model.pt", "python_model.pkl", TENSORS, STATE, MANIFEST])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "c", 1)
    bomb = pickle.dumps(Bomb(tmp_path / "sentinel"))
    (path / name).write_bytes(bomb)
    if name in (TENSORS, STATE):  # an attacker also fits the manifest
        manifest = json.loads((path / MANIFEST).read_bytes())
        manifest.pop("seal")
        manifest["files"][name] = {"sha256": hashlib.sha256(bomb).hexdigest(), "size": len(bomb)}
        (path / MANIFEST).write_bytes(sealed(manifest))
    with pytest.raises(CheckpointError, match="step-1"):
        load_checkpoint(path)
    assert not (tmp_path / "sentinel").exists()
    pickle.loads(bomb)
    assert (tmp_path / "sentinel").exists(), "the bomb must work for the test to mean something"


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_manifest_cannot_name_files_outside(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest.pop("seal")
    manifest["files"][name] = {"sha256": "0" * 64, "size": 0}
    (path / MANIFEST).write_bytes(sealed(manifest))
    with pytest.raises(CheckpointError, match=r"must be of format 1 or 2 and list"):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, chaos_seed: int) -> Path:
    """A folder per fault point, and 20 whose job was killed at a random time."""
    top = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLS, str(top), str(chaos_seed), *POINTS]
    subprocess.run(command, env=environment, check=True)
    return top


@pytest.mark.fault(2)
@pytest.mark.parametrize("point", POINTS)
def test_kill_at_any_point_leaves_a_valid_checkpoint(killed: Path, point: str) -> None:
    root = killed / point
    found = load_latest(root)
    expected = 2 if point == "ckpt.after_rename" else 1
    assert found is not None and found.step == expected and found.tensors["w"][0] == expected
    assert len(sweep(root)) == (point != "ckpt.after_rename")
    assert sorted(os.listdir(root)) == [f"step-{step}" for step in range(1, expected + 1)]


@pytest.mark.fault(2)
def test_kill_at_any_time_leaves_only_whole_checkpoints(killed: Path, counted: Callable[..., None]) -> None:
    saved = 0
    for root in killed.glob("random-*"):
        sweep(root)
        for step in steps(root):
            found = load_checkpoint(root / f"step-{step}")
            assert found.state == {"step": step} and bool((found.tensors["w"] == step).all())
            saved += 1
    assert saved >= 20
    counted(kills=20, checkpoints_left=saved)


@pytest.mark.fault(25)
@pytest.mark.parametrize("point", POINTS[:4])
def test_a_full_disk_leaves_the_directory_clean(tmp_path: Path, point: str) -> None:
    save(tmp_path, 1)
    with injected(f"{point}:enospc"), pytest.raises(RetryableError, match="No space left"):
        save(tmp_path, 2)
    assert os.listdir(tmp_path) == ["step-1"] and load_latest(tmp_path).step == 1  # type: ignore[union-attr]


@pytest.mark.fault(25)
def test_a_real_file_size_limit_leaves_the_directory_clean(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RetryableError, match="File too large"):
            save_checkpoint(tmp_path, 1, tensors={"w": torch.ones(9999)}, state={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


@pytest.mark.fault(26)
def test_a_vanished_run_directory_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="No such file"):
        save(tmp_path / "gone" / "checkpoints", 1)


@pytest.mark.parametrize(
    ("tensors", "state"),
    [({}, {"x": float("nan")}), ({"__metadata__": torch.ones(1)}, {}), ({}, {"x": "y" * 99})],
)
def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tensors: dict[str, torch.Tensor],
    state: dict[str, object],
) -> None:
    monkeypatch.setattr("ctr.checkpoint.checkpoint.MAX_JSON_BYTES", 99)
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path, 1, tensors=tensors, state=state)
    assert os.listdir(tmp_path) == []
