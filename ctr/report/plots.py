"""The pictures of a report, drawn from an evaluation and a journal; no global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.metrics import Curves, Evaluation, MetricValue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A93A0", "#1F2933"
MAX_POINTS = 2_000
MAX_FOREST_ROWS = 40
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E8EC",
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
ValidationRows = Sequence[Mapping[str, Any]]


def draw_all(evaluation: Evaluation, history: ValidationRows) -> dict[str, bytes]:
    """PNG images by name: roc, reliability, scores, and, where there is something to show, training, slices.

    Args:
        evaluation: metrics and curves.
        history: journal rows; those of kind "train" (step, loss) and "valid" (step, auc) are drawn.
    """
    overall = evaluation.overall
    return drawn(
        {
            "roc": lambda: roc(overall.curves, overall.metrics["auc"]),
            "reliability": lambda: reliability(overall.curves, overall.metrics["ece"]),
            "scores": lambda: scores(overall.curves),
            "training": lambda: training(history),
            "slices": lambda: forest(evaluation),
        }
    )


def drawn(figures: Mapping[str, Callable[[], Figure | None]]) -> dict[str, bytes]:
    """PNG images of the figures that there are, in the style of all reports."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        made = {name: make() for name, make in figures.items()}
        return {name: _png(figure) for name, figure in made.items() if figure is not None}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, without a window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def number(value: float | None, digits: int = 4) -> str:
    """A figure for people: fixed digits, or an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_ends(metric: MetricValue, digits: int = 4) -> str:
    """A metric with its interval: `0.7512 (0.7401 to 0.7620)`."""
    if metric.value is None or metric.low is None:
        return number(metric.value, digits)
    return f"{number(metric.value, digits)} ({number(metric.low, digits)} to {number(metric.high, digits)})"


def roc(curves: Curves, auc: MetricValue) -> Figure:
    """The ROC curve with its AUC and interval, or the reason why there is none."""
    figure = new_figure(5.6, 5.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    if auc.value is None:
        _note(axes, auc.reason or "undefined")
    else:
        axes.plot(curves.fpr, curves.tpr, color=BLUE, linewidth=2.2)
        axes.fill_between(curves.fpr, curves.tpr, color=BLUE, alpha=0.08)
        interval = f"\n95 %: {auc.low:.4f} to {auc.high:.4f}\n{auc.interval}" if auc.low and auc.high else ""
        axes.text(0.97, 0.05, f"AUC {auc.value:.4f}{interval}", ha="right", fontsize=12)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title="ROC")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return figure


def reliability(curves: Curves, ece: MetricValue) -> Figure:
    """Observed against predicted rate in bins of equal mass, with the rows of each bin below."""
    figure = new_figure(5.6, 5.2)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    score, label, rows = curves.bin_score, curves.bin_label, curves.bin_rows
    if len(rows):
        top = 1.08 * max(float(score.max()), float(label.max()), 1e-6)
        axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1)
        error = np.sqrt(np.maximum(label * (1 - label), 1e-12) / rows) * 1.96
        axes.errorbar(
            score, label, [np.minimum(error, label), error], color=BLUE, fmt="o-", ms=5, lw=1.6, capsize=2
        )
        axes.set(xlim=(0, top), ylim=(0, top))
        counts.vlines(score, 0, rows, color=BLUE, linewidth=2)
        counts.set_ylim(0, 1.25 * rows.max())
    axes.set(title=f"Reliability, ECE {number(ece.value)}", ylabel="observed rate")
    counts.set(xlabel="mean predicted probability", ylabel="rows")
    counts.yaxis.set_major_locator(_few_ticks())
    return figure


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=2, integer=True)


def scores(curves: Curves) -> Figure:
    """Distribution of the score in each class, over the range that holds 99.8 % of the rows."""
    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    total = np.cumsum(curves.hist_pos + curves.hist_neg)
    if total[-1]:
        first = int(np.searchsorted(total, 0.001 * total[-1]))
        last = int(np.searchsorted(total, 0.999 * total[-1])) + 1
        step = max(1, -(-(last - first) // 50))
        edges = np.arange(first, last + step, step)
        for counts, colour, name in (
            (curves.hist_neg, ORANGE, "label 0"),
            (curves.hist_pos, BLUE, "label 1"),
        ):
            binned = np.add.reduceat(np.append(counts, np.zeros(step, int)), edges[:-1])
            binned[-1] = counts[edges[-2] : edges[-1]].sum()
            share = binned / max(int(counts.sum()), 1)
            axes.stairs(share, edges / len(counts), color=colour, fill=True, alpha=0.25)
            axes.stairs(
                share,
                edges / len(counts),
                color=colour,
                linewidth=1.8,
                label=f"{name} ({counts.sum():,} rows)",
            )
        axes.legend(loc="upper right")
    axes.set(title="Score by class", xlabel="predicted probability", ylabel="share of the class")
    return figure


def training(history: ValidationRows) -> Figure | None:
    """Training loss and validation AUC over steps; None where the journal has neither."""
    loss, auc = _series(history, "train", "loss"), _series(history, "valid", "auc")
    panels = [p for p in (("Training loss", loss, ORANGE), ("Validation AUC", auc, BLUE)) if len(p[1])]
    if not panels:
        return None
    figure = new_figure(7.2, 2.7 * len(panels) + 0.3)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, points, colour) in zip(grid, panels, strict=True):
        noisy = title == "Training loss" and len(points) > 30
        axes.plot(*points.T, color=colour, linewidth=1 if noisy else 2, alpha=0.35 if noisy else 1,
                  marker="o" if len(points) < 40 else "")  # fmt: skip
        if noisy:
            axes.plot(points[:, 0], _smooth(points[:, 1]), color=colour, linewidth=2)
        axes.set_title(title)
        if title == "Validation AUC":
            _mark_best(axes, points)
    grid[-1].set_xlabel("step")
    return figure


def _series(history: ValidationRows, kind: str, name: str) -> np.ndarray:
    """(step, value) rows of one kind, averaged down to at most MAX_POINTS."""
    rows = [
        (row["step"], row[name]) for row in history if row.get("kind") == kind and row.get(name) is not None
    ]
    points = np.array(rows, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    width = -(-len(points) // MAX_POINTS)
    if width <= 1:
        return points
    starts = np.arange(0, len(points), width)
    return np.add.reduceat(points, starts, axis=0) / np.diff(starts, append=len(points))[:, None]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a twentieth of the points; the window shrinks at both ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    smooth: np.ndarray = (total[high] - total[low]) / (high - low)
    return smooth


def _mark_best(axes: Axes, points: np.ndarray) -> None:
    step, value = points[int(np.argmax(points[:, 1]))]
    axes.plot(step, value, marker="*", markersize=14, color=GREEN, linestyle="")
    axes.set_title(
        f"best {value:.4f} at step {step:,.0f}", loc="right", fontsize=11, fontweight="normal", color=GREEN
    )
    axes.margins(y=0.12)


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
    axes.set_yticks(range(len(shown)), [_short(label) for label, _, _ in shown])
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


def _short(text: str, limit: int = 36) -> str:
    """A label that fits, with `$` made harmless: matplotlib would read mathematics between two of them."""
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=INK)
