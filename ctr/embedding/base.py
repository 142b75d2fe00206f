"""What every embedding engine offers, and what all share: initial weights and the format of the state.

U unique IDs of one table in a batch, E embedding width.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Readable, Sharded, as_sharded
from ctr.errors import CheckpointError
from ctr.sparse_optim import optimizer_class

STEP = "step"
_CHUNK = 2**16  # rows made at once; a multiple of 16, see `_chunks`


class EmbeddingTables(ABC):
    """The embedding tables of a model and their optimizer, which updates only the rows that were looked up.

    A training step is ``rows = tables.lookup(batch.unique_ids)``, forward, ``loss.backward()``,
    ``tables.apply_gradients()``. A fused engine has applied the update when ``backward`` through the rows
    returns, so what must not be learned from has to be found before: `ctr.training.step` gives the model
    detached rows and hands their gradients over once they are checked. `discard` forgets a lookup.

    Args:
        rows: table → number of rows.
        config: width and optimizer.
        device: where the tables live.
    """

    collective = False  # whether a lookup takes all ranks together, those without IDs too

    def __init__(self, rows: dict[str, int], config: EmbeddingConfig, *, device: torch.device) -> None:
        self.rows = dict(rows)
        self.config = config
        self.device = device
        self.lr = config.lr

    @property
    def dim(self) -> int:
        """E."""
        return self.config.dim

    @property
    def num_parameters(self) -> int:
        """Weights of all tables, without optimizer state."""
        return self.dim * sum(self.rows.values())

    @abstractmethod
    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of the given IDs; under `torch.no_grad` they leave no trace.

        Args:
            unique_ids: table → (U,) int64 in [0, rows), each ID at most once; tables may be left out.

        Returns:
            table → (U, E) float32, whatever autocast says.

        Raises:
            ValueError: an unknown table or, on the CPU, an ID outside its table.
        """

    def backward(self, rows: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        """Hand over the gradients of looked-up rows; a fused engine updates the rows now.

        Args:
            rows: what `lookup` returned.
            gradients: table → (U, E), of some of these tables.
        """
        if gradients:
            torch.autograd.backward([rows[table] for table in gradients], list(gradients.values()))

    @abstractmethod
    def apply_gradients(self) -> None:
        """Update the looked-up rows with the gradients that backward left; does nothing in a fused engine."""

    @abstractmethod
    def discard(self) -> None:
        """Forget lookups and gradients that were not applied (for a skipped step)."""

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the updates to come."""
        self.lr = lr

    @abstractmethod
    def state(self) -> Mapping[str, Tensor | Sharded]:
        """Return weights, optimizer state and step counter; names and whole shapes of all engines agree.

        The tensors are the live ones: write or copy them before the next step.
        """

    def load_state(self, state: Mapping[str, Readable]) -> None:
        """Copy a state back, bit by bit; of stored tensors only the parts that this process holds are read.

        Raises:
            CheckpointError: names or shapes that are not those of these tables; nothing is changed then.
        """
        own = self.state()
        check_state(own, state)
        for name, held in own.items():
            as_sharded(held).load(state[name])
        self.discard()

    @torch.no_grad()
    def restart(self, tables: Collection[str], *, seed: int, epoch: int) -> None:
        """Give tables new initial weights, a function of (seed, table, epoch), and no optimizer state.

        The rest of a model then meets, in every epoch, embeddings that have not seen the epoch's labels.

        Source: MEDA (arXiv 2305.19531). The count of steps, which all tables share, goes on.
        """
        kept = optimizer_class(self.config.optimizer).STATE
        state = self.state()
        for table in tables:
            for name in kept:
                for _, part in as_sharded(state[f"{table}.{name}"]).parts:
                    part.zero_()
            weight = as_sharded(state[f"{table}.weight"])
            fill_initial(weight, table, self.config, seed=seed, epoch=epoch)

    def traffic(self) -> dict[str, float]:
        """Bytes that this process sent to others in the last training step, by kind; none in one process."""
        return {}

    def check_ids(self, unique_ids: dict[str, Tensor]) -> None:
        """Check tables and, where it costs no waiting for a GPU, IDs."""
        for table, ids in unique_ids.items():
            if table not in self.rows:
                raise ValueError(
                    f"tables must be among {sorted(self.rows)}, got {table!r}; use the data set's manifest"
                )
            if ids.device.type != "cpu" or not len(ids):
                continue
            values = ids.numpy()  # a step asks for every table: torch's own reductions cost more to call
            low, high = values.min(), values.max()
            if low < 0 or high >= self.rows[table]:
                raise ValueError(
                    f"IDs of table {table!r} must lie in [0, {self.rows[table]}) (its rows), "
                    f"got {low} to {high}; prepare the data with the vocabulary this model was made for"
                )


def fill_initial(held: Sharded, table: str, config: EmbeddingConfig, *, seed: int, epoch: int = 0) -> None:
    """Give the parts of a table that this process holds their values of N(0, init_std²).

    They are a function of the seed, the table's name and the place in the whole table alone. In a later
    epoch, for a table that is drawn anew, they are others. The table is made in pieces, so that no process
    needs memory for all of it.
    """
    for first, values in _chunks(table, held.shape[0], config, seed=seed, epoch=epoch):
        for (row, column), part in held.parts:
            low, high = max(row, first), min(row + len(part), first + len(values))
            if low < high:
                part[low - row : high - row] = values[
                    low - first : high - first, column : column + part.shape[1]
                ]


def _chunks(
    table: str, rows: int, config: EmbeddingConfig, *, seed: int, epoch: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Pieces of rows, each with its first row: torch draws the same numbers as for all rows at once.

    Its normal generator works on blocks of 16 numbers and treats the last block apart, so every piece but the
    last is whole blocks, and the last is never shorter than one.
    """
    drawn_again = f":epoch {epoch}" if epoch else ""
    digest = hashlib.sha256(f"{seed}:{table}{drawn_again}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    pieces = max(rows // _CHUNK, 1)
    for first in range(0, pieces * _CHUNK, _CHUNK):
        size = _CHUNK if first < (pieces - 1) * _CHUNK else rows - first
        yield first, torch.randn(size, config.dim, generator=generator).mul_(config.init_std)


def check_state(own: Mapping[str, Tensor | Sharded], other: Mapping[str, Readable]) -> None:
    """Check that a state has the names and shapes of `own`."""
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in other.items()}
    if wanted == found:
        return
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    details = "; ".join(f"{name}: {wanted.get(name)} here, {found.get(name)} there" for name in different[:5])
    raise CheckpointError(
        f"the saved embedding tables must have the names and shapes of this model, {len(different)} differ "
        f"({details}); use the data set and the embedding config they were saved with"
    )
