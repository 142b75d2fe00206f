"""One training step: forward, checks, backward, update of the touched rows and of the dense weights.

The sparse rows are updated with the gradient of this very step (HyFormer §3.8.2, W_k = W_{k−1} + g_k); so are
the dense weights. Gradient clipping concerns the dense weights; row-wise optimizers bound the rows' steps
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.config import RunConfig
from ctr.embedding import EmbeddingTables
from ctr.errors import NonFiniteError
from ctr.faults import fault_point
from ctr.losses import all_finite, click_loss
from ctr.optim import AveragedWeights, rate_factor


@dataclass(frozen=True)
class StepResult:
    """What one step did; `loss` is None where a non-finite step was skipped."""

    loss: float | None
    rows: int
    positives: float
    grad_norm: float
    rate: float


class Updates:
    """Applies batches to a model and its tables.

    Args:
        model: called as model(batch, rows) → logits (B,).
        tables: the embedding tables.
        optimizer: of the dense weights.
        averaged: moving average of the dense weights, or None.
        config: optimizer, embedding and precision settings.
        total_steps: length of the learning-rate schedule.
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
    ) -> None:
        self.model = model
        self.tables = tables
        self.optimizer = optimizer
        self.averaged = averaged
        self.config = config
        self.total_steps = total_steps
        self.skipped_in_a_row = 0

    def step(self, batch: Batch, step: int) -> StepResult:
        """Train on one batch; `step` counts from 0.

        Raises:
            NonFiniteError: a logit, the loss or a gradient is NaN or infinite (after `max_skipped` in a row
                with `non_finite: skip`). Nothing has been updated then.
        """
        rate = self._set_rates(step)
        rows = self.tables.lookup(batch.unique_ids)
        # A fused engine updates in its backward: cut off, it waits until every gradient is known and checked.
        seen = {table: part.detach().requires_grad_() for table, part in rows.items()}
        with self.autocast(batch.label.device):
            logits = self.model(batch, seen)
        loss = click_loss(logits, batch.label)
        if fault_point("loss", step):
            loss = loss * float("nan")
        if not all_finite(loss, logits):
            return self._refuse(batch, step, "the loss or a logit", rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = self._clip()
        gradients = {table: part.grad for table, part in seen.items() if part.grad is not None}
        if not all_finite(norm, *gradients.values()):
            return self._refuse(batch, step, "a gradient", rate)
        if gradients:
            torch.autograd.backward([rows[table] for table in gradients], list(gradients.values()))
        self.tables.apply_gradients()
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update(self.model)
        self.skipped_in_a_row = 0
        return StepResult(loss.item(), batch.num_rows, float(batch.label.sum()), norm.item(), rate)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of the forward pass; weights stay float32."""
        return torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=self.config.train.precision == "bf16"
        )

    def _set_rates(self, step: int) -> float:
        factor = rate_factor(step, self.total_steps, self.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * factor
        self.tables.set_lr(self.config.embedding.lr * factor)
        return self.config.optimizer.lr * factor

    def _clip(self) -> Tensor:
        limit = self.config.optimizer.clip_norm
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit if limit is not None else float("inf"))

    def _refuse(self, batch: Batch, step: int, what: str, rate: float) -> StepResult:
        """Drop the step, or stop: which, and how many in a row, is configured."""
        self.tables.discard()
        self.skipped_in_a_row += 1
        train = self.config.train
        if train.non_finite == "stop" or self.skipped_in_a_row > train.max_skipped:
            dense = {
                k: v.abs().max().item()
                for k, v in {**batch.request_dense, **batch.candidate_dense}.items()
                if v.numel()
            }
            raise NonFiniteError(
                f"every loss, logit and gradient must be finite; {what} of step {step} is not. Rows "
                f"{batch.row_id[:5].tolist()}… of requests {batch.request_id[:5].tolist()}…, largest dense "
                f"values {dense}. Lower optimizer.lr or embedding.lr, look at ctr doctor, or set "
                "train.non_finite: skip"
            )
        return StepResult(None, batch.num_rows, float(batch.label.sum()), float("nan"), rate)
