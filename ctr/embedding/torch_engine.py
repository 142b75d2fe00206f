"""Embedding tables in plain torch, on any device: the oracle of the other engine, and a real one itself."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import as_sharded
from ctr.embedding.base import STEP, EmbeddingTables, fill_initial
from ctr.sparse_optim import optimizer_class


class TorchTables(EmbeddingTables):
    """Tables whose looked-up rows are autograd leaves; `apply_gradients` updates them right after backward.

    All tables lie one behind the other in one tensor, so that a step gathers once and updates once, however
    many tables there are.

    Args: see `make_tables`.
    """

    def __init__(
        self, rows: dict[str, int], config: EmbeddingConfig, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(rows, config, device=device)
        self._first = dict(zip(rows, accumulate(rows.values(), initial=0), strict=False))
        total = sum(rows.values())
        self._weight = torch.empty(total, config.dim, device=device)
        for table, part in self._split(self._weight).items():
            fill_initial(as_sharded(part), table, config, seed=seed)  # with no second copy
        rule = optimizer_class(config.optimizer)
        self._optimizer = rule(total, config.dim, config.sparse_options(), device)
        self._step = torch.zeros(1, dtype=torch.int64)
        # Per lookup: indices into `_weight`, and each table's rows as a leaf. (With one leaf for all, their
        # gradients would be copied once more, to put them together.)
        self._pending: list[tuple[Tensor, list[Tensor]]] = []

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables.lookup`."""
        self.check_ids(unique_ids)
        if not unique_ids:
            return {}
        index = torch.cat([ids + self._first[table] for table, ids in unique_ids.items()])
        sizes = [len(ids) for ids in unique_ids.values()]
        with torch.no_grad():
            parts = list(self._weight.index_select(0, index).split(sizes))
        if torch.is_grad_enabled():
            self._pending.append((index, [part.requires_grad_() for part in parts]))
        return dict(zip(unique_ids, parts, strict=True))

    def backward(self, rows: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        """See `EmbeddingTables.backward`; the rows are leaves, nothing is copied."""
        for table, gradient in gradients.items():
            rows[table].grad = gradient

    @torch.no_grad()
    def apply_gradients(self) -> None:
        """Update with every lookup that a backward reached; tables it did not reach then have gradient 0."""
        pending, self._pending = self._pending, []
        for index, leaves in pending:
            if any(leaf.grad is not None for leaf in leaves):
                self._update(index, gradients_of(leaves))

    def _update(self, index: Tensor, gradients: list[Tensor]) -> None:
        self._step += 1
        self._optimizer.update(self._weight, index, gradients, lr=self.lr, step=int(self._step))

    def discard(self) -> None:
        """See `EmbeddingTables.discard`."""
        self._pending = []

    def state(self) -> dict[str, Tensor]:
        """See `EmbeddingTables.state`: `<table>.weight`, `<table>.<optimizer state>` and `step`."""
        state = {STEP: self._step}
        for name, whole in {"weight": self._weight, **self._optimizer.state()}.items():
            state |= {f"{table}.{name}": part for table, part in self._split(whole).items()}
        return state

    def _split(self, whole: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.rows, whole.split(list(self.rows.values())), strict=True))


def gradients_of(leaves: list[Tensor]) -> list[Tensor]:
    """Their gradients, zeros where there is none."""
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
