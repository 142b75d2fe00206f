"""A trained model over a split: scores in file order, in memory or streamed to a table of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ctr import predictions
from ctr.batch import Batch
from ctr.distributed.world import World
from ctr.predictions import SplitRows
from ctr.predictions.write import Scored
from ctr.training.state import TrainingState
from features.dataset import Dataset


class BatchSource(Protocol):
    """What gives every row of a split once, in file order: a loader, or one that changes its batches."""

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Scores:
    """Logits of a split in file order, with what the metrics group by; numpy arrays of equal length."""

    logit: np.ndarray  # float32
    label: np.ndarray  # float32
    user_id: np.ndarray  # int64
    request_id: np.ndarray  # int64

    @property
    def score(self) -> np.ndarray:
        """Click probabilities, float64."""
        return probability(self.logit)


_FIELDS = tuple(field.name for field in fields(Scores))


def probability(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−logit) in float64; exact enough that different float32 logits stay different."""
    wide = logit.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -wide))


@torch.inference_mode()
def score_batches(
    state: TrainingState, batches: Iterable[Batch], *, bf16: bool, device: torch.device
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Each batch with its logits (B,) float32."""
    with state.for_scoring() as model:
        for batch in batches:
            on_device = batch.to(device)
            rows = state.tables.lookup(on_device.unique_ids)  # by all ranks, also one without a batch
            if not batch.num_rows:
                yield batch, np.empty(0, dtype=np.float32)
                continue
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                logits = model(on_device, rows)
            yield batch, logits.float().cpu().numpy()


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
    parts = [
        Scores(
            logits,
            batch.label.numpy(),
            batch.user_id[batch.request_index].numpy(),
            batch.request_id[batch.request_index].numpy(),
        )
        for batch, logits in score_batches(state, loader.iterate(0), bf16=bf16, device=device)
    ]
    own = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _FIELDS}
    own["rows"] = np.array([len(p.logit) for p in parts])
    gathered = (world or World.single()).gather_arrays(own)
    return _in_file_order(gathered) if gathered else None


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
) -> int:
    """Score a split into a table of `ctr.predictions`, a batch at a time; returns the number of rows.

    Raises:
        DataError: the split has no rows.
    """
    scored = (
        Scored(batch.row_id.numpy(), logits, probability(logits))
        for batch, logits in score_batches(state, loader.iterate(0), bf16=bf16, device=device)
    )
    return predictions.write_predictions(path, SplitRows(dataset, split), scored)
