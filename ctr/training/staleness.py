"""When a dense gradient is applied: in its own step, or one step later while its sum is still under way.

HyFormer §3.8.2, with g_k the gradient of step k, computed from the weights as they are at its start:

    rows of tables            W_k = W_{k-1} + g_k           always
    dense weights, 0 stale    W_k = W_{k-1} + g_k
    dense weights, 1 stale    W_k = W_{k-1} + g_{k-1}       step 0 applies none, the end of training the last

What else a step does keeps its meaning: a gradient is clipped by its own norm when it is applied, with the
learning rate of the step it is from; the average of weights moves when the weights do; precision concerns the
forward alone. A step whose loss, logits or gradients are not finite on any rank is refused before anything is
updated, and leaves a waiting gradient waiting. A batch that is computed in parts
(`ctr.training.micro_batches`) is one step, and g_k the sum over its parts; the loss is the mean over the rows
of all parts and ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ctr.config import OptimizerConfig
from ctr.distributed.gradients import DenseGradients
from ctr.training.column_gates import ClosingGates
from ctr.training.losses import all_finite
from ctr.training.optim import AveragedWeights


class PendingGradients:
    """The dense gradient that waits for the next step, if any; part of the training state.

    A checkpoint between two steps holds it, so that a resumed run applies it where the other would have.
    """

    def __init__(self) -> None:
        self.gradients: DenseGradients | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of gradients that are not applied yet."""
        return 0 if self.gradients is None else self.gradients.nbytes

    @property
    def rate(self) -> float:
        """The learning rate it will be applied with."""
        return 0.0 if self.gradients is None else self.gradients.rate

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The gradient by weight, summed over the ranks; empty if none waits."""
        if self.gradients is None:
            return {}
        named = zip(_names(model), self.gradients.wait(), strict=True)
        return {name: gradient for name, gradient in named if gradient is not None}

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor], rate: float) -> None:
        """Take on what `tensors` and `rate` were."""
        self.drop()
        if tensors:
            weights = dict(model.named_parameters())
            self.gradients = DenseGradients(
                [tensors[n].to(weights[n].device) if n in tensors else None for n in _names(model)]
            )
            self.gradients.rate = rate

    def drop(self) -> None:
        """Forget the gradient that waits, if any: it is never applied, and its buffers are free again."""
        if self.gradients is not None:
            self.gradients.release()
            self.gradients = None


def _names(model: nn.Module) -> list[str]:
    """The trained weights, in the order of `GradientExchange.parameters`."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


class DenseUpdate:
    """From the gradients of steps to dense weights.

    Args:
        model: its weights are updated.
        optimizer: of the dense weights.
        averaged: their moving average, or None.
        config: clipping and staleness.
        pending: keeps the gradient that waits.
        gates: of columns, which may close; None of a model without.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        averaged: AveragedWeights | None,
        config: OptimizerConfig,
        pending: PendingGradients,
        gates: ClosingGates | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.averaged = averaged
        self.clip_norm = config.clip_norm
        self.stale = config.dense_staleness == 1
        self.pending = pending
        self.gates = gates
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def due(self, gradients: DenseGradients) -> DenseGradients | None:
        """The gradients to apply in the step that made `gradients`."""
        return self.pending.gradients if self.stale else gradients

    def advance(self, gradients: DenseGradients) -> Tensor | None:
        """Apply what is due, let the new gradient wait if its turn comes later; returns the norm applied."""
        due = self.due(gradients)
        self.pending.gradients = gradients if self.stale else None
        return None if due is None else self._apply(due)

    def finish(self) -> bool:
        """Apply the gradient that still waits, at the end of training; False if it is not finite: dropped."""
        due = self.pending.gradients
        if due is None:
            return True
        if not all_finite(due.global_norm()):
            self.pending.drop()
            return False
        self.pending.gradients = None
        self._apply(due)
        return True

    def _apply(self, due: DenseGradients) -> Tensor:
        """Clip, take a step of the optimizer, average."""
        for parameter, gradient in zip(self.parameters, due.wait(), strict=True):
            parameter.grad = gradient
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, due.global_norm())
        for group in self.optimizer.param_groups:
            group["lr"] = due.rate
        self.optimizer.step()
        if self.gates is not None:
            self.gates.shrink()
        if self.averaged is not None:
            self.averaged.update(self.model)
        due.release()
        return due.global_norm()
