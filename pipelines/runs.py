"""Opening a run: its configuration, its data set, the weights of one of its checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ctr.build import build_state, open_dataset, pick_device
from ctr.checkpoint.choose import choose_checkpoint
from ctr.checkpoint.contents import reading
from ctr.checkpoint.load import Checkpoint
from ctr.config import PeriodConfig, RunConfig
from ctr.errors import CheckpointError
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import refuse_ensemble
from ctr.runs.identity import on_other_data
from ctr.runs.saved_config import load_saved_config
from ctr.training.state import TrainingState
from ctr.transfer.read_as import read_as_trained
from ctr.transfer.trained import Trained
from features.dataset import Dataset
from features.durable import replace_file
from features.errors import ConfigError
from features.names import under

DATASET_HELP = "where the data set is now, if it moved, or another one to score, encoded as the run's own"


@dataclass(frozen=True)
class OpenRun:
    """A run that can score."""

    config: RunConfig
    dataset: Dataset  # as the run reads it
    prepared: Dataset  # as it was prepared: the same, but where the run was trained on another data set
    state: TrainingState
    device: torch.device
    step: int
    checkpoint: Path  # where the weights were read; a job that trains the run may have deleted it since

    @property
    def place(self) -> str:
        """The folder of what is scored, in those of predictions and reports: empty for the run's own data."""
        return "" if self.dataset is self.prepared else _folder(self.prepared)


def read_run_config(path: Path) -> RunConfig:
    """The resolved configuration that a run was started with."""
    refuse_ensemble(path)
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{path} must be a run directory with a config.yaml; train one with: ctr train CONFIG"
        )
    return load_saved_config(path / "config.yaml")


def open_run(
    run_dir: RunDir, *, dataset: Path | None = None, checkpoint: str = "best", raw: bool = False
) -> OpenRun:
    """Load a run's weights for scoring.

    Args:
        run_dir: an existing run.
        dataset: where its data set is now, if it moved, or another one that it is to score.
        checkpoint: `best`, `last` or a step number.
        raw: leave out the calibration of the run.

    Raises:
        ConfigError: the run is calibrated, and the weights of this step are not.
        CheckpointError: the run has no checkpoint, not that one, or a damaged one, or the data set is encoded
            otherwise than its own.
    """
    config = read_run_config(run_dir.path)
    device = pick_device(config.train.device)
    chosen = choose_checkpoint(run_dir.checkpoints, checkpoint, what="--checkpoint")
    if chosen is None:
        raise CheckpointError(f"{run_dir.path} has no checkpoint yet; run ctr train first")
    with reading(chosen):
        prepared, data = _open_data(run_dir.path, config, chosen, at=dataset)
    state = build_state(config, data.manifest, device)
    if data is not prepared:
        state.identity = on_other_data(state.identity, chosen.state["identity"])
    state.restore(chosen, weights_only=True)
    keep_calibration(state, config, step=chosen.step, raw=raw)
    return OpenRun(config, data, prepared, state, device, chosen.step, chosen.path)


def keep_calibration(state: TrainingState, config: RunConfig, *, step: int, raw: bool = False) -> None:
    """Keep what was restored of a calibration where the run scores with it.

    Raises:
        ConfigError: the weights of this step have none of the kind that the run asks for.
    """
    kind, found = config.calibration, state.calibration
    if raw or kind == "none":
        state.calibration = None
    elif found is None or any(own.kind != kind for own in found.outputs.values()):
        raise ConfigError(
            f"the weights of step {step} must come with a calibration of kind {kind}, fitted when the "
            "validation part is scored, and have none; choose --checkpoint best, or --raw for scores without"
        )


def _open_data(
    run: Path, config: RunConfig, checkpoint: Checkpoint, *, at: Path | None
) -> tuple[Dataset, Dataset]:
    """A data set as it was prepared, and as the run reads it; another than its own has to be named.

    Windows of time are those of the run's own data set: of another one all requests of a split are scored.
    """
    trained = Trained(run, checkpoint, None, remedy="bring the run's own data set back to that place")
    own = open_dataset(config, at=at)
    if at is None or own.manifest.digest() == trained.dataset_digest:
        return own, own
    other = open_dataset(config.model_copy(update={"period": PeriodConfig()}), at=at)
    return other, read_as_trained(other, trained)


def _folder(dataset: Dataset) -> str:
    """A name for a data set, the same wherever it lies and different for other data."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(dataset.place).resolve().name)[:60] or "dataset"
    return f"{name}-{dataset.manifest.digest()[:8]}"


def keep_spec(run_dir: RunDir, dataset: Dataset) -> bool:
    """Copy the spec of the data set, if it has one, into the run directory; whether it is there."""
    path = under(dataset.root, "spec.yaml")
    if path.is_file():
        replace_file(run_dir.spec, path.read_bytes())
    return run_dir.spec.is_file()
