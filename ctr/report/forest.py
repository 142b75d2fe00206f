"""Figures with their intervals below one another: slices, and what the AUC loses without a feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ctr.metrics import Evaluation, MetricValue
from ctr.report.plots import BLUE, GREY, new_figure, number, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FOREST_ROWS = 40


def forest(evaluation: Evaluation) -> Figure | None:
    """AUC and interval of every slice against the overall AUC; None without slices."""
    rows = [
        (f"{name} = {value}", summary.rows, summary.metrics["auc"])
        for name, values in evaluation.slices.items()
        for value, summary in values.items()
    ]
    if not rows:
        return None
    shown = rows[:MAX_FOREST_ROWS]
    figure = new_figure(7.6, 1.3 + 0.34 * len(shown))
    axes = figure.add_subplot()
    overall = evaluation.overall.metrics["auc"].value
    if overall is not None:
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1)
    for at, (_, _, metric) in enumerate(shown):
        _forest_row(axes, at, metric, overall)
    axes.set_yticks(range(len(shown)), [short_label(label) for label, _, _ in shown])
    for at, (_, count, _) in enumerate(shown):
        axes.text(1.02, at, f"{count:,}", transform=axes.get_yaxis_transform(), va="center", fontsize=10)
    axes.text(1.02, -0.9, "rows", transform=axes.get_yaxis_transform(), va="bottom", fontsize=10, color=GREY)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"AUC (dashed: all rows, {number(overall)})")
    axes.set_title(
        "AUC by slice" if len(shown) == len(rows) else f"AUC by slice (first {len(shown)} of {len(rows)})"
    )
    axes.tick_params(axis="y", length=0)
    return figure


def _forest_row(axes: Axes, at: int, metric: MetricValue, overall: float | None) -> None:
    if metric.value is None:
        axes.text(
            0.5 if overall is None else overall, at, "  undefined", va="center", color=GREY, fontsize=10
        )
        return
    if metric.low is not None and metric.high is not None:
        axes.plot([metric.low, metric.high], [at, at], color=BLUE, linewidth=2, solid_capstyle="round")
    axes.plot(metric.value, at, marker="s", color=BLUE, markersize=6)


def importance_forest(importance: Mapping[str, MetricValue]) -> Figure | None:
    """What the AUC loses without each feature, the largest loss first; None without figures."""
    ranked = sorted(importance.items(), key=lambda item: -(item[1].value or 0.0))
    if not ranked:
        return None
    shown = ranked[:MAX_FOREST_ROWS]
    figure = new_figure(7.6, 1.3 + 0.34 * len(shown))
    axes = figure.add_subplot()
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
    for at, (_, metric) in enumerate(shown):
        _forest_row(axes, at, metric, 0.0)
    axes.set_yticks(range(len(shown)), [short_label(name) for name, _ in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="AUC with the feature − AUC without it")
    axes.set_title(
        "AUC lost without a feature"
        if len(shown) == len(ranked)
        else f"AUC lost without a feature (first {len(shown)} of {len(ranked)})"
    )
    axes.tick_params(axis="y", length=0)
    return figure
