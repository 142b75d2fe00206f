"""The curves of an evaluation: ROC, precision and recall, reliability, scores by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.metrics import Curves, MetricValue
from ctr.report.plots import BLUE, GREY, INK, ORANGE, new_figure, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def precision_recall(curves: Curves) -> Figure:
    """Precision over recall, from the points of the ROC curve, beside the precision of a random order."""
    figure = new_figure(5.6, 5.2)
    axes = figure.add_subplot()
    pos, neg = int(curves.hist_pos.sum()), int(curves.hist_neg.sum())
    if not pos or not neg:
        _note(axes, "only one class" if pos or neg else "no rows")
    else:
        hits, misses = curves.tpr * pos, curves.fpr * neg
        some = hits + misses > 0  # precision of no row is undefined
        precision = hits[some] / (hits + misses)[some]
        rate = pos / (pos + neg)
        axes.axhline(rate, color=GREY, linestyle="--", linewidth=1)
        name = f"share of label 1: {rate:.4f}"
        axes.text(0.01, rate, name, va="bottom", color=GREY, fontsize=10)
        axes.plot(curves.tpr[some], precision, color=BLUE, linewidth=2.2)
        axes.fill_between(curves.tpr[some], precision, color=BLUE, alpha=0.08)
        axes.set_ylim(0, min(1.01, 1.1 * float(precision.max())))
    axes.set(xlim=(-0.01, 1.01), title="Precision and recall")
    axes.set(xlabel="recall: share of label 1 that is above the threshold", ylabel="precision")
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


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=INK)
