"""From finished trainings to measured points; from trainings to come to their cost."""

from __future__ import annotations

from collections.abc import Sequence

from ctr.ablate.cost import Cost, cost_of, mean_cost, measure
from ctr.ablate.subruns import SubRun
from ctr.build import build_state, open_dataset, pick_device, training_loader
from ctr.metrics import evaluate_table
from ctr.runs.journal import read_rows
from ctr.scaling.measured import Measured
from features.errors import DataError


def measured(
    x: float, trainings: Sequence[SubRun], metrics: Sequence[str], *, task: str | None = None
) -> Measured:
    """A point from its finished trainings: metrics of their test predictions, cost from their journals.

    Args:
        x: position.
        trainings: of all seeds.
        metrics: by name.
        task: of runs with several, whose metrics are meant; None: the first one.

    Raises:
        DataError: a metric is not defined on the test part.
    """
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    for training in trainings:
        found = evaluate_table(training.predictions(), slices=[], task=task, draws=0).overall.metrics
        for metric in metrics:
            value = found[metric].value
            if value is None:
                raise DataError(
                    f"{metric} must be defined on the test part, got none for {training.path.name}: "
                    f"{found[metric].reason}; choose other metrics"
                )
            values[metric].append(value)
    cost = mean_cost(cost_of(read_rows(training.path / "journal.jsonl")) for training in trainings)
    return _point(x, values, cost, trainings[0])


def foreseen(x: float, training: SubRun) -> Measured:
    """A point that is not trained yet: its cost, from one batch through a fresh model."""
    config = training.config
    dataset, device = open_dataset(config), pick_device(config.train.device)
    state = build_state(config, dataset.manifest, device)
    batch = next(training_loader(config, dataset).iterate(0)).to(device)
    return _point(x, {}, Cost(**measure(state, batch, bf16=config.train.precision == "bf16")), training)


def _point(x: float, values: dict[str, list[float]], cost: Cost | None, training: SubRun) -> Measured:
    if cost is None:
        return Measured(x, values)
    flops = cost.flops_per_row * trained_rows(training)
    return Measured(x, values, flops, cost.flops_per_row, cost.parameters)


def trained_rows(training: SubRun) -> int:
    """Rows that go through a whole training, as planned: each as often as there are epochs."""
    config = training.config
    splits = open_dataset(config).manifest.splits
    rows = config.train.epochs * sum(splits[name].impressions for name in config.train.data.split("+"))
    steps = config.train.max_steps
    return rows if steps is None else min(rows, steps * config.loader.batch_rows)
