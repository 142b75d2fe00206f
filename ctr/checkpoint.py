"""Checkpoints that are either whole and proven, or not there.

A checkpoint is a directory ``step-N`` with ``tensors.safetensors``, ``state.json`` and ``manifest.json``. It
is written under a temporary name, hashed, forced to the disk and renamed, so a kill at any moment leaves the
earlier ones as they were. Loading checks every byte against the manifest first, and reads only safetensors
and JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import stat
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ctr.durable import TMP_PREFIX, canonical_json, fsync_path, remove, write_file
from ctr.errors import CheckpointError, RetryableError
from ctr.faults import fault_point

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
FORMAT = 1
MAX_JSON_BYTES = 64 * 2**20
_STEP = re.compile(r"step-(\d{1,15})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the last finished step, tensors by name (on the CPU), the rest as plain data."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    root: Path,
    step: int,
    *,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    keep_last: int = 3,
    keep: Collection[int] = (),
) -> Path:
    """Write ``root/step-N`` and delete what is no longer wanted.

    A checkpoint of the same step is replaced. Those of later steps belong to a course that was given up when
    training resumed from an earlier one: they go too, unless `keep` names them.

    Args:
        root: the directory of all checkpoints of the run.
        step: the last finished step.
        tensors: any shapes, dtypes and devices, stored bit by bit; those that share memory are stored apart.
        state: strict JSON, so no NaN; tuples come back as lists.
        keep_last: how many of the newest stay, this one among them.
        keep: steps that stay whatever their age, such as the best one.

    Returns:
        The directory of the checkpoint.

    Raises:
        RetryableError: the disk is full or fails; the earlier checkpoints are untouched and no half is left.
    """
    if step < 0 or keep_last < 1:
        raise ValueError(f"step must be >= 0 and keep_last >= 1, got {step} and {keep_last}")
    if "__metadata__" in tensors:
        raise ValueError("no tensor may be named __metadata__: the safetensors format uses this name itself")
    state_bytes = canonical_json(dict(state))
    if len(state_bytes) > MAX_JSON_BYTES:
        raise ValueError(
            f"state must take at most {MAX_JSON_BYTES} bytes of JSON, got {len(state_bytes)}; "
            f"move arrays to tensors"
        )
    target, temporary = root / f"step-{step}", root / f"{TMP_PREFIX}step-{step}-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(exist_ok=True)
        _write(temporary, step, tensors, state_bytes)
        replaced = _set_aside(target)
        temporary.rename(target)
        fsync_path(root)
        remove(replaced)
        fault_point("ckpt.after_rename", step)
        _prune(root, step, keep_last, set(keep))
    except (OSError, SafetensorError) as error:
        raise RetryableError(
            f"the checkpoint {target} could not be written: {error}; earlier ones are untouched, "
            f"free space or mend the disk and run the command again"
        ) from error
    finally:
        remove(temporary)
    return target


def _write(directory: Path, step: int, tensors: Mapping[str, torch.Tensor], state: bytes) -> None:
    directory.mkdir()
    fault_point("ckpt.before_data", step)
    save_file(_storable(tensors), directory / TENSORS)
    fsync_path(directory / TENSORS)
    write_file(directory / STATE, state)
    fault_point("ckpt.after_data", step)
    files = {
        name: {"sha256": _sha256(directory / name), "size": (directory / name).stat().st_size}
        for name in (TENSORS, STATE)
    }
    write_file(directory / MANIFEST, _sealed({"format": FORMAT, "step": step, "files": files}))
    fault_point("ckpt.after_manifest", step)
    fsync_path(directory)
    fault_point("ckpt.before_rename", step)


def _storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    stored: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return stored


def _sealed(body: dict[str, Any]) -> bytes:
    """The manifest with a hash of itself, so that a flipped bit in it is found too."""
    return canonical_json({**body, "seal": hashlib.sha256(canonical_json(body)).hexdigest()})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint before it is deleted, so that a kill leaves no half of it under its name."""
    doomed = path.with_name(f"{TMP_PREFIX}old-{path.name}-{uuid.uuid4().hex[:8]}")
    if path.exists():
        path.rename(doomed)
    return doomed


def _prune(root: Path, step: int, keep_last: int, keep: set[int]) -> None:
    upto = [found for found in steps(root) if found <= step]
    for old in set(steps(root)) - set(upto[-keep_last:]) - keep:
        remove(_set_aside(root / f"step-{old}"))


def steps(root: Path) -> list[int]:
    """The steps that have a checkpoint in `root`, ascending, verified or not."""
    if not root.is_dir():
        return []
    return sorted(int(match[1]) for path in root.iterdir() if (match := _STEP.fullmatch(path.name)))


def load_latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose every byte is proven; None if there is none at all.

    Steps back over damaged ones, with a warning for each.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged.
    """
    found = steps(root)
    for step in reversed(found):
        try:
            return load_checkpoint(root / f"step-{step}")
        except CheckpointError as error:
            _log.warning("%s; stepping back to an earlier checkpoint", error)
    if found:
        raise CheckpointError(
            f"{root} must hold an intact checkpoint, but all {len(found)} (last steps {found[-5:]}) are "
            f"damaged; restore one from a copy, or delete them to begin anew"
        )
    return None


def load_checkpoint(directory: Path) -> Checkpoint:
    """Verify and read one checkpoint.

    Raises:
        CheckpointError: a file is missing, unknown, cut or altered; the message names it and both hashes.
    """
    try:
        step = verify(directory)
        state = _read_json(directory / STATE)
        return Checkpoint(step, load_file(directory / TENSORS), state, directory)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{directory} must be a readable checkpoint, got {error}") from error


def verify(directory: Path) -> int:
    """Check every file of a checkpoint against its manifest, and return its step.

    Raises:
        CheckpointError: as for `load_checkpoint`.
    """
    manifest = _read_json(directory / MANIFEST)
    _check_manifest(directory, manifest)
    known = {TENSORS, STATE, MANIFEST}
    for path in directory.iterdir():
        if path.name not in known or not stat.S_ISREG(path.lstat().st_mode):
            raise CheckpointError(
                f"{path}: a checkpoint must hold only the regular files {', '.join(sorted(known))}; "
                f"nothing else is ever read, remove it"
            )
    for name, entry in manifest["files"].items():
        _check_file(directory / name, entry)
    return int(manifest["step"])


def _check_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    path = directory / MANIFEST
    body = {key: value for key, value in manifest.items() if key != "seal"}
    if path.read_bytes() != _sealed(body):
        raise CheckpointError(
            f"{path} is damaged: expected the seal {hashlib.sha256(canonical_json(body)).hexdigest()}, "
            f"got {manifest.get('seal')}"
        )
    files, step = body.get("files"), body.get("step")
    entries_ok = isinstance(files, dict) and all(
        isinstance(e, dict) and e.keys() == {"sha256", "size"} for e in files.values()
    )
    # Comparing with the fixed names also keeps a hostile manifest from naming a path outside.
    if (
        body.get("format") != FORMAT
        or not entries_ok
        or not isinstance(files, dict)
        or files.keys() != {TENSORS, STATE}
    ):
        raise CheckpointError(
            f"{path} must be of format {FORMAT} and list {TENSORS} and {STATE}, got {str(body)[:200]}"
        )
    if directory.name != f"step-{step}":
        raise CheckpointError(
            f"{directory} must hold the step of its name, got {step} in {MANIFEST}; undo the renaming"
        )


def _check_file(path: Path, entry: dict[str, Any]) -> None:
    if not path.exists():
        raise CheckpointError(
            f"{path}: the manifest lists it with sha256 {entry['sha256']}, but it is missing"
        )
    size, digest = path.stat().st_size, _sha256(path)
    if (size, digest) != (entry["size"], entry["sha256"]):
        raise CheckpointError(
            f"{path} is damaged: expected {entry['size']} bytes with sha256 {entry['sha256']}, "
            f"got {size} bytes with {digest}"
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the checkpoint is not complete")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} must have at most {MAX_JSON_BYTES} bytes, got {path.stat().st_size}")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} must be JSON, got {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must be a JSON object, got {type(value).__name__}")
    return value
