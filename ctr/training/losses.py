"""The training objective over the known rows of a task, and the running figures shown while training.

B rows of R requests. A batch may be one rank's share or a micro-batch of a larger one: `Target.total` is what
the known rows of all of it weigh, so that the parts' losses sum to its mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from ctr.batch import Target
from ctr.config import DistillConfig, LossConfig
from ctr.training.ranking_losses import listwise, pairwise

PLAIN = LossConfig()


def target_loss(
    logits: Tensor,
    target: Target,
    request_index: Tensor,
    *,
    loss: LossConfig = PLAIN,
    kind: str = "binary",
    offset: Tensor | None = None,
    distill: DistillConfig | None = None,
) -> Tensor:
    """Σ w ℓ / Σ w over the known rows of a task, in float32; 0, with zero gradients, where there are none.

    With `distill`, (1 − λ) of that and λ of the soft loss of the target's teacher (`soft_losses`), over the
    same rows with the same weights.

    Args:
        logits: (B,) any floating dtype; of a regression what is predicted.
        target: label, known rows and weights.
        request_index: int64 (B,), non-decreasing.
        loss: which ℓ; a regression always has the squared error of the scaled label.
        kind: binary or regression.
        offset: float32 (B,), what down-sampling added to the log-odds of each row; see `Batch.offset`. Losses
            within requests, and soft ones, are of the logits themselves: teachers speak of all rows.
        distill: λ and the temperature, where the target has a teacher and it is to be heard.
    """
    teacher = None if distill is None else target.teacher
    plain = kind == "binary" and loss == PLAIN and offset is None and teacher is None
    if plain and target.everywhere and target.weight is None:
        return click_loss(logits, target.label, total=target.total)
    wide, label, weight = logits.float(), target.label.float(), target.loss_weight.float()
    own = wide if offset is None else wide + offset
    found = (row_losses(own, label, loss=loss, kind=kind) * weight).sum()
    if kind == "binary" and loss.kind in _WITHIN_REQUESTS:
        ranked = _WITHIN_REQUESTS[loss.kind](wide, label, weight, request_index)
        found = (1.0 - loss.share) * found + loss.share * ranked
    if distill is not None and teacher is not None:
        soft = (soft_losses(wide, teacher.float(), temperature=distill.temperature) * weight).sum()
        found = (1.0 - distill.weight) * found + distill.weight * soft
    return found / _whole(weight, target)


def _whole(weight: Tensor, target: Target) -> Tensor:
    """What the known rows of the whole batch weigh, of which these rows weigh (B,); 1 where that is 0."""
    total = weight.sum() if target.total is None else weight.new_tensor(target.total)
    return torch.where(total > 0, total, 1.0)


_WITHIN_REQUESTS = {"pairwise": pairwise, "listwise": listwise}


def row_losses(logits: Tensor, label: Tensor, *, loss: LossConfig = PLAIN, kind: str = "binary") -> Tensor:
    """ℓ of every row, (B,): cross-entropy of the smoothed label, focal loss, or the squared error.

        smoothed  y' = (1 − ε) y + ε / 2
        focal     (1 − p_t)^γ · cross-entropy of y',   p_t = p where y = 1, 1 − p where y = 0

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), equation 4, without its α, which weights
    say. Szegedy et al., Rethinking the Inception Architecture (2016), section 7.
    """
    if kind == "regression":
        return (logits - label).square()
    soft = label if not loss.smoothing else (1.0 - loss.smoothing) * label + loss.smoothing / 2.0
    entropy = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    if loss.kind != "focal":
        return entropy
    log_wrong = F.logsigmoid(torch.where(label > 0, -logits, logits))  # of 1 − p_t, finite where that is 0
    return (loss.gamma * log_wrong).exp() * entropy


def soft_losses(logits: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T² times the cross-entropy of σ(a / T), a the logit, from what a teacher says, σ(t / T); (B,).

    Its least is at a = t, whatever T, and T² keeps its gradient as large: (σ(a / T) − σ(t / T)) · T.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2.
    """
    soft = torch.sigmoid(teacher / temperature)
    entropy = F.binary_cross_entropy_with_logits(logits / temperature, soft, reduction="none")
    return temperature**2 * entropy


def click_loss(logits: Tensor, label: Tensor, *, total: float | None = None) -> Tensor:
    """Binary cross-entropy on logits, mean over the candidates, in float32.

    Args:
        logits: (B,) any floating dtype.
        label: (B,) float, 0 or 1.
        total: candidates of the whole batch where these are one rank's share of it: the ranks' losses then
            sum to the mean.
    """
    if total is None:
        return F.binary_cross_entropy_with_logits(logits.float(), label)
    return F.binary_cross_entropy_with_logits(logits.float(), label, reduction="sum") / total


def mean_over_rows(losses: Tensor, target: Target) -> Tensor:
    """Σ w ℓ / Σ w of a loss per candidate (B,), in float32: rows count as in the loss of a task's target."""
    if target.everywhere and target.weight is None:
        return losses.float().mean() if target.total is None else losses.float().sum() / target.total
    weight = target.loss_weight.float()
    return (losses.float() * weight).sum() / _whole(weight, target)


@dataclass
class RunningLoss:
    """Mean loss and normalised entropy since the last report.

    NE = mean loss / H(mean label), H the entropy of a coin: 1 means no better than the mean click rate. Of a
    run that learns several tasks, both are the first one's.

    Example:
        >>> running = RunningLoss()
        >>> running.add(loss=math.log(2), rows=4, positives=2)
        >>> running.take()["ne"]
        1.0
    """

    loss: float = 0.0
    rows: float = 0  # of rows with weights, what they weigh
    positives: float = 0.0
    tasks: dict[str, float] = field(default_factory=dict)  # the same sums of each task's loss, if several

    def __post_init__(self) -> None:
        self.rows = int(self.rows) if float(self.rows).is_integer() else self.rows  # 0 is written as 0 again

    def add(
        self, *, loss: float, rows: float, positives: float, tasks: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Count one batch with its mean loss, and those of its tasks."""
        self.loss += loss * rows
        for name, own in tasks.items():
            self.tasks[name] = self.tasks.get(name, 0.0) + own * rows
        self.rows += int(rows) if float(rows).is_integer() else rows
        self.positives += positives

    def take(self, *, ne: bool = True, first: str | None = None) -> dict[str, float]:
        """The figures so far, none if every step was skipped; starts again.

        Args:
            ne: whether NE is wanted.
            first: the first task, of a run that learns several.
        """
        if not self.rows:
            return {}
        rate, loss = self.positives / self.rows, self.loss / self.rows
        entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
        figures = {"loss": loss, "label_mean": rate}
        of_tasks = {f"{name}.loss": own / self.rows for name, own in self.tasks.items()}
        if ne and entropy > 0:
            figures["ne"] = of_tasks.get(f"{first}.loss", loss) / entropy
        self.loss, self.rows, self.positives, self.tasks = 0.0, 0, 0.0, {}
        return figures | of_tasks


def all_finite(*tensors: Tensor) -> bool:
    """Whether no value is NaN or infinite; by the sums of squares, one pass and one host synchronisation.

    A value above 1e19 counts as infinite in float32.
    """
    norms = torch._foreach_norm([t.detach() for t in tensors])
    return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
