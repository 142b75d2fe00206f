"""Opening a run: its configuration, its data set, the weights of one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ctr.build import build_state, open_dataset, pick_device
from ctr.checkpoint.directories import steps
from ctr.checkpoint.load import Checkpoint, load_best, load_latest, load_step
from ctr.config import RunConfig, load_config
from ctr.errors import CheckpointError
from ctr.runs.directory import RunDir
from ctr.training.state import TrainingState
from features.dataset import Dataset
from features.durable import replace_file
from features.errors import ConfigError
from features.names import under


@dataclass(frozen=True)
class OpenRun:
    """A run that can score."""

    config: RunConfig
    dataset: Dataset
    state: TrainingState
    device: torch.device
    step: int
    checkpoint: Path  # where the weights were read; a job that trains the run may have deleted it since


def read_run_config(path: Path) -> RunConfig:
    """The resolved configuration that a run was started with."""
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{path} must be a run directory with a config.yaml; train one with: ctr train CONFIG"
        )
    return load_config(path / "config.yaml")


def open_run(run_dir: RunDir, *, dataset: Path | None = None, checkpoint: str = "best") -> OpenRun:
    """Load a run's weights for scoring.

    Args:
        run_dir: an existing run.
        dataset: where its data set is now, if it moved.
        checkpoint: `best`, `last` or a step number.

    Raises:
        CheckpointError: the run has no checkpoint, not that one, or a damaged one.
    """
    config = read_run_config(run_dir.path)
    data = open_dataset(config, at=dataset)
    device = pick_device(config.train.device)
    state = build_state(config, data.manifest, device)
    chosen = _load(run_dir.checkpoints, checkpoint)
    state.restore(chosen, weights_only=True)
    return OpenRun(config, data, state, device, chosen.step, chosen.path)


def keep_spec(run_dir: RunDir, dataset: Dataset) -> bool:
    """Copy the spec of the data set, if it has one, into the run directory; whether it is there."""
    path = under(dataset.root, "spec.yaml")
    if path.is_file():
        replace_file(run_dir.spec, path.read_bytes())
    return run_dir.spec.is_file()


def _load(root: Path, name: str) -> Checkpoint:
    """The checkpoint that `best`, `last` or a number names; the latest where none was validated."""
    if name.isdecimal():
        found = load_step(root, int(name))
    elif name in ("best", "last"):
        found = load_best(root) if name == "best" else load_latest(root)
    else:
        raise ConfigError(f"--checkpoint must be best, last or a step number, got {name!r}")
    if found is not None:
        return found
    if present := steps(root):
        raise CheckpointError(f"--checkpoint must name a step of {root}, got {name}; there are {present}")
    raise CheckpointError(f"{root.parent} has no checkpoint yet; run ctr train first")
