"""The loss of a run: that of each task over the rows where its label is known, and what each counts.

    L_k = Σ_i m_i,k w_i,k ℓ(a_i,k, y_i,k) / Σ_i m_i,k w_i,k         over the whole batch, all ranks and parts
    L   = Σ_k c_k L_k                                              fixed weights c_k, 1 unless set

m says where label y_k is known, w what a row counts, ℓ is binary cross-entropy on the logit a, or what
`train.loss` names, of a regression the squared error (`ctr.training.losses`). A masked row adds nothing to
any gradient, and a batch without a known row of a task nothing of that task. What a and y are is the head's
to say: `ctr.models.heads`.

With `tasks.weights: learned` each task has a variance σ_k² of its own, which is learned as s_k = log σ_k²:

    L   = Σ_k e^(−s_k) L_k + s_k / 2        of a regression e^(−s_k) L_k / 2 + s_k / 2

Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses (CVPR 2018), equations
7 and 10, and their numerically stable form.

B candidates, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ctr.batch import Batch, Target
from ctr.config import DistillConfig, LossConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.training.losses import PLAIN, target_loss
from features.dataset import TaskInfo

# From what a model gives, and the batch, to the loss.
Objective = Callable[[Tensor, Batch], Tensor]


def objective_of_clicks(
    logits: Tensor, batch: Batch, *, loss: LossConfig = PLAIN, distill: DistillConfig | None = None
) -> Tensor:
    """The loss of a model that gives a logit per candidate: of the first task."""
    target, requests = next(iter(batch.targets.values())), batch.request_index
    return target_loss(logits, target, requests, loss=loss, offset=batch.offset, distill=distill)


def objective_of(
    model: nn.Module, *, loss: LossConfig = PLAIN, distill: DistillConfig | None = None
) -> Objective:
    """The loss of a model that scores candidates: of the tasks that it learns, or of the first one."""
    if isinstance(model, Model) and model.tasks is not None:
        return TasksObjective.of(model, loss=loss, distill=distill)
    return partial(objective_of_clicks, loss=loss, distill=distill)


class TasksObjective:
    """From logits (B, K), or (B,) of one task, and a batch to its loss.

    Args:
        config: what the tasks count, and what the head learns of each.
        tasks: of the run.
        log_variance: s, (K,), a weight of the model; None where the weights are fixed.
        loss: what binary tasks minimise.
        distill: how the first task learns from a teacher, where its target has one.
    """

    def __init__(
        self,
        config: TasksConfig,
        tasks: Sequence[TaskInfo],
        log_variance: Tensor | None = None,
        *,
        loss: LossConfig = PLAIN,
        distill: DistillConfig | None = None,
    ) -> None:
        self.config, self.tasks, self.log_variance = config, tasks, log_variance
        self.loss, self.distill = loss, distill
        fixed = {} if config.weights == "learned" else config.weights
        self.latest: dict[str, Tensor] = {}  # the losses of the last call
        self.weights = [fixed.get(task.name, 1.0) for task in tasks]

    @classmethod
    def of(
        cls, model: Model, *, loss: LossConfig = PLAIN, distill: DistillConfig | None = None
    ) -> TasksObjective:
        """That of a model with tasks."""
        assert model.tasks is not None
        return cls(model.tasks, model.learned, model.head.task_log_variance, loss=loss, distill=distill)

    @property
    def names(self) -> list[str]:
        """Of the tasks."""
        return [task.name for task in self.tasks]

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss, or the share of it that these rows are of the whole batch; sets `latest`."""
        losses = self.of_tasks(logits, batch)
        self.latest = {name: loss.detach() for name, loss in zip(self.names, losses, strict=True)}
        return self.combined(losses, batch)

    def of_tasks(self, logits: Tensor, batch: Batch) -> list[Tensor]:
        """L_k of each task, in float32."""
        logits = logits.float().reshape(-1, len(self.tasks))
        learned = self.config.learned(logits, batch, self.tasks)
        return [
            target_loss(
                own.logits,
                own.target,
                batch.request_index,
                loss=self.loss,
                kind=task.kind,
                offset=own.offset,
                distill=self.distill,
            )
            for task, own in zip(self.tasks, learned, strict=True)
        ]

    def combined(self, losses: Sequence[Tensor], batch: Batch) -> Tensor:
        """L."""
        if self.log_variance is None:
            return sum_of([c * loss for c, loss in zip(self.weights, losses, strict=True)])
        terms = []
        for task, s, loss in zip(self.tasks, self.log_variance, losses, strict=True):
            half = 0.5 if task.kind == "regression" else 1.0
            terms.append(half * torch.exp(-s) * loss + s / 2 * known_share(batch.targets[task.name]))
        return sum_of(terms)


def known_share(target: Target) -> float:
    """Which part of the whole batch's known rows these are; 0 where nothing is known."""
    return target.known_weight / (target.whole or 1.0)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Of scalars."""
    return torch.stack(list(terms)).sum()
