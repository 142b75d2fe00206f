"""The charts of the suites as small PNG files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctr.bench.results import Chart
from features.durable import replacing

SIZE, DOTS = (6.4, 4.0), 90
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#c77d0a", "#555555")
MARKERS = "osD^vP"
DASHES = ("-", "--", ":")  # the first six lines, the next six, and so on


MARKED = len(MARKERS)  # so many lines have a colour and a marker of their own, and a legend among them


def draw_all(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Draw every chart into `<folder>/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [draw(chart, folder / f"{chart.name}.png") for chart in charts]


def draw(chart: Chart, path: Path) -> Path:
    """Draw one chart; without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(chart.lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label=name, **style(i))
    for name, level in chart.levels.items():
        axes.axhline(level, color="#999999", linestyle="--", linewidth=1, label=name)
    if chart.log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({x for points in chart.lines.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter("{x:,g}")
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.lines) > MARKED:
        figure.legend(frameon=False, fontsize=8, handlelength=3, loc="outside right center")
    else:
        axes.legend(frameon=False, fontsize=8)
    with replacing(path, point="bench.plot") as partial:
        figure.savefig(partial, dpi=DOTS)
    return path


def style(line: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line: no two of the first eighteen are alike."""
    again, kind = divmod(line, MARKED)
    filled = COLOURS[kind] if again == 0 else "white"
    look = {"color": COLOURS[kind], "marker": MARKERS[kind], "linestyle": DASHES[again % len(DASHES)]}
    return look | {"markerfacecolor": filled, "markersize": 4.5, "linewidth": 1.6}
