"""The training objective and the running figures shown while training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def click_loss(logits: Tensor, label: Tensor, *, total: int | None = None) -> Tensor:
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


def mean_over_rows(losses: Tensor, *, total: int | None = None) -> Tensor:
    """The mean of a loss per candidate (B,), in float32; `total` as of `click_loss`."""
    return losses.float().mean() if total is None else losses.float().sum() / total


@dataclass
class RunningLoss:
    """Mean loss and normalised entropy since the last report.

    NE = mean loss / H(mean label), H the entropy of a coin: 1 means no better than the mean click rate.

    Example:
        >>> running = RunningLoss()
        >>> running.add(loss=math.log(2), rows=4, positives=2)
        >>> running.take()["ne"]
        1.0
    """

    loss: float = 0.0
    rows: int = 0
    positives: float = 0.0

    def add(self, *, loss: float, rows: int, positives: float) -> None:
        """Count one batch with its mean loss."""
        self.loss += loss * rows
        self.rows += rows
        self.positives += positives

    def take(self) -> dict[str, float]:
        """The figures so far, none if every step was skipped; starts again."""
        if not self.rows:
            return {}
        rate, loss = self.positives / self.rows, self.loss / self.rows
        entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
        figures = {"loss": loss, "label_mean": rate}
        if entropy > 0:
            figures["ne"] = loss / entropy
        self.loss, self.rows, self.positives = 0.0, 0, 0.0
        return figures


def all_finite(*tensors: Tensor) -> bool:
    """Whether no value is NaN or infinite; by the sums of squares, one pass and one host synchronisation.

    A value above 1e19 counts as infinite in float32.
    """
    norms = torch._foreach_norm([t.detach() for t in tensors])
    return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
