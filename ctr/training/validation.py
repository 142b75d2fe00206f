"""What a validation says, and which step is the best by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctr.batch import Batch
from ctr.metrics import METRICS, MetricAccumulator
from ctr.metrics.table import headlines, validated
from ctr.runs.signals import GracefulStop
from ctr.training.scoring import BatchSource, Scores


class Interrupted(Exception):
    """A signal came while a split was scored."""


@dataclass(frozen=True)
class UntilSignal:
    """The batches of a source, until a signal comes."""

    source: BatchSource
    stop: GracefulStop

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """As of the source.

        Raises:
            Interrupted: there is a signal.
        """
        for batch in self.source.iterate(epoch, start_step):
            if self.stop.requested:
                raise Interrupted
            yield batch


def figures_of(scores: Scores) -> dict[str, float | None]:
    """Metrics of a scored split, without intervals; undefined ones are None."""
    with MetricAccumulator(draws=0) as accumulator:
        accumulator.update(scores.label, scores.score, user=scores.user_id, request=scores.request_id)
        metrics = accumulator.compute().metrics
    return {metric.name: metrics[metric.name].value for metric in validated()}


def selection_value(figures: dict[str, float | None], selection: str) -> float | None:
    """What early stopping maximises: a metric or the mean of several, times its direction; None if undefined.

    Args:
        figures: of a validation.
        selection: `train.metric`, one name or several joined by +.

    Example:
        >>> selection_value({"auc": 0.75, "gauc": 0.71}, "auc+gauc"), selection_value({"ne": 0.9}, "ne")
        (0.73, -0.9)
    """
    names = selection.split("+")
    known = [value for name in names if (value := figures[name]) is not None]
    if len(known) < len(names):
        return None
    return METRICS[names[0]].direction * (sum(known) / len(known))


def selected_figure(value: float, selection: str) -> float:
    """The figure that a `selection_value` stands for, as people read it."""
    return METRICS[selection.split("+")[0]].direction * value


def describe(figures: dict[str, float | None], selection: str) -> str:
    """The figures that are named while training, and those that choose the step, in one line."""
    named = {metric.name for metric in headlines()} | set(selection.split("+"))
    return "  ".join(f"{name} {v:.4f}" for name, v in figures.items() if v is not None and name in named)
