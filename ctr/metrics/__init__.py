"""Evaluation metrics: exact with ties, in float64 and bounded memory, with intervals that resample users."""

from ctr.metrics.accumulator import MetricAccumulator, Summary
from ctr.metrics.curves import Curves
from ctr.metrics.evaluation import (
    Evaluation,
    evaluate_raw,
    evaluate_sampled,
    evaluate_table,
    evaluate_tasks,
    evaluate_values,
)
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import auc
from ctr.metrics.table import METRICS, register
from ctr.metrics.value import MetricValue

__all__ = [
    "METRICS",
    "Curves",
    "Evaluation",
    "Metric",
    "MetricAccumulator",
    "MetricValue",
    "Summary",
    "auc",
    "evaluate_raw",
    "evaluate_sampled",
    "evaluate_table",
    "evaluate_tasks",
    "evaluate_values",
    "register",
]
