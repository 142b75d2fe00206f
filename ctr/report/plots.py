"""How the pictures of all reports look, and figures as text; no global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ctr.metrics import MetricValue
from features.names import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A93A0", "#1F2933"
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


def short_label(text: str, limit: int = 36) -> str:
    """A label from elsewhere that fits, without control characters and with `$` made harmless.

    Matplotlib would read mathematics between two of them.
    """
    shown = one_line(text)
    return (shown if len(shown) <= limit else shown[: limit - 1] + "…").replace("$", r"\$")


def number(value: float | None, digits: int = 4) -> str:
    """A figure for people: fixed digits, or an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_ends(metric: MetricValue) -> str:
    """A metric with its interval: `0.7512 (0.7401 to 0.7620)`."""
    if metric.value is None or metric.low is None:
        return number(metric.value)
    return f"{number(metric.value)} ({number(metric.low)} to {number(metric.high)})"
