"""Embedding tables in plain torch, on any device: the oracle of the other engine, and a real one itself."""

from __future__ import annotations

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.embedding.base import STEP, EmbeddingTables, initial_weight
from ctr.embedding.sparse_optim import OPTIMIZERS, SparseOptimizer


class TorchTables(EmbeddingTables):
    """Tables whose looked-up rows are autograd leaves; `apply_gradients` updates them right after backward.

    Args: see `make_tables`.
    """

    def __init__(
        self, rows: dict[str, int], config: EmbeddingConfig, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(rows, config, device=device)
        self._weight = {
            table: initial_weight(table, count, config, seed=seed).to(device) for table, count in rows.items()
        }
        make = OPTIMIZERS[config.optimizer]
        self._optimizer: dict[str, SparseOptimizer] = {
            table: make(count, config, device) for table, count in rows.items()
        }
        self._step = torch.zeros(1, dtype=torch.int64)
        self._pending: list[dict[str, tuple[Tensor, Tensor]]] = []  # per lookup: table → IDs, leaf

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables.lookup`."""
        self.check_ids(unique_ids)
        with torch.no_grad():
            rows = {table: self._weight[table].index_select(0, ids) for table, ids in unique_ids.items()}
        if torch.is_grad_enabled():
            for leaf in rows.values():
                leaf.requires_grad_()
            self._pending.append({table: (ids, rows[table]) for table, ids in unique_ids.items()})
        return rows

    @torch.no_grad()
    def apply_gradients(self) -> None:
        """Update with every lookup that a backward reached; tables it did not reach then have gradient 0."""
        pending, self._pending = self._pending, []
        for lookup in pending:
            if all(leaf.grad is None for _, leaf in lookup.values()):
                continue
            self._step += 1
            for table, (ids, leaf) in lookup.items():
                gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                self._optimizer[table].update(
                    self._weight[table], ids, gradient, lr=self.lr, step=int(self._step)
                )

    def discard(self) -> None:
        """See `EmbeddingTables.discard`."""
        self._pending = []

    def state(self) -> dict[str, Tensor]:
        """See `EmbeddingTables.state`: `<table>.weight`, `<table>.<optimizer state>` and `step`."""
        state = {STEP: self._step}
        for table, weight in self._weight.items():
            state[f"{table}.weight"] = weight
            state |= {f"{table}.{name}": value for name, value in self._optimizer[table].state().items()}
        return state
