"""Everything a run must remember to go on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ctr.checkpoint.contents import check_finite, check_tensors, reading
from ctr.checkpoint.load import Checkpoint
from ctr.checkpoint.restore import describe_mismatch, restore_rng, rng_state
from ctr.distributed.shards import Sharded
from ctr.distributed.world import World
from ctr.embedding import EmbeddingTables
from ctr.errors import CheckpointError
from ctr.runs.identity import completed
from ctr.training.calibration import Calibrators
from ctr.training.losses import RunningLoss
from ctr.training.optim import (
    AveragedWeights,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_names,
    possible_tensors,
)
from ctr.training.staleness import PendingGradients
from features.encode.encoding import Encoding
from features.errors import explain

Plain = TypeVar("Plain")


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
        """Plain data, restored by `from_json`; what older versions lack stands there if it says something."""
        plain = {name: value for name, value in asdict(self).items() if name != "evaluation_due" or value}
        if not self.running.tasks:
            del plain["running"]["tasks"]
        return plain

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        """The inverse of `to_json`.

        Raises:
            ValueError: a value of another type, or a count below 0.
        """
        progress = _checked(cls, data)
        counts = [getattr(progress, f.name) for f in fields(cls) if f.type == "int"]
        if min(counts) < 0 or data.keys() - {f.name for f in fields(cls)}:
            raise ValueError(f"counts of progress must be at least 0, and no others, got {str(data)[:200]}")
        return progress


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
    calibration: Calibrators | None = None  # of the step that was validated last
    encoding: Encoding | None = None  # how the data set encodes, for runs that start from this one
    teacher: str | None = None  # digest of the logits that it learns from, of a run that is distilled

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
        return {name: t for part, named in parts.items() for name, t in _under(part, named).items()}

    def plain(self) -> dict[str, Any]:
        """Everything else, as JSON data."""
        return {
            "identity": self.identity,
            "progress": self.progress.to_json(),
            "averaged_updates": self.averaged.updates if self.averaged else 0,
            "pending_rate": self.pending.rate,
            "parameters": parameter_names(self.model),
            **self._calibrated(),
            **({"encoding": self.encoding.model_dump(mode="json")} if self.encoding else {}),
            **({"teacher": self.teacher} if self.teacher else {}),
        }

    def _calibrated(self) -> dict[str, Any]:
        """What was fitted to these weights, if they were validated."""
        fits = self.calibration is not None and self.calibration.step == self.progress.step
        return {"calibration": self.calibration.model_dump(mode="json")} if self.calibration and fits else {}

    def restore(self, checkpoint: Checkpoint, *, weights_only: bool = False) -> None:
        """Take on a checkpoint's state.

        Args:
            checkpoint: a verified checkpoint of the same configuration and data set.
            weights_only: for scoring: leave optimizer, progress and random state alone.

        Raises:
            CheckpointError: it is of another model, configuration or data set; the message lists the fields.
        """
        with reading(checkpoint):
            self._check_identity(checkpoint)
            self._check_tensors(checkpoint, weights_only=weights_only)
            self._load_weights(checkpoint)
            fitted = checkpoint.state.get("calibration")
            self.calibration = None if fitted is None else Calibrators.from_plain(fitted)
            if not weights_only:
                self._check_teacher(checkpoint)
                self._load_course(checkpoint)
        check_finite(checkpoint, self.tensors())

    def _check_identity(self, checkpoint: Checkpoint) -> None:
        found = completed(checkpoint.state["identity"])
        if found != self.identity:
            raise CheckpointError(
                f"{checkpoint.path} belongs to another run:\n{describe_mismatch(self.identity, found)}\n"
                "use the configuration it was made with, or start from it in another run directory (init.run)"
            )

    def _check_teacher(self, checkpoint: Checkpoint) -> None:
        if (found := checkpoint.state.get("teacher")) != self.teacher:
            raise CheckpointError(
                f"{checkpoint.path} must go on with the predictions that it has learned from, of digest "
                f"{found}, got {self.teacher}; bring back what train.distill names, or begin another run"
            )

    def _check_tensors(self, checkpoint: Checkpoint, *, weights_only: bool) -> None:
        average = self.averaged.average if self.averaged else {}
        exact = _under("model", self.model.state_dict()) | _under("tables", self.tables.state())
        optional: dict[str, Tensor | Sharded] = {}
        if not weights_only:
            optional |= _under("optimizer", possible_tensors(self.optimizer))
            optional |= _under("pending", dict(self.model.named_parameters()))
        unread = ("rng", "optimizer", "pending") if weights_only else ("rng",)
        check_tensors(checkpoint, exact | _under("average", average), optional, unread=unread)

    def _load_weights(self, checkpoint: Checkpoint) -> None:
        tables = checkpoint.tensors.within("tables/")
        part = _by_part(checkpoint.tensors, only=("model", "average"))
        self.model.load_state_dict(part["model"])
        self.tables.load_state(tables)
        if self.averaged is not None:
            self.averaged.load(part["average"])
            self.averaged.updates = _checked(int, checkpoint.state["averaged_updates"], "averaged_updates")

    def _load_course(self, checkpoint: Checkpoint) -> None:
        """What decides how training goes on, beside the weights."""
        part = _by_part(checkpoint.tensors, only=("optimizer", "pending", "rng"))
        self.progress = Progress.from_json(checkpoint.state["progress"])
        if self.progress.step != checkpoint.step:
            raise ValueError(f"progress.step is {self.progress.step}, the manifest says {checkpoint.step}")
        load_optimizer_tensors(self.optimizer, part.get("optimizer", {}))
        rate = _checked(float, checkpoint.state.get("pending_rate", 0.0), "pending_rate")
        self.pending.load(self.model, part.get("pending", {}), rate)
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


def _checked(kind: type[Plain], value: Any, name: str = "progress") -> Plain:
    """A value of the state as what it must be; nothing is converted."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(f"{name}: {explain(error).strip()}") from None


def _by_part(tensors: Mapping[str, Tensor], *, only: Collection[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of some parts, by the rest of their names."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        part, _, name = key.partition("/")
        if part in only:
            parts.setdefault(part, {})[name] = tensors[key]
    return parts


def _under(part: str, named: Mapping[str, Tensor | Sharded]) -> dict[str, Tensor | Sharded]:
    return {f"{part}/{name}": tensor for name, tensor in named.items()}
