"""Reading checkpoints: nothing is believed that its manifest does not prove, and nobody needs a lock.

A job may write into the directory at the same time, and delete what a reader has just listed: then the reader
looks again. What is said to be damaged was found so twice, while it stayed where it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ctr.checkpoint.directories import saved
from ctr.checkpoint.manifest import STATE, CheckpointManifest, check_file, read_json
from ctr.checkpoint.tensors import StoredTensors
from ctr.distributed.on_all_ranks import run_on_all_ranks
from ctr.distributed.world import World
from ctr.errors import CheckpointError, RetryableError

_LOOKS = 100  # at a directory that changes each time
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its step (the last finished one), tensors, read when used, and plain data."""

    step: int
    tensors: StoredTensors
    state: dict[str, Any]
    path: Path

    @property
    def best_step(self) -> int | None:
        """The step with the best validation so far, if there was any.

        Raises:
            CheckpointError: the saved state does not say.
        """
        progress = self.state.get("progress")
        best = progress.get("best_step", "nothing") if isinstance(progress, dict) else "nothing"
        if best is None or (isinstance(best, int) and not isinstance(best, bool)):
            return best
        raise CheckpointError(
            f"{self.path / STATE} must hold progress.best_step, a step or null, got {str(best)[:80]!r}; "
            "use another checkpoint"
        )


def load_latest(root: Path, *, world: World | None = None) -> Checkpoint | None:
    """The newest checkpoint whose every byte is proven; None if there is none at all.

    Steps back over damaged ones, with a warning for each; all ranks take the same one.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged.
        RetryableError: none can be read, or the directory changes each time it is looked at.
    """
    found, errors = _newest_proven(root, None, world or World.single())
    if found is None and errors:
        newest = next(iter(errors.values()))
        raise CheckpointError(
            f"{root} must hold an intact checkpoint, but all {len(errors)} (last: "
            f"{', '.join(path.name for path in list(errors)[:5])}) are damaged, read twice; restore one from "
            f"a copy, or delete them to begin anew. Of the newest: {newest}"
        )
    return found


def load_step(root: Path, step: int, *, world: World | None = None) -> Checkpoint | None:
    """The checkpoint of one step; None if there is none.

    Raises:
        CheckpointError: it is damaged.
        RetryableError: it cannot be read.
    """
    found, errors = _newest_proven(root, step, world or World.single())
    if found is None and errors:
        raise next(iter(errors.values()))
    return found


def load_best(root: Path, *, world: World | None = None) -> Checkpoint | None:
    """The checkpoint of the best step so far, the newest where none was validated; None if there is none.

    Raises:
        CheckpointError: all are damaged, or the best step has none any more.
    """
    before = None
    for _ in range(_LOOKS):
        latest = load_latest(root, world=world)
        if latest is None or latest.best_step in (None, latest.step):
            return latest
        if (found := load_step(root, latest.best_step, world=world)) is not None:
            return found
        if before == latest.step:  # else a job beside has found a better one since
            raise CheckpointError(
                f"{root} must hold the best step {latest.best_step} that {latest.path.name} names, but it is "
                f"gone; take --checkpoint last, or restore it from a copy"
            )
        before = latest.step
    raise _restless(root)


def load_checkpoint(directory: Path, *, world: World | None = None) -> Checkpoint:
    """Verify one checkpoint and open it; the ranks share the work of verifying its files.

    Raises:
        CheckpointError: a file is missing, unknown, cut or altered; the message names it and both hashes.
    """
    world = world or World.single()
    opened: list[Checkpoint] = []
    run_on_all_ranks(world, lambda: opened.append(_open(directory, world)), failure=CheckpointError)
    return opened[0]


def _newest_proven(
    root: Path, step: int | None, world: World
) -> tuple[Checkpoint | None, dict[Path, CheckpointError]]:
    """The newest intact checkpoint, and the errors of those before it in the order of reading.

    Without one, the errors are those of all there are, each read twice.
    """
    before: list[tuple[str, int, int]] | None = None
    for _ in range(_LOOKS):
        listed = world.broadcast_json(_listed(root, step))
        errors: dict[Path, CheckpointError] = {}
        for name, *identity in reversed(listed):
            try:
                found = load_checkpoint(root / name, world=world)
            except CheckpointError as error:
                errors[root / name] = error
                if not world.broadcast_json(_identity(root / name) == tuple(identity)):
                    break  # a job beside has deleted or replaced it: look again
            else:
                for damage in errors.values() if world.first else ():
                    _log.warning("%s; stepping back to an earlier checkpoint", damage)
                return found, errors
        else:
            if listed == before:
                _check_readable(errors)
                return None, errors
            before = listed
    raise _restless(root)


def _listed(root: Path, step: int | None) -> list[list[Any]]:
    """Names of the checkpoints, with what tells a directory from another of the same name."""
    return [[path.name, *found] for path in saved(root, step) if (found := _identity(path)) is not None]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_readable(errors: dict[Path, CheckpointError]) -> None:
    """What the disk or the network refuses may be intact: nobody is told to delete it."""
    for error in errors.values():
        if isinstance(cause := error.__cause__, OSError) and not isinstance(cause, FileNotFoundError):
            raise RetryableError(
                f"{error}; mend the disk or the permissions and run the command again"
            ) from error


def _restless(root: Path) -> RetryableError:
    return RetryableError(
        f"{root} must hold a checkpoint for as long as it takes to read one, but a job replaced each that "
        f"was tried, {_LOOKS} times; raise train.keep_last, or try again when the job saves less often"
    )


def _open(directory: Path, world: World) -> Checkpoint:
    before = _identity(directory)
    try:
        manifest = CheckpointManifest.read(directory)
        for name in sorted(manifest.files)[world.rank :: world.size]:
            check_file(directory / name, manifest.files[name])
        state = read_json(directory / STATE)
        found = Checkpoint(manifest.step, StoredTensors(directory, manifest), state, directory)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{directory} must be a readable checkpoint, got {error}") from error
    if _identity(directory) != before:
        raise CheckpointError(f"{directory} must stay in its place while it is read, a job replaced it")
    return found
