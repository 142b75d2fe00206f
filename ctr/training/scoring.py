"""A trained model over a split: scores in file order, streamed to a predictions table.

Columns: row_id, request_id, user_id (dense codes), time (seconds), label, score (probability, float64),
logit, and slice_<name> columns: history (length bucket, all domains together), known_user, item_age (days
since the item was first shown), and those the spec names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from ctr.batch import Batch
from ctr.distributed.world import World
from ctr.training.state import TrainingState
from features.dataset import SPLITS, Dataset, SplitData
from features.durable import replacing
from features.errors import DataError

HISTORY_BUCKETS = (0, 1, 5, 20, 50, 100)
AGE_BUCKETS = (0, 1, 3, 7, 14, 30)  # days
DAY = 86_400


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


def write_predictions(
    path: Path,
    state: TrainingState,
    loader: BatchSource,
    dataset: Dataset,
    split: str,
    *,
    bf16: bool,
    device: torch.device,
) -> int:
    """Score a split into a Parquet file, a batch at a time; returns the number of rows.

    The file appears whole or not at all.

    Raises:
        DataError: the split has no rows.
    """
    data = dataset.split(split)
    if not data.info.impressions:
        raise DataError(f"a split to score must have rows; {split} of {dataset.root} is empty: name another")
    slices = slice_columns(data, dataset.manifest.slices, list(dataset.manifest.domains))
    slices = slices.add_column(2, "slice_item_age", item_ages(dataset, data))  # before those of the spec
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, point="predictions") as partial, ExitStack() as opened:
        writer: pq.ParquetWriter | None = None
        start = 0
        for batch, logits in score_batches(state, loader.iterate(0), bf16=bf16, device=device):
            table = prediction_table(batch, logits, slices.slice(start, len(logits)))
            if writer is None:
                writer = opened.enter_context(
                    pq.ParquetWriter(partial, table.schema, write_page_checksum=True)
                )
            writer.write_table(table)
            start += len(logits)
    return start


def prediction_table(batch: Batch, logits: np.ndarray, slices: pa.Table) -> pa.Table:
    """The predictions of one batch, rows in the batch's order."""
    row = batch.request_index
    columns = {
        "row_id": batch.row_id.numpy(),
        "request_id": batch.request_id[row].numpy(),
        "user_id": batch.user_id[row].numpy(),
        "time": batch.time[row].numpy(),
        "label": batch.label.numpy().astype(np.int8),
        "score": probability(logits),
        "logit": logits,
    }
    table = pa.table(columns)
    for name in slices.column_names:
        table = table.append_column(name, slices[name])
    return table


def slice_columns(data: SplitData, names: list[str], domains: list[str]) -> pa.Table:
    """The slice_* columns of a split, one row per impression in file order."""
    requests = data.requests
    events = sum((_length(requests, d) for d in domains), np.zeros(requests.num_rows, dtype=np.int64))
    row = np.repeat(np.arange(requests.num_rows), np.diff(data.row_offsets))
    known = np.where(requests["known_user"].to_numpy(zero_copy_only=False), "known", "new")
    history = _bucket_labels(events, HISTORY_BUCKETS)
    columns = {"slice_history": pa.array(history[row]), "slice_known_user": pa.array(known[row])}
    columns |= {f"slice_{n}": pc.cast(data.impressions[f"slice.{n}"], pa.string()) for n in names}
    return pa.table(columns)


def item_ages(dataset: Dataset, data: SplitData) -> pa.Array:
    """Whole days from the first time that each row's item was shown to the row, as bucket labels."""
    first = np.full(dataset.manifest.items, np.iinfo(np.int64).max)
    for name in SPLITS:
        item, time = _shown(dataset.split(name))
        np.minimum.at(first, item, time)
    item, time = _shown(data)
    return pa.array(_bucket_labels((time - first[item]) // DAY, AGE_BUCKETS))


def _shown(data: SplitData) -> tuple[np.ndarray, np.ndarray]:
    """Item code and time of every row of a split."""
    time = np.repeat(data.requests["time"].to_numpy(), np.diff(data.row_offsets))
    return data.impressions["item_id"].to_numpy(), time


def _length(requests: pa.Table, domain: str) -> np.ndarray:
    return requests[f"end.{domain}"].to_numpy() - requests[f"start.{domain}"].to_numpy()


def _bucket_labels(values: np.ndarray, bounds: tuple[int, ...]) -> np.ndarray:
    """Each value's bucket in words; they sort by name, so the bounds are padded.

    Example:
        >>> _bucket_labels(np.array([0, 3, 9]), (0, 1, 5)).tolist()
        ['000', '001-004', '005+']
    """
    ends = [f"-{high - 1:03d}" if high - low > 1 else "" for low, high in pairwise(bounds)]
    labels = np.array([f"{low:03d}{end}" for low, end in zip(bounds, [*ends, "+"], strict=True)])
    return labels[np.searchsorted(bounds, values, side="right") - 1]
