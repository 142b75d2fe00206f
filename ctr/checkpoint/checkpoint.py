"""Checkpoints that are either whole and proven, or not there.

A checkpoint is a directory ``step-N`` with ``tensors.safetensors``, ``state.json`` and ``manifest.json``;
each further rank of a job adds a ``tensors-RANK.safetensors`` with its shards. It is written under a
temporary name, hashed, forced to the disk and renamed when every rank has finished, so a kill at any moment
leaves the earlier ones as they were (`ctr.checkpoint.directories`). Loading (`ctr.checkpoint.load`) checks
every byte against the manifest first, and reads only safetensors and JSON: nothing is unpickled. All ranks
see one directory, on a file system that they share.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ctr.checkpoint.directories import discard, named_step, publish, saved, steps
from ctr.checkpoint.load import Checkpoint, load_best, load_checkpoint, load_latest, load_step
from ctr.checkpoint.manifest import (
    MANIFEST,
    MAX_JSON_BYTES,
    STATE,
    TENSORS,
    CheckpointManifest,
    StoredLayout,
    describe_file,
    tensors_file,
)
from ctr.checkpoint.tensors import write_tensors
from ctr.distributed.on_all_ranks import run_on_all_ranks
from ctr.distributed.shards import Sharded, copied
from ctr.distributed.world import World
from ctr.errors import RetryableError
from features.durable import TMP_PREFIX, canonical_json, fsync_path, remove, write_file
from features.durable.faults import fault_point

__all__ = [
    "MANIFEST",
    "STATE",
    "TENSORS",
    "Checkpoint",
    "Snapshot",
    "load_best",
    "load_checkpoint",
    "load_latest",
    "load_step",
    "save_checkpoint",
    "steps",
    "write_snapshot",
]


@dataclass(frozen=True)
class Snapshot:
    """What one rank has to save, in memory that training does not touch."""

    whole: dict[str, Tensor]  # of the first rank only: all have the same
    sharded: dict[str, Sharded]
    state: bytes

    @classmethod
    def take(
        cls, tensors: Mapping[str, Tensor | Sharded], state: Mapping[str, Any], *, first: bool = True
    ) -> Snapshot:
        """Copy the present values into CPU memory.

        Raises:
            ValueError: what could not be read back: a reserved name, or data that is no strict, short JSON.
        """
        if "__metadata__" in tensors:
            raise ValueError("no tensor may be named __metadata__: the safetensors format uses it itself")
        state_bytes = canonical_json(dict(state))
        if len(state_bytes) > MAX_JSON_BYTES:
            raise ValueError(
                f"state must take at most {MAX_JSON_BYTES} bytes of JSON, got {len(state_bytes)}; "
                f"move arrays to tensors"
            )
        whole = {n: copied(t) for n, t in tensors.items() if first and not isinstance(t, Sharded)}
        sharded = {n: t.copy() for n, t in tensors.items() if isinstance(t, Sharded)}
        return cls(whole, sharded, state_bytes)


def save_checkpoint(
    root: Path,
    step: int,
    *,
    tensors: Mapping[str, Tensor | Sharded],
    state: Mapping[str, Any],
    keep_last: int = 3,
    keep: Collection[int] = (),
    world: World | None = None,
) -> Path:
    """Write ``root/step-N`` and delete what is no longer wanted; every rank calls it and writes its part.

    A checkpoint of the same step is replaced. Those of later steps belong to a course that was given up when
    training resumed from an earlier one: they go too, unless `keep` names them.

    Args:
        root: the directory of all checkpoints of the run.
        step: the last finished step.
        tensors: any shapes, dtypes and devices, stored bit by bit; those that share memory are stored apart.
            A plain tensor is the same on every rank and written once, a sharded one part by part.
        state: strict JSON, so no NaN; tuples come back as lists. The first rank's is written.
        keep_last: how many of the newest stay, this one among them.
        keep: steps that stay whatever their age, such as the best one.
        world: the processes that save together; None for this one alone.

    Returns:
        The directory of the checkpoint.

    Raises:
        RetryableError: a rank's disk is full or fails; the earlier checkpoints are untouched and no half is
            left.
    """
    world = world or World.single()
    snapshot = Snapshot.take(tensors, state, first=world.first)
    return write_snapshot(root, step, snapshot, keep_last=keep_last, keep=keep, world=world)


def write_snapshot(
    root: Path, step: int, snapshot: Snapshot, *, keep_last: int, keep: Collection[int], world: World
) -> Path:
    """The part of `save_checkpoint` that takes its time and touches nothing of the training."""
    if step < 0 or keep_last < 1:
        raise ValueError(f"step must be >= 0 and keep_last >= 1, got {step} and {keep_last}")
    temporary = root / world.broadcast_json(f"{TMP_PREFIX}step-{step}-{uuid.uuid4().hex[:8]}")

    def open_directory() -> None:
        if world.first:
            root.mkdir(exist_ok=True)
            temporary.mkdir()

    def finish() -> None:
        if world.first:
            _seal(temporary, step, reports, snapshot.sharded)
            publish(temporary, root, step)
            _prune(root, step, keep_last, set(keep))

    try:
        run_on_all_ranks(world, open_directory, failure=OSError)
        reports = run_on_all_ranks(
            world, lambda: _write(temporary, step, snapshot, world.rank), failure=OSError
        )
        run_on_all_ranks(world, finish, failure=OSError)
    except (OSError, SafetensorError) as error:
        raise RetryableError(
            f"the checkpoint of step {step} in {root} could not be written: {error}; earlier ones are "
            f"untouched, free space or mend the disk and run the command again"
        ) from error
    finally:
        if world.first:
            remove(temporary)
    return root / f"step-{step}"


def _write(directory: Path, step: int, snapshot: Snapshot, rank: int) -> dict[str, Any]:
    """Write one rank's files; returns their entries, and where which part of a tensor is."""
    fault_point("ckpt.before_data", step)
    parts = write_tensors(directory, rank, whole=snapshot.whole, sharded=snapshot.sharded)
    names = [tensors_file(rank)]
    if rank == 0:
        write_file(directory / STATE, snapshot.state)
        names.append(STATE)
    fault_point("ckpt.after_data", step)
    files = {name: describe_file(directory / name) for name in names}
    return {"files": files, "parts": {name: [vars(part) for part in own] for name, own in parts.items()}}


def _seal(directory: Path, step: int, reports: list[dict[str, Any]], sharded: Mapping[str, Sharded]) -> None:
    """Put the manifest to what all ranks have written."""
    files = {name: entry for report in reports for name, entry in report["files"].items()}
    layouts = {
        name: StoredLayout.from_json(
            {"shape": held.shape, "parts": [p for report in reports for p in report["parts"][name]]}
        )
        for name, held in sharded.items()
    }
    CheckpointManifest(step, files, layouts).write(directory)
    fault_point("ckpt.after_manifest", step)
    fsync_path(directory)


def _prune(root: Path, step: int, keep_last: int, keep: set[int]) -> None:
    upto = [found for found in steps(root) if found <= step]
    kept = {*upto[-keep_last:], *keep}
    for path in saved(root):
        if named_step(path) not in kept:
            discard(path)
