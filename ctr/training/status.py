"""What the ranks tell each other of a step, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field

from ctr.distributed.world import World


@dataclass(frozen=True)
class StepResult:
    """What one step did, over all ranks; `loss` is None where a non-finite step was skipped."""

    loss: float | None
    rows: int
    weight: float  # of the rows whose label is known
    positives: float  # their part with label 1
    grad_norm: float | None  # of the dense gradient applied in this step; None where none was
    rate: float
    in_flight: int = 0  # bytes of dense gradients not applied yet
    stopping: bool = False  # whether some rank was asked to stop
    task_losses: Mapping[str, float] = field(default_factory=dict)  # of a run that learns several tasks


@dataclass(frozen=True)
class StepStatus:
    """What the ranks tell each other of a step: summed, it is the same decision everywhere."""

    loss: float
    rows: float
    weight: float
    positives: float
    bad_forward: float
    bad_gradient: float
    stopping: float
    task_losses: Sequence[float] = ()

    def summed(self, world: World) -> StepStatus:
        """The same on all ranks."""
        *plain, losses = astuple(self)
        sums = world.sums(*plain, *losses)
        loss, rows, weight, positives, bad_forward, bad_gradient, stopping, *losses = sums
        return StepStatus(loss, rows, weight, positives, bad_forward, bad_gradient, stopping, losses)

    @property
    def problem(self) -> str | None:
        """What is not finite on some rank; None if everything is."""
        return "the loss or a logit" if self.bad_forward else "a gradient" if self.bad_gradient else None
