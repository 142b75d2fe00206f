"""The strategies in one picture: recall with its interval, and what a request costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ctr.generate.recall_intervals import BASELINES, StrategyRecall
from features.durable import replacing

WIDTH, HEIGHT, DOTS = 8.0, 0.42, 100  # inches: of the picture, of a strategy; dots per inch
LEAST = 0.01  # milliseconds: the axis has no 0
_STRATEGY, _BASELINE = "#1b6ca8", "#777777"


def draw(
    path: Path, recalls: Mapping[str, StrategyRecall], milliseconds: Mapping[str, float], *, k: int
) -> None:
    """Draw all strategies into a PNG file, the best on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted(recalls, key=lambda name: recalls[name].mean.value)
    figure = Figure(figsize=(WIDTH, 1.2 + HEIGHT * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    colours = [_BASELINE if name in BASELINES else _STRATEGY for name in names]
    for row, name in enumerate(names):
        found = recalls[name]
        if found.mean.low is not None and found.mean.high is not None:
            left.hlines(row, found.mean.low, found.mean.high, color=colours[row], linewidth=2)
        left.plot(found.runs, np.full(len(found.runs), row), "|", color=colours[row], markersize=9)
        left.plot(found.mean.value, row, "o", color=colours[row])
    right.barh(range(len(names)), [max(milliseconds.get(name, 0.0), LEAST) for name in names], color=colours)
    right.set_xscale("log")
    left.set_yticks(range(len(names)), names)
    left.set_xlabel(f"recall@{k}, 95 % interval; |: single runs")
    right.set_xlabel("ms per request")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path, point="generate.plot") as partial:
        figure.savefig(partial, dpi=DOTS)
