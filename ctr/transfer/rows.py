"""Embedding rows of another run, put where their values are now; a row that is new stays as it was drawn.

The rows are read a piece at a time and only as far as this process holds them, whatever the engine: each
loads a state of its own names and shapes, and so does not know that it was put together.

V_old, V_new rows of a table there and here, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctr.distributed.shards import Readable, Sharded, as_sharded, box
from ctr.embedding import EmbeddingTables

_PIECE = 2**16  # rows read at once


@dataclass(frozen=True)
class TakenRows:
    """A tensor of a table here, with rows of the same tensor there; read like a stored tensor.

    Args:
        own: its values here, as they were drawn.
        stored: the tensor there, of V_old rows.
        new_rows: int64 (V_old,), the row here of each row there; −1 where it has none.
    """

    own: Sharded
    stored: Readable
    new_rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor here."""
        return self.own.shape

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        """A part of it: one that this process holds, or one of the optimizer's state, which begins at 0."""
        values = torch.zeros([s.stop - s.start for s in index], dtype=torch.float32)
        for offset, part in self.own.parts:
            if box(offset, part.shape) == index:
                values = part.detach().clone()
        for first in range(0, len(self.new_rows), _PIECE):
            rows = self.new_rows[first : first + _PIECE]
            here = (rows >= index[0].start) & (rows < index[0].stop)
            if here.any():
                piece = self.stored[(slice(first, first + len(rows)), *index[1:])]
                places = torch.from_numpy(rows[here] - index[0].start).to(values.device)
                values[places] = piece[torch.from_numpy(here)].to(values.device)
        return values


def take_rows(
    tables: EmbeddingTables,
    stored: Mapping[str, Readable],
    maps: Mapping[str, np.ndarray],
    *,
    keep_optimizer: bool,
) -> None:
    """Load the rows of another run's tables into fresh ones; all ranks together.

    Args:
        tables: fresh.
        stored: weights and optimizer state there, under the names of all engines.
        maps: table → int64 (V_old,) rows here; tables that are left out begin anew.
        keep_optimizer: whether the optimizer's state of these rows goes with them, and the count of steps.
    """
    own = tables.state()
    nothing = np.empty(0, dtype=np.int64)
    state: dict[str, Readable] = {}
    for name, tensor in own.items():
        table, _, part = name.rpartition(".")
        if table not in tables.rows:  # a count of steps
            state[name] = stored[name] if keep_optimizer and name in stored else _copy(tensor)
            continue
        taken = table in maps and (part == "weight" or keep_optimizer)
        source = stored[name] if taken else _NOTHING
        state[name] = TakenRows(as_sharded(tensor), source, maps[table] if taken else nothing)
    tables.load_state(state)


_NOTHING = torch.empty(0)


def _copy(tensor: Tensor | Sharded) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor.clone()
