"""What a validation says, and which step is the best by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctr.batch import Batch
from ctr.config import CalibrationKind, RunConfig
from ctr.distributed.world import World
from ctr.metrics import MetricAccumulator
from ctr.metrics.regression import REGRESSION_METRICS, RegressionAccumulator
from ctr.metrics.table import headlines, metric_of, validated
from ctr.predictions import outputs_of
from ctr.runs.signals import GracefulStop
from ctr.training.calibration import Calibrators, fit
from ctr.training.outputs import Outputs, logit_of
from ctr.training.scoring import BatchSource, RowLabels, Scores, score_split
from ctr.training.state import TrainingState
from features.dataset import TaskInfo
from features.errors import ConfigError


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


def validate(
    state: TrainingState, valid: BatchSource, config: RunConfig, *, device: torch.device, world: World
) -> dict[str, float | None]:
    """Score the validation part; the state gets the calibration of its weights, if the run asks for one.

    Args:
        state: of a training.
        valid: gives this rank's batches.
        config: of the run.
        device: where the model is.
        world: the ranks among which whole batches were given out in turn.

    Returns:
        Its figures, the same on all ranks.
    """
    bf16 = config.train.precision == "bf16"
    scores = score_split(state, valid, bf16=bf16, device=device, world=world)
    said = None
    if scores is not None:
        said = [figures_of(scores), fitted(scores, config.calibration, state.progress.step)]
    figures, calibration = world.broadcast_json(said)
    state.calibration = None if calibration is None else Calibrators.from_plain(calibration)
    found: dict[str, float | None] = figures
    return found


def figures_of(scores: Scores) -> dict[str, float | None]:
    """Metrics of a scored split, without intervals; undefined ones are None.

    Of a run with several tasks each has its own, over the rows where its label is known: `auc` of the first,
    `buy.auc` of another, of a regression `seconds.rmse` in the unit of the log.
    """
    outputs = Outputs(scores.tasks)
    first, others = outputs.scores(scores.logit)
    found: dict[str, float | None] = {}
    for place, (output, score) in enumerate(zip(outputs.all, [first, *others], strict=True)):
        of_kind = _metrics if output.binary else _value_metrics
        figures = of_kind(scores, scores.labels(output), score)
        found |= {f"{output.name}.{n}" if place else n: value for n, value in figures.items()}
    return found


def fitted(scores: Scores, kind: CalibrationKind, step: int) -> dict[str, Any] | None:
    """The calibration of a scored validation part as plain data; None for kind none.

    Args:
        scores: of the whole part.
        kind: of `calibration` in the run.
        step: whose weights scored it.
    """
    if kind == "none":
        return None
    found = {}
    for output in Outputs(scores.tasks).all:
        if not output.binary:
            continue
        label, known, weight = scores.labels(output)
        logit = logit_of(output, scores.logit)
        if (own := fit(kind, logit[known], label[known], weight[known])) is not None:
            found[output.name] = own
    return Calibrators(step=step, outputs=found).model_dump(mode="json")


def _metrics(scores: Scores, labels: RowLabels, score: np.ndarray) -> dict[str, float | None]:
    known = labels.known
    weight = labels.weight[known]
    with MetricAccumulator(draws=0) as accumulator:
        accumulator.update(
            labels.label[known],
            score[known],
            user=scores.user_id[known],
            request=scores.request_id[known],
            weight=None if (weight == 1).all() else weight,
        )
        metrics = accumulator.compute().metrics
    return {metric.name: metrics[metric.name].value for metric in validated()}


def _value_metrics(scores: Scores, labels: RowLabels, score: np.ndarray) -> dict[str, float | None]:
    known, accumulator = labels.known, RegressionAccumulator(draws=0)
    accumulator.update(labels.label[known], score[known], weight=labels.weight[known])
    return {name: metric.value for name, metric in accumulator.compute().metrics.items()}


def selection_value(figures: dict[str, float | None], selection: str) -> float | None:
    """What early stopping maximises: a metric or the mean of several, times its direction; None if undefined.

    Args:
        figures: of a validation.
        selection: `train.metric`, one name or several joined by +; `click.auc` is that of a task.

    Example:
        >>> selection_value({"auc": 0.75, "gauc": 0.71}, "auc+gauc")
        0.73
        >>> selection_value({"ne": 0.9, "seconds.rmse": 12.1}, "ne+seconds.rmse")
        -6.5
    """
    names = selection.split("+")
    known = [value for name in names if (value := figures[_key(figures, name)]) is not None]
    if len(known) < len(names):
        return None
    return metric_of(names[0]).direction * (sum(known) / len(known))


def _key(figures: Mapping[str, float | None], name: str) -> str:
    """The first task's metrics stand there without its name."""
    return name if name in figures else metric_of(name).name


def check_tasks(selection: str, tasks: Sequence[TaskInfo]) -> None:
    """Check that `train.metric` names tasks of the run whose metrics it has.

    Raises:
        ConfigError: it does not, or the first task is a regression.
    """
    outputs = {output.name: output for output in outputs_of(tasks)}
    if tasks[0].kind == "regression":
        raise ConfigError(
            "the first task of a run must be binary, as figures without a name are its AUC and the like, got "
            f"the regression {tasks[0].name!r}; name another one first in tasks.use"
        )
    for name in selection.split("+"):
        task = name.rpartition(".")[0] or tasks[0].name
        of_kind = metric_of(name).name not in REGRESSION_METRICS
        if task not in outputs or outputs[task].binary != of_kind:
            raise ConfigError(
                f"train.metric must be a metric of what the run learns and scores ({', '.join(outputs)}), of "
                f"{task!r} it has no {metric_of(name).name}, got {selection!r}; write a task's as task.auc"
            )


def selected_figure(value: float, selection: str) -> float:
    """The figure that a `selection_value` stands for, as people read it."""
    return metric_of(selection.split("+")[0]).direction * value


def describe(figures: dict[str, float | None], selection: str) -> str:
    """The figures that are named while training, and those that choose the step, in one line."""
    named = {metric.name for metric in headlines()}
    named |= {f"{task}.{own}" for task in _further(figures) for own in ("auc", "rmse")}
    named |= {_key(figures, name) for name in selection.split("+")}
    return "  ".join(f"{name} {v:.4f}" for name, v in figures.items() if v is not None and name in named)


def _further(figures: Mapping[str, float | None]) -> set[str]:
    """The outputs of a run with several tasks, but for the first."""
    return {name.rpartition(".")[0] for name in figures} - {""}
