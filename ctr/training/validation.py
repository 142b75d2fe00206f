"""What a validation says, and which step is the best by it."""

from __future__ import annotations

from ctr.metrics import MetricAccumulator
from ctr.training.scoring import Scores

VALID_METRICS = ("auc", "gauc", "query_auc", "log_loss", "ne", "calibration")


def figures_of(scores: Scores) -> dict[str, float | None]:
    """Metrics of a scored split, without intervals; undefined ones are None."""
    with MetricAccumulator(draws=0) as accumulator:
        accumulator.update(scores.label, scores.score, user=scores.user_id, request=scores.request_id)
        metrics = accumulator.compute().metrics
    return {name: metrics[name].value for name in VALID_METRICS}


def selection_value(figures: dict[str, float | None], metric: str) -> float | None:
    """What early stopping maximises: a metric, the mean of several, or minus NE; None where undefined.

    Example:
        >>> selection_value({"auc": 0.75, "gauc": 0.71}, "auc+gauc")
        0.73
    """
    values = [figures[name] for name in metric.split("+")]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    return -known[0] if metric == "ne" else sum(known) / len(known)
