"""One training step: forward, checks, backward, update of the touched rows and of the dense weights.

A batch may come in parts (`ctr.training.micro_batches`): forward and backward of each, and everything else
once.

The sparse rows are updated with the gradient of this very step, the dense weights with this step's or the one
before (`ctr.training.staleness`). Gradient clipping concerns the dense weights; row-wise optimizers bound the
rows' steps themselves. Several processes take one step together: each on its share of the batch, with one
loss, one decision and the same dense weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.config import RunConfig
from ctr.distributed.gradients import DenseGradients, GradientExchange, Reduce, over_ranks
from ctr.distributed.world import World
from ctr.embedding import EmbeddingTables
from ctr.errors import NonFiniteError
from ctr.training.column_gates import ClosingGates
from ctr.training.losses import PLAIN, all_finite, mean_over_rows
from ctr.training.micro_batches import PartialLoss, parts_of, rows_of
from ctr.training.objective import Objective, TasksObjective, objective_of
from ctr.training.optim import AveragedWeights, rate_factor
from ctr.training.speed import keep_freed_memory
from ctr.training.staleness import DenseUpdate, PendingGradients
from ctr.training.status import StepResult, StepStatus
from features.durable.faults import fault_point
from features.errors import ConfigError, DataError


class Updates:
    """Applies batches to a model and its tables.

    Args:
        model: called as model(batch, rows) → logits (B,).
        tables: the embedding tables.
        optimizer: of the dense weights.
        averaged: moving average of the dense weights, or None.
        config: optimizer, embedding and precision settings.
        total_steps: length of the learning-rate schedule.
        pending: the dense gradient that waits from step to step; its own if None.
        world: the processes of the job; one if None.
        reduce: sums dense gradients; None: over the ranks (measurements put a slow network here).
        objective: from what the model gives, and the batch, to the loss; None: see `objective_of`.

    Raises:
        ConfigError: batches are to come in parts, and the objective does not know of them.
    """

    def __init__(
        self,
        model: nn.Module,
        tables: EmbeddingTables,
        optimizer: torch.optim.Optimizer,
        *,
        averaged: AveragedWeights | None,
        config: RunConfig,
        total_steps: int,
        pending: PendingGradients | None = None,
        world: World | None = None,
        reduce: Reduce | None = None,
        objective: Objective | None = None,
    ) -> None:
        if objective is not None and config.loader.micro_batches > 1:
            raise ConfigError(
                "loader.micro_batches must be 1 for a model that gives its loss itself, as a mean that parts "
                f"do not add up to, got {config.loader.micro_batches}; lower loader.batch_rows instead"
            )
        if averaged is not None:
            averaged.begin(total_steps)
        gates = config.model.column_gates
        self.model = model
        self.objective = objective or objective_of(
            model, loss=config.train.loss, distill=config.train.distill
        )
        self.task_names = self.objective.names if isinstance(self.objective, TasksObjective) else []
        self.tables = tables
        self.config = config
        self.total_steps = total_steps
        self.dense = DenseUpdate(
            model,
            optimizer,
            averaged=averaged,
            config=config.optimizer,
            pending=pending or PendingGradients(),
            gates=None if gates is None else ClosingGates(model, optimizer, gates.l1),
        )
        self.world = world or World.single()
        self.skipped_in_a_row = 0
        self.exchange = GradientExchange(
            model.parameters(),
            reduce=reduce or over_ranks(self.world.dense),
            bucket_bytes=int(config.distributed.bucket_mb * 2**20),
        )

    @property
    def shown(self) -> dict[str, Any]:
        """What `RunningLoss.take` must know: whether NE says something of this loss, and the first task."""
        train = self.config.train
        plain = train.loss == PLAIN and (train.distill is None or train.distill.weight == 0)
        return {"ne": plain, "first": next(iter(self.task_names), None)}

    def step(self, batch: Batch, step: int, *, stopping: bool = False) -> StepResult:
        """Train on one batch, all ranks together.

        Args:
            batch: this rank's share; without requests where there were too few for all.
            step: counts from 0.
            stopping: whether this rank was asked to stop; all hear of it.

        Raises:
            NonFiniteError: a logit, the loss or a gradient is NaN or infinite on some rank (after
                `max_skipped` in a row with `non_finite: skip`). Nothing has been updated then.
        """
        keep_freed_memory()  # in processes that train: others may want to give it back
        rate = self._begin(step)
        rows = self.tables.lookup(batch.unique_ids)
        # A fused engine updates in its backward: cut off, it waits until every gradient is known and checked.
        leaves = {table: part.detach().requires_grad_() for table, part in rows.items()}
        loss, dense = self._backward(batch, leaves, step)
        dense.rate = rate
        gradients = self._row_gradients(leaves)
        status = self._agree(batch, loss, dense, gradients, stopping)
        due = self.dense.due(dense)
        problem = status.problem
        if problem is None and due is not None and not all_finite(due.global_norm()):
            problem = "the sum of the ranks' gradients"
            self.dense.pending.drop()  # where it was an earlier step's, that step is dropped too
        if problem is not None:
            return self._skip_or_raise(batch, step, problem, status, dense)
        self.tables.backward(rows, gradients)
        self.tables.apply_gradients()
        norm = self.dense.advance(dense)
        self.skipped_in_a_row = 0
        return self._result(status, status.loss, None if norm is None else norm.item(), rate)

    def finish(self) -> None:
        """Apply the gradient that still waits, at the end of training.

        Raises:
            NonFiniteError: the sum of the ranks' gradients is not finite; it is dropped if such are skipped.
        """
        if not self.dense.finish() and self.config.train.non_finite == "stop":
            raise NonFiniteError(
                "the sum of the ranks' gradients of the last step must be finite, it is not; lower "
                "optimizer.lr, or set train.non_finite: skip"
            )

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of the forward pass; weights stay float32."""
        return torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=self.config.train.precision == "bf16"
        )

    def _begin(self, step: int) -> float:
        """Set the tables' rate and, for several ranks, the random state; returns the dense rate."""
        factor = rate_factor(step, self.total_steps, self.config.optimizer)
        self.tables.set_lr(self.config.embedding.lr * factor)
        if self.world.size > 1:  # ranks draw apart, and a resumed job draws the same without saved states
            entropy = [self.config.seed % 2**64, step, self.world.rank]
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
        return self.config.optimizer.lr * factor

    def _backward(
        self, batch: Batch, leaves: dict[str, Tensor], step: int
    ) -> tuple[PartialLoss, DenseGradients]:
        """Forward and backward of each part, up to one that is not finite: then all is dropped."""
        computed, parts = PartialLoss(), parts_of(batch)
        self.exchange.begin()
        for number, part in enumerate(parts, start=1):
            loss = self._part_loss(part, rows_of(part, batch, leaves), step, computed)
            if not computed.finite:
                break
            with self.exchange.filling(last=number == len(parts)):
                loss.backward()
        return computed, self.exchange.finish(drop=not computed.finite)

    def _part_loss(self, part: Batch, rows: dict[str, Tensor], step: int, computed: PartialLoss) -> Tensor:
        """The loss of a part, counted in `computed` if it and all logits are finite."""
        with self.autocast(part.label.device):
            logits = self.model(part, rows)
        loss = self.objective(logits, part)
        if fault_point("loss", step):
            loss = loss * float("nan")
        extra: Tensor | None = getattr(self.model, "extra_loss", None)
        total = loss if extra is None else loss + mean_over_rows(extra, next(iter(part.targets.values())))
        computed.finite = all_finite(total, logits)
        if computed.finite:
            computed.loss += loss.item()
            if isinstance(self.objective, TasksObjective):
                computed.add_tasks(self.objective.latest)
        return total

    def _row_gradients(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the tables that the loss depends on; with several ranks of all, as some rank's loss may."""
        if self.world.size == 1:
            return {table: leaf.grad for table, leaf in leaves.items() if leaf.grad is not None}
        return {
            table: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for table, leaf in leaves.items()
        }

    def _agree(
        self,
        batch: Batch,
        computed: PartialLoss,
        dense: DenseGradients,
        gradients: dict[str, Tensor],
        stopping: bool,
    ) -> StepStatus:
        """One small sum over the ranks: the loss, what was counted, what is wrong, who shall stop."""
        sound = not computed.finite or all_finite(dense.local_norm, *gradients.values())
        weight, positives = next(iter(batch.targets.values())).sums()
        own = StepStatus(
            loss=computed.loss,
            rows=batch.num_rows,
            weight=weight,
            positives=positives,
            bad_forward=not computed.finite,
            bad_gradient=not sound,
            stopping=stopping,
            task_losses=[computed.tasks.get(task, 0.0) for task in self.task_names],
        )
        total = own.summed(self.world)
        if batch.total_rows is not None and total.rows != batch.total_rows:
            raise DataError(
                f"the ranks' shares of a batch must make up its {batch.total_rows} rows, got "
                f"{total.rows:.0f}; all ranks must read the same data set with the same versions"
            )
        return total

    def _result(self, status: StepStatus, loss: float | None, norm: float | None, rate: float) -> StepResult:
        return StepResult(
            loss,
            int(status.rows),
            status.weight,
            status.positives,
            norm,
            rate,
            in_flight=self.dense.pending.nbytes,
            stopping=status.stopping > 0,
            task_losses=dict(zip(self.task_names, status.task_losses, strict=True)),
        )

    def _skip_or_raise(
        self, batch: Batch, step: int, problem: str, status: StepStatus, dense: DenseGradients
    ) -> StepResult:
        """Drop the step, or stop: which, and how many in a row, is configured."""
        self.tables.discard()
        dense.release()
        self.skipped_in_a_row += 1
        train = self.config.train
        if train.non_finite == "stop" or self.skipped_in_a_row > train.max_skipped:
            raise NonFiniteError(self._error_message(batch, step, problem))
        return self._result(status, None, float("nan"), dense.rate)

    def _error_message(self, batch: Batch, step: int, problem: str) -> str:
        dense = {
            k: v.abs().max().item()
            for k, v in {**batch.request_dense, **batch.candidate_dense}.items()
            if v.numel()
        }
        whose = f" of rank {self.world.rank}, perhaps not the one at fault," if self.world.size > 1 else ""
        return (
            f"every loss, logit and gradient must be finite; {problem} of step {step} is not. Rows "
            f"{batch.row_id[:5].tolist()}… of requests {batch.request_id[:5].tolist()}…,{whose} largest "
            f"dense values {dense}. Lower optimizer.lr or embedding.lr, look at ctr doctor, or set "
            "train.non_finite: skip"
        )
