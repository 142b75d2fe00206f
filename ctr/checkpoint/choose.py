"""Which checkpoint of a run is meant: its best, its last, or that of a step."""

from __future__ import annotations

from pathlib import Path

from ctr.checkpoint.directories import steps
from ctr.checkpoint.load import Checkpoint, load_best, load_latest, load_step
from ctr.distributed.world import World
from ctr.errors import CheckpointError
from features.errors import ConfigError


def choose_checkpoint(root: Path, name: str, *, what: str, world: World | None = None) -> Checkpoint | None:
    """Load the checkpoint that a name means; None where the run has none at all.

    Args:
        root: the directory of the run's checkpoints.
        name: `best` (the latest where none was validated), `last` or a step number.
        what: the option that holds the name, for messages.
        world: the processes that load together.

    Raises:
        ConfigError: it is no such name.
        CheckpointError: the run has no checkpoint of that step, or a damaged one.
    """
    if name.isdecimal():
        found = load_step(root, int(name), world=world)
    elif name in ("best", "last"):
        found = load_best(root, world=world) if name == "best" else load_latest(root, world=world)
    else:
        raise ConfigError(f"{what} must be best, last or a step number, got {name!r}")
    if found is None and (present := steps(root)):
        raise CheckpointError(f"{what} must name a step of {root}, got {name}; there are {present}")
    return found
