"""A trained model over a split: scores in file order, in memory or streamed to a table of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from ctr import predictions
from ctr.batch import Batch
from ctr.distributed.world import World
from ctr.models.model import Model
from ctr.predictions import Output, SplitRows
from ctr.predictions.write import Scored
from ctr.training.outputs import Outputs, probability
from ctr.training.state import TrainingState
from features.dataset import Dataset, TaskInfo


class BatchSource(Protocol):
    """What gives every row of a split once, in file order: a loader, or one that changes its batches."""

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]: ...


class RowLabels(NamedTuple):
    """Labels of one output: numpy arrays (N,)."""

    label: np.ndarray  # float32; of a regression values in the unit of the log
    known: np.ndarray  # bool
    weight: np.ndarray  # float32, of a row in the metrics

    def of(self, output: Output) -> RowLabels:
        """Those of an output, from those of all tasks (N, K)."""
        table = RowLabels(*(values.reshape(len(values), -1) for values in self))
        task, known = output.decided_by(table.label, table.known)
        rows = np.arange(len(task))
        label, scale = table.label[rows, task], output.task.scale
        label = label if scale is None else scale.inverse(label.astype(np.float64))
        return RowLabels(label, known, table.weight[rows, task])


@dataclass(frozen=True)
class Scores:
    """Logits of a split in file order, with what the metrics group by; numpy arrays of equal length N.

    The logits, labels and weights are (N,), or (N, K) of a run with tasks.
    """

    logit: np.ndarray  # float32
    label: np.ndarray  # float32
    known: np.ndarray  # bool
    weight: np.ndarray  # float32, of a row in the metrics
    user_id: np.ndarray  # int64
    request_id: np.ndarray  # int64
    tasks: Sequence[TaskInfo] = field(default=(), kw_only=True)

    @property
    def score(self) -> np.ndarray:
        """Of the first task: probabilities, float64."""
        return Outputs(self.tasks).scores(self.logit)[0]

    def labels(self, output: Output) -> RowLabels:
        """Labels of an output, where they are known, and what the rows weigh."""
        return RowLabels(self.label, self.known, self.weight).of(output)


_FIELDS = tuple(own.name for own in fields(Scores) if own.name != "tasks")


@torch.inference_mode()
def score_batches(
    state: TrainingState, batches: Iterable[Batch], *, bf16: bool, device: torch.device
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Each batch with its logits, float32 (B,), or (B, K) of a run with tasks."""
    count = len(tasks_of(state.model))
    with state.for_scoring() as model:
        for batch in batches:
            on_device = batch.to(device)
            rows = state.tables.lookup(on_device.unique_ids)  # by all ranks, also one without a batch
            if not batch.num_rows:
                yield batch, np.empty((0, count) if count else 0, dtype=np.float32)
                continue
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                logits = model(on_device, rows)
            yield batch, logits.float().reshape(batch.num_rows, *([count] if count else [])).cpu().numpy()


def score_split(
    state: TrainingState,
    loader: BatchSource,
    *,
    bf16: bool,
    device: torch.device,
    world: World | None = None,
) -> Scores | None:
    """Score a whole split in memory (24 bytes a row).

    Args:
        state: the model and its tables.
        loader: gives this rank's batches.
        bf16: whether the forward is computed in bfloat16.
        device: where.
        world: the ranks among which whole batches were given out in turn.

    Returns:
        The scores in file order on rank 0, bit by bit those of one process; None elsewhere.
    """
    tasks = tasks_of(state.model)
    parts = [
        Scores(
            logits,
            *_labels(batch, several=bool(tasks)),
            batch.user_id[batch.request_index].numpy(),
            batch.request_id[batch.request_index].numpy(),
        )
        for batch, logits in score_batches(state, loader.iterate(0), bf16=bf16, device=device)
    ]
    own = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _FIELDS}
    own["rows"] = np.array([len(p.logit) for p in parts])
    gathered = (world or World.single()).gather_arrays(own)
    return replace(_in_file_order(gathered), tasks=tasks) if gathered else None


def outputs_of_run(state: TrainingState) -> Outputs:
    """What the weights of a run say of rows, with the calibration that was restored with them."""
    return Outputs(tasks_of(state.model), state.calibration)


def _flat(scores: tuple[np.ndarray, tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    first, others = scores
    return (first, *others)


def tasks_of(model: nn.Module) -> list[TaskInfo]:
    """The tasks of a run with `tasks`; none where a model gives the logit of the data set's one label."""
    return model.learned if isinstance(model, Model) and model.tasks is not None else []


def labels_of(batches: Sequence[Batch], outputs: Outputs) -> list[RowLabels]:
    """Labels of each output in some batches."""
    parts = zip(*(_labels(batch, several=True) for batch in batches), strict=True)
    whole = RowLabels(*(np.concatenate(column) for column in parts))
    return [whole.of(output) for output in outputs.all]


def _labels(batch: Batch, *, several: bool) -> RowLabels:
    """(B, K) of all tasks, or (B,) of the first."""
    columns = [
        RowLabels(target.label.numpy(), target.known.numpy(), _weight(batch, task))
        for task, target in batch.targets.items()
    ]
    if not several:
        return columns[0]
    return RowLabels(*(np.stack(found, axis=1) for found in zip(*columns, strict=True)))


def _weight(batch: Batch, task: str) -> np.ndarray:
    found = batch.metric_weight(task)
    return np.ones(batch.num_rows, dtype=np.float32) if found is None else found.numpy()


def _in_file_order(ranks: list[dict[str, np.ndarray]]) -> Scores:
    """Step by step, the batches of all ranks in the order of ranks: as they were given out."""
    if len(ranks) == 1:
        return Scores(*(ranks[0][name] for name in _FIELDS))
    cuts = [np.cumsum(found["rows"])[:-1] for found in ranks]
    merged = []
    for name in _FIELDS:
        batches = [np.split(found[name], cut) for found, cut in zip(ranks, cuts, strict=True)]
        merged.append(np.concatenate([part for step in zip(*batches, strict=True) for part in step]))
    return Scores(*merged)


def predict_split(
    path: Path,
    state: TrainingState,
    loader: BatchSource,
    dataset: Dataset,
    split: str,
    *,
    bf16: bool,
    device: torch.device,
    negatives: float = 1.0,
) -> int:
    """Score a split into a table of `ctr.predictions`, a batch at a time; returns the number of rows.

    Args:
        path: of the table.
        state: the weights.
        loader: of the split.
        dataset: which has it.
        split: its name.
        bf16: whether to compute in bfloat16.
        device: where the model is.
        negatives: the share of them that the training kept.

    Raises:
        DataError: the split has no rows.
    """
    outputs = outputs_of_run(state)

    def sampled(batch: Batch, logits: np.ndarray) -> tuple[np.ndarray, ...]:
        if batch.offset is None and negatives == 1.0:
            return ()
        of_log = 0.0 if batch.offset is None else batch.offset.numpy()
        return (probability(outputs.first_logit(logits) + of_log - np.log(negatives)),)

    scored = (
        scored_rows(outputs, batch.row_id.numpy(), logits)._replace(sampled=sampled(batch, logits))
        for batch, logits in score_batches(state, loader.iterate(0), bf16=bf16, device=device)
    )
    return predictions.write_predictions(path, SplitRows(dataset, split), scored)


def scored_rows(outputs: Outputs, row_id: np.ndarray, logits: np.ndarray) -> Scored:
    """What a table of predictions has of some rows.

    Args:
        outputs: of the run.
        row_id: int64 (N,).
        logits: float32 (N,), or (N, K) of a run with tasks.
    """
    raw = _flat(outputs.raw.scores(logits)) if outputs.calibration else ()
    return Scored(row_id, outputs.first_logit(logits), *outputs.scores(logits), raw)
