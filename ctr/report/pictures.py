"""The pictures of a report, from an evaluation and a journal."""

from __future__ import annotations

from collections.abc import Mapping

from ctr.metrics import Evaluation, MetricValue
from ctr.report.curves import precision_recall, reliability, roc, scores
from ctr.report.forest import forest, importance_forest
from ctr.report.plots import drawn
from ctr.report.training import ValidationRows, hidden_columns, training


def draw_all(
    evaluation: Evaluation, history: ValidationRows, importance: Mapping[str, MetricValue] | None = None
) -> dict[str, bytes]:
    """PNG images by name; training, importance and slices where there is something to show.

    Args:
        evaluation: metrics and curves.
        history: journal rows; those of kind "train" (step, loss), "valid" (step, log_loss, auc)
            and "hidden" are drawn.
        importance: feature → what the AUC loses without it.
    """
    overall = evaluation.overall
    return drawn(
        {
            "roc": lambda: roc(overall.curves, overall.metrics["auc"]),
            "precision_recall": lambda: precision_recall(overall.curves),
            "reliability": lambda: reliability(overall.curves, overall.metrics["ece"]),
            "scores": lambda: scores(overall.curves),
            "training": lambda: training(history),
            "hidden": lambda: hidden_columns(history),
            "importance": lambda: importance_forest(importance or {}),
            "slices": lambda: forest(evaluation),
        }
    )
