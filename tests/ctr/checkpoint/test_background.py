"""Checkpoints in the background, stored tensors, and manifests of several ranks; in one process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ctr.checkpoint.background import CheckpointWriter
from ctr.checkpoint.checkpoint import MANIFEST, load_checkpoint, load_latest, save_checkpoint, steps
from ctr.checkpoint.manifest import sealed
from ctr.checkpoint.restore import restore_rng, rng_state
from ctr.checkpoint.tensors import StoredTensor
from ctr.distributed.shards import Sharded, box
from ctr.distributed.world import World
from ctr.errors import CheckpointError, RetryableError
from features.durable.faults import InjectedFault, injected


def writer(root: Path) -> CheckpointWriter:
    return CheckpointWriter(root, world=World.single())


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path: Path) -> None:
    weights, state = torch.arange(6.0), {"step": [1]}
    saving = writer(tmp_path)
    with injected("ckpt.before_data:1:sleep=0.2"):
        saving.save(1, tensors={"w": weights, "again": weights[2:4]}, state=state)
        weights.zero_()
        state["step"].append(2)
        assert steps(tmp_path) == []  # still writing
        saving.wait()
    found = load_checkpoint(tmp_path / "step-1")
    assert found.tensors["w"].tolist() == [0, 1, 2, 3, 4, 5] and found.tensors["again"].tolist() == [2, 3]
    assert found.state == {"step": [1]}


def test_saves_follow_one_another(tmp_path: Path) -> None:
    saving = writer(tmp_path)
    for step in range(1, 6):
        saving.save(step, tensors={"w": torch.full((3,), float(step))}, state={}, keep_last=2, keep={1})
    saving.wait()
    assert steps(tmp_path) == [1, 4, 5]
    assert load_latest(tmp_path).tensors["w"][0] == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(("action", "error"), [("enospc", RetryableError), ("raise", InjectedFault)])
def test_an_error_of_the_thread_surfaces_once(tmp_path: Path, action: str, error: type[Exception]) -> None:
    saving = writer(tmp_path)
    saving.save(1, tensors={}, state={})
    saving.wait()
    with injected(f"ckpt.after_data:2:{action}"):
        saving.save(2, tensors={"w": torch.ones(2)}, state={})
        with pytest.raises(error):
            saving.save(3, tensors={}, state={})
    assert os.listdir(tmp_path) == ["step-1"]
    saving.save(3, tensors={}, state={})
    saving.wait()
    assert steps(tmp_path) == [1, 3]


def test_only_the_part_that_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.arange(24.0).reshape(6, 4)
    whole = Sharded((6, 4), [((0, 0), table[:4]), ((4, 0), table[4:, :2]), ((4, 2), table[4:, 2:])])
    save_checkpoint(tmp_path, 1, tensors={"t": whole, "u": table}, state={})
    asked: list[Any] = []
    read = StoredTensor.__getitem__
    monkeypatch.setattr(
        StoredTensor, "__getitem__", lambda self, index: (asked.append(index), read(self, index))[1]
    )
    tensors = load_checkpoint(tmp_path / "step-1").tensors
    for name in ("t", "u"):
        held = Sharded((6, 4), [((3, 1), torch.zeros(2, 3)), ((0, 0), torch.zeros(1, 4))])
        held.load(tensors.stored(name))
        assert torch.equal(held.parts[0][1], table[3:5, 1:]) and torch.equal(held.parts[1][1], table[:1])
        assert asked == [box((3, 1), (2, 3)), box((0, 0), (1, 4))]
        asked.clear()
        assert torch.equal(tensors[name], table)
        asked.clear()
    assert [*tensors] == ["t", "u"] and tensors.within("t").keys() == {""}


def altered(root: Path, change: dict[str, Any]) -> Path:
    """A checkpoint of two parts whose manifest says something else, with a fitting seal."""
    parts = Sharded((4,), [((0,), torch.zeros(2)), ((2,), torch.ones(2))])
    path = save_checkpoint(root, 1, tensors={"t": parts}, state={})
    body = json.loads((path / MANIFEST).read_bytes())
    assert body.pop("seal") and body["format"] == 2
    body["sharded"]["t"]["parts"][1] |= change
    (path / MANIFEST).write_bytes(sealed(body))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": [1]}, "must be of format 1 or 2"),  # overlaps, and leaves a gap
        ({"offset": [3]}, "must be of format 1 or 2"),  # beyond the end
        ({"shape": [1]}, "must be of format 1 or 2"),
        ({"shape": [-2]}, "must be of format 1 or 2"),
        ({"offset": ["x"]}, "must be of format 1 or 2"),
        ({"file": "../secret"}, "must be of format 1 or 2"),
        ({"file": "state.json"}, "must be a readable checkpoint"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(altered(tmp_path, change))


def test_a_part_of_another_shape_than_listed_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(
        tmp_path, 1, tensors={"t": Sharded((2, 3), [((0, 0), torch.ones(2, 3))])}, state={}
    )
    body = json.loads((path / MANIFEST).read_bytes())
    del body["seal"]
    body["sharded"]["t"] = {"shape": [3, 2], "parts": [body["sharded"]["t"]["parts"][0] | {"shape": [3, 2]}]}
    (path / MANIFEST).write_bytes(sealed(body))
    with pytest.raises(CheckpointError, match=r"must hold t@0.0 of the manifest's shape \[3, 2\]"):
        load_checkpoint(path)


def test_parts_that_leave_a_gap_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold every element of \[3\] once"):
        save_checkpoint(tmp_path, 1, tensors={"t": Sharded((3,), [((0,), torch.ones(2))])}, state={})
    assert os.listdir(tmp_path) == []


def test_one_process_still_writes_the_first_format(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, tensors={"w": torch.ones(1)}, state={})
    body = json.loads((path / MANIFEST).read_bytes())
    assert body.keys() == {"format", "step", "files", "seal"} and body["format"] == 1


def test_a_rank_that_did_not_save_draws_numbers_of_its_own(tmp_path: Path) -> None:
    """Saved by one or two ranks, loaded by three: those beyond begin anew, each in its own way."""
    torch.manual_seed(5)
    one = {name: held for name, held in rng_state().items() if isinstance(held, torch.Tensor)}
    two = {"torch": torch.stack([one["torch"], one["torch"].flip(0)])}
    drawn = {}
    for rank in range(3):
        restore_rng(one, World(rank, 3, rank, torch.device("cpu")))
        drawn[rank] = torch.rand(4)
    restore_rng(one)
    assert torch.equal(torch.rand(4), drawn[0])
    assert not torch.equal(drawn[1], drawn[0]) and not torch.equal(drawn[1], drawn[2])
    restore_rng(two, World(2, 3, 2, torch.device("cpu")))
    assert torch.equal(torch.rand(4), drawn[2])
