"""Everything a run must remember to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ctr.checkpoint.load import Checkpoint
from ctr.checkpoint.restore import describe_mismatch, restore_rng, rng_state
from ctr.distributed.shards import Sharded
from ctr.distributed.world import World
from ctr.embedding import EmbeddingTables
from ctr.errors import CheckpointError
from ctr.runs.identity import completed
from ctr.training.losses import RunningLoss
from ctr.training.optim import AveragedWeights, load_optimizer_tensors, optimizer_tensors
from ctr.training.staleness import PendingGradients


@dataclass
class Progress:
    """Where a run stands; plain data.

    `epoch` and `step_in_epoch` name the next batch; `step` counts the batches done.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    finished: bool = False
    evaluation_due: bool = False  # a signal came before or in the evaluation of this step
    running: RunningLoss = field(default_factory=RunningLoss)

    def to_json(self) -> dict[str, Any]:
        """Plain data, restored by `from_json`; `evaluation_due` is written where it says something."""
        return {name: value for name, value in asdict(self).items() if name != "evaluation_due" or value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return cls(**{**data, "running": RunningLoss(**data["running"])})


@dataclass
class TrainingState:
    """Model, tables, optimizer, average and progress, as one thing that is saved and restored."""

    model: nn.Module
    tables: EmbeddingTables
    optimizer: torch.optim.Optimizer
    averaged: AveragedWeights | None
    progress: Progress
    identity: dict[str, Any]  # what must be the same for a checkpoint to fit: configuration and data set
    pending: PendingGradients = field(default_factory=PendingGradients)
    world: World = field(default_factory=World.single)

    def tensors(self) -> dict[str, Tensor | Sharded]:
        """All tensors under flat names; of sharded ones what this rank holds."""
        parts: dict[str, Mapping[str, Tensor | Sharded]] = {
            "model": self.model.state_dict(),
            "tables": self.tables.state(),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": self.averaged.average if self.averaged else {},
            "pending": self.pending.tensors(self.model),
            "rng": rng_state(self.world),
        }
        return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}

    def plain(self) -> dict[str, Any]:
        """Everything else, as JSON data."""
        return {
            "identity": self.identity,
            "progress": self.progress.to_json(),
            "averaged_updates": self.averaged.updates if self.averaged else 0,
            "pending_rate": self.pending.rate,
        }

    def restore(self, checkpoint: Checkpoint, *, weights_only: bool = False) -> None:
        """Take on a checkpoint's state.

        Args:
            checkpoint: a verified checkpoint of the same configuration and data set.
            weights_only: for scoring: leave optimizer, progress and random state alone.

        Raises:
            CheckpointError: it is of another model, configuration or data set; the message lists the fields.
        """
        found = completed(checkpoint.state["identity"])
        if found != self.identity:
            raise CheckpointError(
                f"{checkpoint.path} belongs to another run:\n{describe_mismatch(self.identity, found)}\n"
                "use the configuration it was made with, or another run directory"
            )
        tables = checkpoint.tensors.within("tables/")
        part = _by_part(checkpoint.tensors, without="tables")
        self.model.load_state_dict(part["model"])
        self.tables.load_state(tables)
        if self.averaged is not None:
            self.averaged.load(part["average"])
            self.averaged.updates = checkpoint.state["averaged_updates"]
        if not weights_only:
            load_optimizer_tensors(self.optimizer, part.get("optimizer", {}))
            self.pending.load(self.model, part.get("pending", {}), checkpoint.state.get("pending_rate", 0.0))
            self.progress = Progress.from_json(checkpoint.state["progress"])
            restore_rng(part["rng"], self.world)

    @contextmanager
    def for_scoring(self) -> Iterator[nn.Module]:
        """The model in evaluation mode, with averaged weights where the run keeps them."""
        was_training = self.model.training
        self.model.eval()
        try:
            with self.averaged.applied(self.model) if self.averaged else nullcontext():
                yield self.model
        finally:
            self.model.train(was_training)


def _by_part(tensors: Mapping[str, Tensor], *, without: str) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        part, name = key.split("/", 1)
        if part != without:
            parts.setdefault(part, {})[name] = tensors[key]
    return parts
