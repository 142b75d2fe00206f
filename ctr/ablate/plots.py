"""The pictures of an ablation: differences, windows, quality against cost, slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctr.ablate.results import AblationResults, VariantResult
from ctr.compare import Judgement
from ctr.metrics import METRICS
from ctr.report.plots import GREEN, GREY, INK, ORANGE, drawn, new_figure, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"helps": GREEN, "hurts": ORANGE, "no evidence": GREY}
ROW = 0.36  # inches for a variant
_NEAR = 1.02  # costs of a smaller ratio hide each other


def draw_all(results: AblationResults) -> dict[str, bytes]:
    """PNG images by name: deltas, and, where there is something to show, windows, cost, slices."""
    lines = results.compared()
    figures = {
        "deltas": lambda: deltas(lines, results),
        "windows": lambda: windows(lines),
        "cost": lambda: cost(results),
        "slices": lambda: slices(lines, results),
    }
    return drawn(figures)


def deltas(lines: Sequence[VariantResult], results: AblationResults) -> Figure | None:
    """Bars of the difference in the first metric with 95 % intervals, the largest gain on top."""
    metric = results.plan.metrics[0]
    shown = [(line, line.judgements[metric]) for line in lines if line.judgements[metric].delta is not None]
    if not shown:
        return None
    figure = new_figure(8.4, 1.5 + ROW * len(shown))
    axes = figure.add_subplot()
    axes.axvline(0, color=INK, linewidth=1)
    for at, (_, j) in enumerate(shown):
        assert j.delta is not None
        axes.barh(at, j.delta, height=0.62, color=COLOURS[j.verdict], alpha=0.75, linewidth=0)
        if j.low is not None and j.high is not None:
            axes.plot([j.low, j.high], [at, at], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.text(1.02, at, _p(j), transform=axes.get_yaxis_transform(), va="center", fontsize=10)
    axes.text(1.02, -0.75, "p (Holm)", transform=axes.get_yaxis_transform(), fontsize=10, color=GREY)
    _name_rows(axes, [line.name for line, _ in shown])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{METRICS[metric].in_text} minus that of the base; lines are 95 % intervals")
    axes.set_title(f"Difference in {METRICS[metric].in_text} from the base")
    _legend(figure, {j.verdict for _, j in shown})
    return figure


def _p(judgement: Judgement) -> str:
    if judgement.p_holm is None:
        return "–"
    return "< 0.001" if judgement.p_holm < 0.001 else f"{judgement.p_holm:.3f}"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short_label(name, 34) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.9)
    axes.tick_params(axis="y", length=0)


def _legend(figure: Figure, verdicts: set[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=c, alpha=0.75, label=v) for v, c in COLOURS.items() if v in verdicts]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)


def windows(lines: Sequence[VariantResult]) -> Figure | None:
    """Difference in AUC, variant × window; None where there is one window."""
    rows = [line for line in lines if len(line.windows) > 1]
    if not rows:
        return None
    values = np.array([line.windows for line in rows])
    columns = [f"window {i}" for i in range(values.shape[1])]
    return heat_map(
        values, [line.name for line in rows], columns, title="Difference in AUC from the base, by window"
    )


def slices(lines: Sequence[VariantResult], results: AblationResults) -> Figure | None:
    """Difference in AUC, variant × slice; bold where the 95 % interval leaves out 0."""
    if not results.slices or not lines:
        return None
    wheres = list(results.slices)
    cells = [[results.slices[where].get(line.name) for where in wheres] for line in lines]
    values = np.array([[_value(j) for j in row] for row in cells])
    bold = np.array([[_excludes_zero(j) for j in row] for row in cells])
    columns = [f"{name}\n{value}" for name, value in wheres]
    title = "Difference in AUC by slice (bold: the interval leaves out 0, not corrected)"
    return heat_map(values, [line.name for line in lines], columns, title=title, bold=bold)


def _value(judgement: Judgement | None) -> float:
    return np.nan if judgement is None or judgement.delta is None else judgement.delta


def _excludes_zero(judgement: Judgement | None) -> bool:
    if judgement is None or judgement.low is None or judgement.high is None:
        return False
    return judgement.low > 0 or judgement.high < 0


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    bold: np.ndarray | None = None,
) -> Figure:
    """Signed values as a table with colours: orange below 0, green above, grey where undefined."""
    from matplotlib.colors import LinearSegmentedColormap

    figure = new_figure(max(8.4, 3.6 + 0.95 * len(columns)), 1.5 + ROW * len(rows))
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("signed", [ORANGE, "#FFFFFF", GREEN], bad="#E5E8EC")
    known = np.abs(values[np.isfinite(values)])
    top = max(float(known.max()), 1e-6) if known.size else 1.0
    axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=-top, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = f"{value:+.4f}" if np.isfinite(value) else "–"
        weight = "bold" if bold is not None and bold[i, j] else "normal"
        dark = np.isfinite(value) and abs(value) > 0.75 * top
        axes.text(j, i, text, ha="center", va="center", fontsize=9, weight=weight,
                  color="white" if dark else INK)  # fmt: skip
    axes.set_xticks(range(len(columns)), [short_label(name) for name in columns], fontsize=9)
    axes.set_yticks(range(len(rows)), [short_label(name, 34) for name in rows])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def cost(results: AblationResults) -> Figure | None:
    """Difference in the first metric against operations per row; the base is the square at 0."""
    metric = results.plan.metrics[0]
    points = [
        (line.name, line.cost.flops_per_row, delta, line.judgements[metric])
        for line in results.compared()
        if line.cost and (delta := line.judgements[metric].delta) is not None
    ]
    if not points or results.base.cost is None:
        return None
    figure = new_figure(9.6, max(4.6, 1.2 + 0.25 * len(points)))
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, linewidth=1)
    base = results.base.cost.flops_per_row
    axes.plot(base, 0, marker="s", color=INK, markersize=8, linestyle="", label="base")
    positions = _apart([flops for _, flops, *_ in points])
    for number, (x, (name, _, delta, j)) in enumerate(zip(positions, points, strict=True), start=1):
        _cost_point(axes, x, delta, j, number=number, name=name)
    _few_log_ticks(axes, [base, *(flops for _, flops, *_ in points)])
    figure.legend(loc="outside right center", fontsize=9, markerscale=0.6)
    axes.set_xlabel("operations of forward and backward, per row (equal ones stand side by side)")
    axes.set_ylabel(f"{METRICS[metric].in_text} minus that of the base")
    axes.set_title("Quality against cost")
    return figure


def _cost_point(axes: Axes, x: float, y: float, judgement: Judgement, *, number: int, name: str) -> None:
    colour = COLOURS[judgement.verdict]
    if judgement.low is not None and judgement.high is not None:
        axes.plot([x, x], [judgement.low, judgement.high], color=colour, linewidth=1.4, alpha=0.7)
    label = f"{number}  {short_label(name, 34)}"
    axes.plot(x, y, marker="o", color=colour, markersize=14, linestyle="", label=label)
    axes.text(x, y, str(number), color="white", ha="center", va="center", fontsize=8, weight="bold")


def _apart(costs: Sequence[float]) -> list[float]:
    """The costs with those that are nearly equal moved side by side, a step to the right each.

    Example:
        >>> _apart([100.0, 200.0, 100.5])
        [100.0, 200.0, 102.51]
    """
    placed: list[float] = []
    for value in costs:
        crowd = sum(1 for other in costs[: len(placed)] if 1 / _NEAR < value / other < _NEAR)
        placed.append(value * _NEAR**crowd)
    return placed


def _few_log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """A few round numbers, also where all costs lie within one decade."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.15, high * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def si(value: float | None) -> str:
    """A large number in few letters.

    Example:
        >>> si(1234567), si(950), si(None)
        ('1.23 M', '950', '–')
    """
    if value is None:
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
