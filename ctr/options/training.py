"""Sections of `train` in a run's configuration: what it minimises, what it learns from, what it averages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ctr.options.knobs import Knobs, Positive, Share, Unused


def named_loss(loss: Any) -> Any:
    """A name alone is the kind of a loss."""
    return {"kind": loss} if isinstance(loss, str) else loss


class LossConfig(Knobs):
    """What a binary task minimises (ctr.training.losses)."""

    kind: Literal["cross_entropy", "focal", "pairwise", "listwise"] = "cross_entropy"
    smoothing: float = Field(default=0.0, ge=0, lt=1)  # of the label: (1 − smoothing) · label + smoothing / 2
    gamma: float = Field(default=2.0, ge=0)  # focal: how much less a row counts that is already right
    share: float = Field(default=0.5, gt=0, le=1)  # pairwise, listwise: of it; the rest is cross-entropy

    UNUSED = (
        Unused(("gamma",), "kind", lambda kind: kind != "focal", "only a focal loss has gamma"),
        Unused(
            ("share",),
            "kind",
            lambda kind: kind not in ("pairwise", "listwise"),
            "only a loss within requests has a share",
        ),
    )


class DistillConfig(Knobs):
    """What the first task learns from beside its labels: logits of finished runs on the training rows."""

    # Directories of runs or ensembles that have predictions of the training part, or Parquet files; the mean.
    predictions: str | Annotated[list[str], Field(min_length=1)]
    weight: float = Field(default=0.5, ge=0, le=1)  # of it in the loss, the rest is of the labels; 0 = off
    temperature: float = Field(default=1.0, gt=0)  # divides both logits: above 1 it learns more of small odds


class SwaConfig(Knobs):
    """The equal average of the dense weights of some steps, with which evaluation and checkpoints score."""

    start: Share = 0.75  # part of the run's steps after which it begins; until then the weights score
    every: Positive = 20  # steps from one that counts to the next
