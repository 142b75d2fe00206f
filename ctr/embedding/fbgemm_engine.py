"""Embedding tables in one FBGEMM table-batched embedding, TorchRec's kernel, updated inside backward.

On the CPU FBGEMM honours weight decay only without pooling, which is what unique IDs need anyway. The plain
rules of `ctr.sparse_optim` are the definition of what its kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Readable, as_sharded
from ctr.embedding.base import STEP, EmbeddingTables, fill_initial
from ctr.embedding.fbgemm_options import check_kernels, importing, update_options
from ctr.sparse_optim import optimizer_class
from features.errors import ConfigError


class FbgemmTables(EmbeddingTables):
    """Tables whose rows change inside ``backward``; `apply_gradients` has nothing left to do.

    Args: see `make_tables`.
    """

    def __init__(
        self, rows: dict[str, int], config: EmbeddingConfig, *, seed: int, device: torch.device
    ) -> None:
        super().__init__(rows, config, device=device)
        self._check_config()
        self._module = _make_module(rows, config, device)
        self._weight = dict(zip(rows, self._module.split_embedding_weights(), strict=True))
        for table, weight in self._weight.items():
            fill_initial(as_sharded(weight), table, config, seed=seed)

    def _check_config(self) -> None:
        remedy = "set embedding.engine to torch"
        if not self.rows:
            raise ConfigError(f"engine fbgemm needs at least one embedding table, got none; {remedy}")
        check_kernels(self.config, "fbgemm", self.device, remedy=remedy)

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables.lookup`."""
        self.check_ids(unique_ids)
        if not torch.is_grad_enabled():  # the module counts every forward as a step
            return {table: self._weight[table].index_select(0, ids) for table, ids in unique_ids.items()}
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        ids = [unique_ids.get(table, none) for table in self.rows]
        lengths = [len(part) for part in ids]
        offsets = torch.tensor([0, *lengths], device=self.device).cumsum(0)
        rows = self._module(torch.cat(ids), offsets).split(lengths)
        return {table: part for table, part in zip(self.rows, rows, strict=True) if table in unique_ids}

    def apply_gradients(self) -> None:
        """Do nothing: backward has updated the rows."""

    def discard(self) -> None:
        """Do nothing: a lookup without backward changed only the count of steps, which Adam alone reads."""

    def set_lr(self, lr: float) -> None:
        """See `EmbeddingTables.set_lr`."""
        super().set_lr(lr)
        self._module.set_learning_rate(lr)

    def load_state(self, state: Mapping[str, Readable]) -> None:
        """See `EmbeddingTables.load_state`."""
        super().load_state(state)
        self._module.iter_cpu.copy_(self._module.iter)  # the count it computes with; `iter` is what it saves

    def state(self) -> dict[str, Tensor]:
        """See `EmbeddingTables.state`; the names are those of the torch engine."""
        state = {STEP: self._module.iter}
        names = optimizer_class(self.config.optimizer).STATE
        for table, values in zip(self.rows, self._module.split_optimizer_states(), strict=True):
            state[f"{table}.weight"] = self._weight[table]
            state |= {f"{table}.{name}": value for name, value in zip(names, values, strict=True)}
        return state


def _make_module(rows: dict[str, int], config: EmbeddingConfig, device: torch.device) -> Any:
    """One module without pooling over all tables: (ΣU, E) out for (ΣU,) IDs in."""
    with importing("fbgemm"):
        from fbgemm_gpu import split_table_batched_embeddings_ops_common as common
        from fbgemm_gpu import split_table_batched_embeddings_ops_training as training
    on_gpu = device.type == "cuda"
    location = common.EmbeddingLocation.DEVICE if on_gpu else common.EmbeddingLocation.HOST
    compute = training.ComputeDevice.CUDA if on_gpu else training.ComputeDevice.CPU
    return training.SplitTableBatchedEmbeddingBagsCodegen(
        [(count, config.dim, location, compute) for count in rows.values()],
        pooling_mode=common.PoolingMode.NONE,
        device=device,
        **update_options(config),
    )
