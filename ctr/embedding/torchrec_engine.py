"""Embedding tables that the ranks of a job hold together, by TorchRec.

    rank 0: 7 2 9 ─┐                    ┌─► rows of 7 2 9      IDs go to the ranks that hold their rows, rows
                   ├─► all-to-all ─► rows                      come back; in backward the rows' gradients go
    rank 1: 2 5   ─┘                    └─► rows of 2 5        the way of the IDs and are summed there.

Only the distinct IDs of a batch travel, each once. A rank gives the gradient of its share of the job's one
mean loss: gradients are added, never divided, and an ID of several ranks gets one update with their sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Readable, Sharded, box
from ctr.distributed.world import World
from ctr.embedding.base import STEP, EmbeddingTables, fill_initial
from ctr.embedding.columns import EXACT_IN_COLUMNS, ColumnwiseAdagrad
from ctr.embedding.fbgemm_options import check_kernels
from ctr.embedding.torchrec_module import kernels, local_parts, make_module
from ctr.embedding.torchrec_plan import kinds_of
from ctr.sparse_optim import optimizer_class
from features.errors import ConfigError


class ShardedTables(EmbeddingTables):
    """Tables of which each rank holds a part; all ranks call every method together.

    `lookup` and `apply_gradients` talk to the other ranks, whether or not this one has IDs or gradients; so
    does a lookup without gradients. The update happens inside `apply_gradients`, in FBGEMM's backward.

    Args:
        rows: table → number of rows, the same on every rank.
        config: width, optimizer, sharding.
        seed: of the weights.
        world: the ranks.

    Raises:
        ConfigError: TorchRec is not installed, or cannot do what the configuration asks for.
    """

    collective = True

    def __init__(self, rows: dict[str, int], config: EmbeddingConfig, *, seed: int, world: World) -> None:
        super().__init__(rows, config, device=world.device)
        self.world = world
        kinds = kinds_of(rows, config)
        self._check_config(kinds)
        self._keys = {table: f"t{number}" for number, table in enumerate(rows)}  # TorchRec's may hold no dots
        exact = config.optimizer == EXACT_IN_COLUMNS
        self._columns = ColumnwiseAdagrad(
            {t: rows[t] for t, kind in kinds.items() if exact and kind == "column_wise"}, config, world
        )
        model = make_module(
            {key: rows[table] for table, key in self._keys.items()},
            {key: kinds[table] for table, key in self._keys.items()},
            config,
            scaled=[self._keys[table] for table in self._columns.sums],
            world=world,
        )
        self._module = model.module  # its steps are called one by one: for the count of bytes, and `scale`
        self._state = self._parts()
        for table in rows:
            fill_initial(self._state[f"{table}.weight"], table, config, seed=seed)
        self._step = torch.zeros(1, dtype=torch.int64)
        self._pending: list[list[tuple[Tensor, Tensor]]] = []  # per lookup and table: TorchRec's rows, leaf
        self._sent: dict[str, float] = {}

    def _check_config(self, kinds: Mapping[str, str]) -> None:
        check_kernels(self.config, "torchrec", self.device, remedy="set embedding.engine to torch")
        optimizer = self.config.optimizer
        in_columns = optimizer == EXACT_IN_COLUMNS or optimizer_class(optimizer).splits_by_column()
        if "column_wise" in kinds.values() and not in_columns:
            raise ConfigError(
                f"sharding column_wise needs an optimizer that updates columns apart, {optimizer} has a "
                "state of whole rows; set embedding.sharding to row_wise or table_wise"
            )

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables.lookup`; all ranks together, with gradients on all or on none."""
        self.check_ids(unique_ids)
        training = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        self._set_steps(int(self._step) + len(self._pending))
        # FBGEMM has no kernel for inference mode.
        with torch.inference_mode(False), torch.set_grad_enabled(training):
            found = self._exchange(self._features(unique_ids), training)
        given = {table: found[key].values() for table, key in self._keys.items()}
        if training:
            leaves = {table: rows.detach().requires_grad_() for table, rows in given.items()}
            self._pending.append([(given[table], leaf) for table, leaf in leaves.items()])
            given = leaves
        return {table: given[table] for table in unique_ids}

    def _features(self, unique_ids: dict[str, Tensor]) -> Any:
        """The IDs of all tables one after the other, as one sample of TorchRec's."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        none = torch.empty(0, dtype=torch.int64, device=self.device)
        ids = [unique_ids.get(table, none) for table in self.rows]
        lengths = torch.tensor([len(part) for part in ids], device=self.device)
        return KeyedJaggedTensor(keys=[*self._keys.values()], values=torch.cat(ids), lengths=lengths)

    def _exchange(self, features: Any, training: bool) -> Any:
        """IDs to their ranks, rows back."""
        module = self._module
        context = module.create_context()
        received = module.input_dist(context, features).wait().wait()
        outputs = module.compute(context, received)
        for kind, part, rows in zip(module._sharding_types, received, outputs, strict=True):
            if training and kind == "column_wise" and self._columns.sums:
                rows.register_hook(partial(self._columns.scale, self._segments(part), rows.detach()))
        if training:
            self._sent = self._count(context)
        return module.output_dist(context, outputs).wait()

    def _segments(self, received: Any) -> list[tuple[str, Tensor]]:
        tables = {key: table for table, key in self._keys.items()}
        ids = received.values().split(received.length_per_key())
        return [(tables[key], part) for key, part in zip(received.keys(), ids, strict=True)]

    def _count(self, context: Any) -> dict[str, float]:
        """Bytes of IDs (8 each), rows and rows' gradients (float32) that this rank sends to others."""
        sent = {"bytes_ids": 0.0, "bytes_rows": 0.0, "bytes_row_gradients": 0.0}
        for kind, exchanged in zip(self._module._sharding_types, context.sharding_contexts, strict=True):
            width = 4 * self._module._embedding_dim_for_sharding_type(kind)
            others = [rank for rank in range(self.world.size) if rank != self.world.rank]
            asked = sum(exchanged.input_splits[rank] for rank in others)
            sent["bytes_ids"] += 8 * asked
            sent["bytes_rows"] += width * sum(exchanged.output_splits[rank] for rank in others)
            sent["bytes_row_gradients"] += width * asked
        return sent

    def traffic(self) -> dict[str, float]:
        """See `EmbeddingTables.traffic`: `bytes_ids`, `bytes_rows`, `bytes_row_gradients`."""
        return dict(self._sent)

    def apply_gradients(self) -> None:
        """Send every lookup's gradients to the ranks that hold the rows, which update them.

        Rows without a gradient on this rank get zeros from it.
        """
        pending, self._pending = self._pending, []
        for lookup in pending:
            gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for _, leaf in lookup]
            torch.autograd.backward([rows for rows, _ in lookup], gradients)
            self._step += 1

    def discard(self) -> None:
        """See `EmbeddingTables.discard`."""
        self._pending = []

    def set_lr(self, lr: float) -> None:
        """See `EmbeddingTables.set_lr`."""
        super().set_lr(lr)
        for kernel in kernels(self._module):
            kernel.set_learning_rate(lr)

    def _set_steps(self, steps: int) -> None:
        """FBGEMM counts every forward as a step, also those of evaluation; Adam computes with the count."""
        for kernel in kernels(self._module):
            kernel.iter_cpu.fill_(steps)
            kernel.iter.fill_(steps)

    def state(self) -> dict[str, Tensor | Sharded]:
        """See `EmbeddingTables.state`: of each tensor the parts that this rank holds."""
        return {STEP: self._step, **self._state}

    def load_state(self, state: Mapping[str, Readable]) -> None:
        """See `EmbeddingTables.load_state`."""
        super().load_state(state)
        for table, sums in self._columns.sums.items():  # every rank has them, one saves them
            sums.copy_(state[f"{table}.sum"][box((0,), sums.shape)])

    @torch.no_grad()
    def restart(self, tables: Collection[str], *, seed: int, epoch: int) -> None:
        """See `EmbeddingTables.restart`."""
        super().restart(tables, seed=seed, epoch=epoch)
        for table, sums in self._columns.sums.items():
            if table in tables:
                sums.zero_()

    def _parts(self) -> dict[str, Sharded]:
        """Weights and optimizer state by their names in all engines."""
        rule = optimizer_class(self.config.optimizer)
        state = {f"{table}.weight": Sharded((rows, self.dim), []) for table, rows in self.rows.items()}
        state |= {
            f"{table}.{name}": Sharded(rule.state_shape(name, rows, self.dim), [])
            for table, rows in self.rows.items()
            for name in rule.STATE
        }
        tables = {key: table for table, key in self._keys.items()}
        for part in local_parts(self._module):
            state[f"{tables[part.table]}.weight"].parts.append((part.offset, part.weight))
            for name, values in zip(rule.STATE, part.states, strict=bool(part.states)):
                offset = part.offset[: values.ndim]
                state[f"{tables[part.table]}.{name}"].parts.append((offset, values))
        for number, (table, sums) in enumerate(self._columns.sums.items()):
            if number % self.world.size == self.world.rank:
                state[f"{table}.sum"].parts.append(((0,), sums))
        return state
