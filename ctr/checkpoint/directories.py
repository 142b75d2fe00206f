"""The directories of a run's checkpoints: how they are named, found and replaced.

A checkpoint of step 7 is ``step-7``. If that step is saved again, the new one is ``step-7.1`` until the old
one is gone, and then takes its name: at every instant a complete one is there, whenever the job is killed.

    step-7              saved before
    step-7   step-7.1   the new one is complete, and is what readers take from here on
             step-7.1   the old one was put aside and deleted
    step-7              the new one under the plain name
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from features.durable import TMP_PREFIX, remove, rename

_NAME = re.compile(r"step-(\d{1,15})(?:\.(\d{1,6}))?")


def saved(root: Path, step: int | None = None) -> list[Path]:
    """The checkpoints in `root`, verified or not: steps ascending, of a step saved again the newest last.

    Args:
        root: the directory of all checkpoints of a run; it may be missing.
        step: only those of this step.
    """
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if step in (None, _key(path)[0])), key=_key)


def steps(root: Path) -> list[int]:
    """The steps that have a checkpoint in `root`, ascending, verified or not."""
    return sorted({_key(path)[0] for path in saved(root)})


def named_step(directory: Path) -> int | None:
    """The step that the name of a checkpoint says; None if it is no such name."""
    return _key(directory)[0] if _NAME.fullmatch(directory.name) else None


def publish(temporary: Path, root: Path, step: int) -> Path:
    """Give a complete checkpoint its name; one of the same step goes when the new one is there.

    Returns:
        Where it is.
    """
    earlier = saved(root, step)
    target = root / f"step-{step}"
    if not earlier:
        rename(temporary, target, point="ckpt", index=step)
        return target
    again = root / f"step-{step}.{_key(earlier[-1])[1] + 1}"
    rename(temporary, again, point="ckpt.again", index=step)
    return settle(again)


def settle(path: Path) -> Path:
    """Keep this checkpoint alone of those of its step, under the plain name; returns where it is then."""
    step = _key(path)[0]
    for other in saved(path.parent, step):
        if other != path:
            discard(other)
    target = path.with_name(f"step-{step}")
    if path != target:
        rename(path, target, point="ckpt.settle", index=step)
    return target


def discard(path: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that a kill leaves no half of it under its name."""
    doomed = path.with_name(f"{TMP_PREFIX}old-{path.name}-{uuid.uuid4().hex[:8]}")
    rename(path, doomed, point="ckpt.aside", index=_key(path)[0])
    remove(doomed)


def _key(path: Path) -> tuple[int, int]:
    """Step, and how often the step had been saved before."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)
