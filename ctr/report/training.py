"""Loss and AUC over the steps of a training, and what ID columns tell in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.report.plots import BLUE, GREEN, GREY, INK, ORANGE, new_figure, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 2_000
ValidationRows = Sequence[Mapping[str, Any]]


def training(history: ValidationRows) -> Figure | None:
    """Loss of training and validation, and validation AUC, over steps; None where the journal has none.

    Both losses are binary cross-entropy. That of training is a mean over the steps since the row before it,
    with dropout and the weights of then; that of validation is measured with the weights that would be kept.
    """
    loss, held_out = _series(history, "train", "loss"), _series(history, "valid", "log_loss")
    auc = _series(history, "valid", "auc")
    panels = [("loss", len(loss) or len(held_out)), ("auc", len(auc))]
    shown = [name for name, count in panels if count]
    if not shown:
        return None
    figure = new_figure(7.2, 2.7 * len(shown) + 0.3)
    grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(grid, shown, strict=True):
        if name == "loss":
            _losses(axes, loss, held_out)
        else:
            _line(axes, auc, BLUE)
            axes.set_title("Validation AUC")
            _mark_best(axes, auc)
    grid[-1].set_xlabel("step")
    return figure


def hidden_columns(history: ValidationRows) -> Figure | None:
    """The AUC that each ID column adds on training (line) and validation rows (dashes), over steps.

    None where the journal has no rows of kind "hidden". A line that leaves its dashes is a column whose rows
    hold the labels of training.
    """
    found: dict[str, list[tuple[int, float, float]]] = {}
    for row in (row for row in history if row.get("kind") == "hidden"):
        for part in row["parts"]:
            told = part["figures"]
            found.setdefault(part["name"][0], []).append((row["step"], told["train"], told["valid"]))
    if not found:
        return None
    largest = sorted(found, key=lambda name: -max(abs(gain) for _, *both in found[name] for gain in both))
    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    axes.axhline(0, color=GREY, linewidth=1)
    for name, colour in zip(largest, (BLUE, ORANGE, GREEN, INK), strict=False):
        points = np.array(found[name], dtype=np.float64)
        _line(axes, points[:, :2], colour, label=short_label(name))
        axes.plot(points[:, 0], points[:, 2], color=colour, linewidth=1.5, linestyle="--", marker="o")
    axes.set(title="AUC added by ID columns", xlabel="step")
    axes.legend(loc="best", fontsize=9)
    return figure


def _losses(axes: Axes, loss: np.ndarray, held_out: np.ndarray) -> None:
    if len(loss) > 30:
        axes.plot(*loss.T, color=ORANGE, linewidth=1, alpha=0.35)
        axes.plot(loss[:, 0], _smooth(loss[:, 1]), color=ORANGE, linewidth=2, label="training")
    elif len(loss):
        _line(axes, loss, ORANGE, label="training")
    if len(held_out):
        _line(axes, held_out, BLUE, label="validation")
    axes.set_title("Loss")
    axes.legend(loc="upper right")


def _line(axes: Axes, points: np.ndarray, colour: str, **options: Any) -> None:
    axes.plot(*points.T, color=colour, linewidth=2, marker="o" if len(points) < 40 else "", **options)


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
