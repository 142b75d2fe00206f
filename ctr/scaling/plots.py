"""The picture of a metric: points, curve with its band, predictions; against the size and the operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctr.ablate.plots import si
from ctr.metrics import METRICS
from ctr.report.plots import BLUE, GREEN, GREY, INK, ORANGE, drawn, new_figure
from ctr.scaling.fit import Curve
from ctr.scaling.measured import Against, Measured, flat
from ctr.scaling.predict import LAST, LINE
from ctr.scaling.results import Finding, SweepResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {"flops": "operations of the whole training (FLOPs)", "parameters": "parameters"}


def draw_all(results: SweepResults) -> dict[str, bytes]:
    """PNG images by metric."""
    return drawn({f.metric: lambda f=f: picture(results, f) for f in results.findings})  # type: ignore[misc]


def picture(results: SweepResults, finding: Finding) -> Figure:
    """One panel against the plan's axis, one against operations where they differ and are known."""
    second = _second(results)
    figure = new_figure(12.4 if second else 7.2, 5.2)
    panels = figure.subplots(1, 2 if second else 1, sharey=True, squeeze=False)[0]
    _panel(panels[0], results, finding, results.against, finding.first)
    panels[0].set_ylabel(label(finding.metric))
    if second:
        fitted = results.points[: len(results.points) - results.held_out]
        _panel(panels[1], results, finding, second, Curve(*flat(fitted, finding.metric, second)))
    figure.suptitle(
        f"{label(finding.metric)}: αx^β + γ, fitted to {len(results.points) - results.held_out} sizes",
        x=0.01, ha="left", fontsize=13, fontweight="bold",
    )  # fmt: skip
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=10)
    return figure


def label(metric: str) -> str:
    """A metric's name for people."""
    return METRICS[metric].in_text if metric in METRICS else metric


def _second(results: SweepResults) -> Against | None:
    other: Against = "x" if results.against == "flops" else "flops"
    if other == "flops" and not results.has_flops():
        return None
    positions = {point.at(other) for point in results.points[: len(results.points) - results.held_out]}
    return other if len(positions) >= 3 else None


def _panel(axes: Axes, results: SweepResults, finding: Finding, against: Against, curve: Curve) -> None:
    fitted = results.points[: len(results.points) - results.held_out]
    held = results.points[len(fitted) :]
    positions = [point.at(against) for point in results.points]
    grid = np.geomspace(*_beyond(positions, 0.06), 200)
    value, low, high = curve.band(grid)
    axes.fill_between(grid, low, high, color=BLUE, alpha=0.13, linewidth=0, label="95 % of the curve")
    axes.plot(grid, value, color=BLUE, linewidth=2, label="curve through the first sizes")
    _measured(axes, fitted, finding.metric, against, colour=INK, name="measured")
    _measured(axes, held, finding.metric, against, colour=ORANGE, name="measured after the prediction"
              if results.before else "held out of the fit")  # fmt: skip
    if against == results.against:
        _predictions(axes, finding, aside=(max(positions) / min(positions)) ** 0.015)
    _ticks(axes, positions, against)
    _limits(axes, results, finding)
    axes.set_xlabel(AXES.get(against, results.axis))


def _measured(
    axes: Axes, points: list[Measured], metric: str, against: Against, *, colour: str, name: str
) -> None:
    """Every training as a small dot, a point's mean as a large one."""
    x, y = flat(points, metric, against)
    axes.scatter(x, y, s=16, color=colour, alpha=0.45, linewidths=0, zorder=4)
    means = [point.mean(metric) for point in points]
    axes.scatter([p.at(against) for p in points], means, s=58, color=colour, zorder=5, label=name)


def _predictions(axes: Axes, finding: Finding, *, aside: float) -> None:
    """Every prediction with its interval, a little to the left of its point; the naive ones to the right."""
    made = [s.prediction for s in finding.scores]
    x, value, low, high = np.array(
        [[p.forecast.x, p.forecast.value, p.forecast.low, p.forecast.high] for p in made]
    ).T
    ends = [value - low, high - value]
    axes.errorbar(x / aside, value, ends, color=BLUE, fmt="D", ms=6, lw=2, capsize=4, zorder=6,
                  label="predicted, 95 %")  # fmt: skip
    for key, marker, colour in ((LINE, "^", GREEN), (LAST, "v", GREY)):
        naive = [p.naive[key] for p in made]
        axes.plot(x * aside, naive, marker=marker, color=colour, ms=8, linestyle="", zorder=4, label=key)


def _limits(axes: Axes, results: SweepResults, finding: Finding) -> None:
    """Around points and predictions; an interval that is very wide is cut, or it would press them flat."""
    shown = [y for point in results.points for y in point.values[finding.metric]]
    made = [s.prediction for s in finding.scores]
    shown += [y for p in made for y in (p.forecast.value, *p.naive.values())]
    low, high = min(shown), max(shown)
    room = max(high - low, 1e-6)
    bottom = min(low, max(low - 0.6 * room, *(p.forecast.low for p in made)))
    top = max(high, min(high + 0.6 * room, *(p.forecast.high for p in made)))
    axes.set_ylim(bottom - 0.08 * room, top + 0.08 * room)


def _ticks(axes: Axes, positions: list[float], against: Against) -> None:
    """The measured positions themselves on a logarithmic axis, as far as there is room, the largest first."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*_beyond(positions, 0.08))
    apart = 0.11 * np.log(max(positions) / min(positions))
    shown = [max(positions)]
    for position in sorted(positions, reverse=True):
        if np.log(shown[-1] / position) >= apart:
            shown.append(position)
    axes.set_xticks(shown, [f"{x:g}" if against == "x" else si(x) for x in shown])
    axes.xaxis.set_minor_locator(NullLocator())


def _beyond(positions: list[float], share: float) -> tuple[float, float]:
    """The ends of an axis that goes on by a share of its length on both sides."""
    low, high = min(positions), max(positions)
    return low * (low / high) ** share, high * (high / low) ** share
