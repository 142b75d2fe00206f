"""Tables of several widths behind one interface: an engine for each width."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Readable, Sharded
from ctr.embedding.base import STEP, EmbeddingTables, check_state


class TablesByWidth(EmbeddingTables):
    """Every call goes to the engines of all widths; what they return is put together.

    The state is that of the engines. The count of steps is `step` for width `config.dim`, the usual one, and
    `step.<width>` for the others.

    Args:
        engines: width → tables of that width, of distinct names.
        config: of the usual width.
        device: where the tables live.
    """

    def __init__(
        self, engines: dict[int, EmbeddingTables], config: EmbeddingConfig, *, device: torch.device
    ) -> None:
        rows = {table: count for engine in engines.values() for table, count in engine.rows.items()}
        super().__init__(rows, config, device=device)
        self._engines = engines

    @property
    def num_parameters(self) -> int:
        """See `EmbeddingTables.num_parameters`."""
        return sum(engine.num_parameters for engine in self._engines.values())

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables.lookup`; a table is as wide as it was made."""
        self.check_ids(unique_ids)
        found: dict[str, Tensor] = {}
        for engine in self._engines.values():
            part = {table: ids for table, ids in unique_ids.items() if table in engine.rows}
            if part or engine.collective:
                found |= engine.lookup(part)
        return {table: found[table] for table in unique_ids}

    def apply_gradients(self) -> None:
        """See `EmbeddingTables.apply_gradients`."""
        for engine in self._engines.values():
            engine.apply_gradients()

    def discard(self) -> None:
        """See `EmbeddingTables.discard`."""
        for engine in self._engines.values():
            engine.discard()

    def set_lr(self, lr: float) -> None:
        """See `EmbeddingTables.set_lr`."""
        super().set_lr(lr)
        for engine in self._engines.values():
            engine.set_lr(lr)

    def load_state(self, state: Mapping[str, Readable]) -> None:
        """See `EmbeddingTables.load_state`."""
        check_state(self.state(), state)
        for width, engine in self._engines.items():
            own = engine.state()
            engine.load_state({name: state[self._name(name, width)] for name in own})

    def state(self) -> dict[str, Tensor | Sharded]:
        """See `EmbeddingTables.state`."""
        return {
            self._name(name, width): tensor
            for width, engine in self._engines.items()
            for name, tensor in engine.state().items()
        }

    def restart(self, tables: Collection[str], *, seed: int, epoch: int) -> None:
        """See `EmbeddingTables.restart`."""
        for engine in self._engines.values():
            engine.restart([table for table in tables if table in engine.rows], seed=seed, epoch=epoch)

    def traffic(self) -> dict[str, float]:
        """See `EmbeddingTables.traffic`; the sum over the widths."""
        total: dict[str, float] = {}
        for engine in self._engines.values():
            for kind, sent in engine.traffic().items():
                total[kind] = total.get(kind, 0.0) + sent
        return total

    def _name(self, name: str, width: int) -> str:
        return f"{STEP}.{width}" if name == STEP and width != self.config.dim else name
