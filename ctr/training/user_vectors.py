"""A table of user vectors: what a model makes of a user's history at each request, whoever is the candidate.

    user      the raw key, as in the log
    as_of     int64, seconds: the request, whose history is strictly before it
    vector    list of float32
    version   of the run and its weights: vectors of two versions have nothing to do with each other

Another data set reads it as a domain (docs/user-vectors.md), so that a run there sees the newest vector of a
user strictly before its own requests.

R requests, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.predictions.write import write_rows
from ctr.training.state import TrainingState
from features.dataset import Dataset
from features.errors import ConfigError, DataError

_WIDEST = 4096  # numbers of a vector


def vector_of(state: RequestState) -> Tensor | None:
    """(R, W): the whole of what a model keeps of the sequences; None where that is more than a vector."""
    parts = [state.summary, *(side.summary for side in state.sides)]
    found = [part.flatten(1) for part in parts if part is not None]
    of_sides = all(side.summary is not None and not side.events and not side.kvs for side in state.sides)
    if not found or not of_sides or state.kvs or state.events:
        return None
    whole = torch.cat(found, dim=1)
    return whole if whole.shape[1] <= _WIDEST else None


def write_user_vectors(
    path: Path,
    state: TrainingState,
    batches: Iterable[Batch],
    dataset: Dataset,
    *,
    version: str,
    bf16: bool,
    device: torch.device,
) -> int:
    """Write the vector of each request of some batches; returns their number.

    Args:
        path: the Parquet file; it appears whole or not at all.
        state: the model and its tables.
        batches: of whole requests.
        dataset: that they are from.
        version: of run and weights.
        bf16: whether the forward is computed in bfloat16.
        device: where.

    Raises:
        ConfigError: the model's state of a request is no vector.
        DataError: the data set does not hold the users' raw keys.
    """
    if (keys := dataset.keys("users")) is None:
        raise DataError(f"{dataset.root} holds no raw keys of users; prepare it again with this version")
    tables = _tables(state, batches, keys, version, bf16=bf16, device=device)
    return write_rows(path, tables, point="user_vectors")


@torch.inference_mode()
def _tables(
    state: TrainingState,
    batches: Iterable[Batch],
    keys: pa.Array,
    version: str,
    *,
    bf16: bool,
    device: torch.device,
) -> Iterator[pa.Table]:
    with state.for_scoring() as model:
        assert isinstance(model, Model)
        for batch in batches:
            on_device = batch.to(device)
            rows = state.tables.lookup(on_device.unique_ids)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                vector = vector_of(model.encode(on_device, rows))
            if vector is None:
                raise ConfigError(
                    "a user vector must be all that a model keeps of a request's history, in at most "
                    f"{_WIDEST:,} numbers, which that of model.kind {model.config.kind} is not; train one of "
                    "kind grid with model.sequence.kind pooling, recurrent or convolution, or of longer with "
                    "model.sequence.global_tokens: false"
                )
            values = pa.array(vector.float().cpu().flatten().numpy())
            ends = pa.array(range(0, len(values) + 1, vector.shape[1]), pa.int32())
            yield pa.table(
                {
                    "user": keys.take(pa.array(batch.user_id.numpy())),
                    "as_of": pa.array(batch.time.numpy(), pa.int64()),
                    "vector": pa.ListArray.from_arrays(ends, values),
                    "version": pa.array([version] * len(batch.user_id)),
                }
            )
