"""Progress for people: a bar on a terminal, a line every few seconds otherwise."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ctr.metrics import METRICS
from features.names import printable
from pipelines.terminal import echo

SECONDS_BETWEEN_LINES = 5.0


class BarDisplay:
    """A rich progress bar with loss, NE, rows/s and the time left."""

    def __init__(self) -> None:
        columns = (
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task: TaskID | None = None

    def start(self, *, step: int, total: int) -> None:
        """Show the bar at a step."""
        self._progress.start()
        self._task = self._progress.add_task("", total=total, completed=step)

    def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None:
        """Advance; figures appear when there are any."""
        assert self._task is not None
        if figures:
            self._progress.update(self._task, completed=step, description=describe(figures))
        else:
            self._progress.update(self._task, completed=step)

    def message(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(printable(text), highlight=False, markup=False)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class LineDisplay:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._total = 0
        self._began = self._last = time.monotonic()
        self._first = 0

    def start(self, *, step: int, total: int) -> None:
        """Remember where the steps begin, for the time left."""
        self._total, self._first, self._began = total, step, time.monotonic()

    def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None:
        """A line every few seconds."""
        now = time.monotonic()
        if not figures or (now - self._last < SECONDS_BETWEEN_LINES and step < self._total):
            return
        self._last = now
        left = (now - self._began) / max(1, step - self._first) * (self._total - step)
        self.message(f"step {step}/{self._total}  {describe(figures)}  left {left:.0f} s")

    def message(self, text: str) -> None:
        """A line on stderr."""
        echo(text, err=True)

    def stop(self) -> None:
        """Nothing is open."""


class NoDisplay:
    """Of the ranks of a job that do not draw."""

    def start(self, *, step: int, total: int) -> None:
        """Shows nothing."""

    def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None:
        """Shows nothing."""

    def message(self, text: str) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Nothing is open."""


def describe(figures: dict[str, float]) -> str:
    """Loss, NE and speed in one short text."""
    known = {
        "loss": "loss {:.4f}",
        "ne": METRICS["ne"].label + " {:.4f}",
        "rows_per_s": "{:,.0f} rows/s",
        "trainings": "{:.0f} trainings finished",
        "at_work": "{:.0f} at work",
    }
    return "  ".join(form.format(figures[name]) for name, form in known.items() if name in figures)


def make_display() -> BarDisplay | LineDisplay:
    """The bar where stderr is a terminal."""
    return BarDisplay() if sys.stderr.isatty() else LineDisplay()
