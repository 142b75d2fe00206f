"""Evaluation metrics: exact with ties, in float64 and bounded memory, with intervals that resample users."""

from ctr.metrics.accumulator import MetricAccumulator, Summary
from ctr.metrics.calibration import Curves
from ctr.metrics.evaluation import Evaluation, evaluate_table
from ctr.metrics.metric import Metric
from ctr.metrics.ranking import auc

__all__ = ["Curves", "Evaluation", "Metric", "MetricAccumulator", "Summary", "auc", "evaluate_table"]
