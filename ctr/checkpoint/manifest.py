"""What proves a checkpoint: its files with their hashes, and where the parts of its sharded tensors lie.

The manifest bears a hash of itself, so that a flipped bit in it is found too. Format 1 has one file of whole
tensors; format 2 adds files of further ranks and, under `sharded`, what parts of which tensors are in them.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctr.checkpoint.directories import named_step
from ctr.distributed.shards import Offset, box, covers
from ctr.errors import CheckpointError
from features.durable import canonical_json, write_file

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
MAX_JSON_BYTES = 64 * 2**20
_OF_A_RANK = re.compile(r"tensors-[1-9]\d{0,5}\.safetensors")


def tensors_file(rank: int) -> str:
    """The file that a rank writes; the first one's holds the whole tensors too."""
    return TENSORS if rank == 0 else f"tensors-{rank}.safetensors"


@dataclass(frozen=True)
class StoredPart:
    """Where a part of a sharded tensor is stored, and what of the tensor it is."""

    file: str
    offset: Offset
    shape: tuple[int, ...]

    @property
    def index(self) -> tuple[slice, ...]:
        """The part's index in the whole tensor."""
        return box(self.offset, self.shape)

    def key(self, name: str) -> str:
        """What the part of tensor `name` is called in its file."""
        return f"{name}@{'.'.join(map(str, self.offset))}"


@dataclass(frozen=True)
class StoredLayout:
    """A sharded tensor: its shape and its parts, which cover it exactly."""

    shape: tuple[int, ...]
    parts: tuple[StoredPart, ...]

    def __post_init__(self) -> None:
        if not covers(self.shape, [part.index for part in self.parts]):
            raise ValueError(f"parts must hold every element of {list(self.shape)} once, got {self.parts}")

    def to_json(self) -> dict[str, Any]:
        """Plain data, restored by `from_json`."""
        return {"shape": self.shape, "parts": [vars(part) for part in self.parts]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StoredLayout:
        """The inverse of `to_json`."""
        parts = tuple(StoredPart(p["file"], tuple(p["offset"]), tuple(p["shape"])) for p in data["parts"])
        return cls(tuple(data["shape"]), parts)


@dataclass(frozen=True)
class CheckpointManifest:
    """The content of a checkpoint.

    Args:
        step: the last finished step.
        files: name → {"sha256", "size"}.
        sharded: tensor → where its parts are; all others lie whole in the first rank's file.
    """

    step: int
    files: dict[str, dict[str, Any]]
    sharded: dict[str, StoredLayout] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Put it into the directory, sealed, and force it to the disk."""
        body: dict[str, Any] = {"format": 1, "step": self.step, "files": self.files}
        if self.sharded:
            body |= {"format": 2, "sharded": {n: layout.to_json() for n, layout in self.sharded.items()}}
        write_file(directory / MANIFEST, sealed(body))

    @classmethod
    def read(cls, directory: Path) -> CheckpointManifest:
        """Read and check it, and that the directory holds no file that it does not list.

        Raises:
            CheckpointError: it is missing, damaged, of another step or format, or there are other files.
        """
        manifest = _parse(directory / MANIFEST, read_json(directory / MANIFEST))
        if named_step(directory) != manifest.step:
            raise CheckpointError(
                f"{directory} must hold the step of its name, got {manifest.step} in {MANIFEST}; "
                "undo the renaming"
            )
        known = {MANIFEST, *manifest.files}
        for path in directory.iterdir():
            if path.name not in known or not stat.S_ISREG(path.lstat().st_mode):
                raise CheckpointError(
                    f"{path}: a checkpoint must hold only the regular files {', '.join(sorted(known))}; "
                    f"nothing else is ever read, remove it"
                )
        return manifest


def _parse(path: Path, found: dict[str, Any]) -> CheckpointManifest:
    body = {key: value for key, value in found.items() if key != "seal"}
    if path.read_bytes() != sealed(body):
        raise CheckpointError(
            f"{path} is damaged: expected the seal {hashlib.sha256(canonical_json(body)).hexdigest()}, "
            f"got {found.get('seal')}"
        )
    try:
        sharded = {name: StoredLayout.from_json(layout) for name, layout in body.get("sharded", {}).items()}
        manifest = CheckpointManifest(int(body["step"]), dict(body["files"]), sharded)
        entries = all(entry.keys() == {"sha256", "size"} for entry in manifest.files.values())
        part_files = {part.file for layout in sharded.values() for part in layout.parts}
        if (
            body["format"] in (1, 2)
            and entries
            and _known(manifest.files)
            and part_files <= manifest.files.keys()
        ):
            return manifest
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise CheckpointError(
        f"{path} must be of format 1 or 2 and list {STATE}, {TENSORS} and those of further ranks, "
        f"got {str(body)[:200]}"
    )


def _known(names: Mapping[str, Any]) -> bool:
    """Whether these are the files of a checkpoint; a hostile manifest could name a path outside."""
    others = names.keys() - {TENSORS, STATE}
    return {TENSORS, STATE} <= names.keys() and all(_OF_A_RANK.fullmatch(name) for name in others)


def sealed(body: dict[str, Any]) -> bytes:
    """Canonical JSON of a manifest with a hash of itself."""
    return canonical_json({**body, "seal": hashlib.sha256(canonical_json(body)).hexdigest()})


def describe_file(path: Path) -> dict[str, Any]:
    """The manifest's entry of a file."""
    return {"sha256": _sha256(path), "size": path.stat().st_size}


def check_file(path: Path, entry: dict[str, Any]) -> None:
    """Compare every byte of a file with its entry.

    Raises:
        CheckpointError: it is missing, cut or altered; the message names it and both hashes.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path}: the manifest lists it with sha256 {entry['sha256']}, but it is missing"
        )
    found = describe_file(path)
    if found != entry:
        raise CheckpointError(
            f"{path} is damaged: expected {entry['size']} bytes with sha256 {entry['sha256']}, "
            f"got {found['size']} bytes with {found['sha256']}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        CheckpointError: it is missing, too large, or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the checkpoint is not complete")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} must have at most {MAX_JSON_BYTES} bytes, got {path.stat().st_size}")
    try:
        value = json.loads(path.read_bytes(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} must be JSON, got {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must be a JSON object, got {type(value).__name__}")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
