"""Progress of an ablation for people: steps of all trainings together, and a line for each that ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ctr.ablate.run import steps_done
from ctr.ablate.subruns import SubRun
from ctr.metrics.table import metric_of
from ctr.runs.journal import read_rows
from ctr.training.display import Display
from ctr.training.validation import selected_figure, selection_value

SECONDS_BETWEEN_LOOKS = 1.0


class Watch:
    """Looks at the journals of the trainings and shows how far all are.

    Args:
        subruns: all of the ablation, those that are finished already too.
        display: the one of `ctr train`.
    """

    def __init__(self, subruns: Sequence[SubRun], display: Display) -> None:
        self._display = display
        self._finished = {s.key for s in subruns if s.is_finished()}
        self._todo = [s for s in subruns if s.key not in self._finished]
        self._before = len(self._finished)
        self._steps: dict[str, int] = {}
        self._shown = -1
        self._last = 0.0

    def __enter__(self) -> Watch:
        if self._before:
            self._display.message(f"{self._before} trainings are finished already")
        self._steps = {s.key: min(steps_done(s), s.steps) for s in self._todo}
        self._display.start(step=sum(self._steps.values()), total=sum(s.steps for s in self._todo))
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def look(self, at_work: Sequence[SubRun]) -> None:
        """Bring the display up to date; called often."""
        ended = [s for s in self._todo if s.key not in self._finished and self._has_ended(s, at_work)]
        for subrun in ended:
            self._finished.add(subrun.key)
            self._steps[subrun.key] = subrun.steps
            self._display.message(f"finished {subrun.path.name}: {_result(subrun)}")
        now = time.monotonic()
        if not ended and now - self._last < SECONDS_BETWEEN_LOOKS:
            return
        self._last = now
        self._steps |= {s.key: min(steps_done(s), s.steps) for s in at_work}
        if (step := sum(self._steps.values())) != self._shown:
            self._shown = step
            figures = {"trainings": float(len(self._finished)), "at_work": float(len(at_work))}
            self._display.step(step=step, rows=0, figures=figures)

    def _has_ended(self, subrun: SubRun, at_work: Sequence[SubRun]) -> bool:
        here = any(subrun is other for other in at_work)
        return not here and self._steps.get(subrun.key, 0) > 0 and subrun.is_finished()


def _result(subrun: SubRun) -> str:
    rows = [row for row in read_rows(subrun.path / "journal.jsonl") if row["kind"] == "best"]
    selection = subrun.config.train.metric
    value = selection_value(rows[-1], selection) if rows else None
    if value is None:
        return "no validation"
    label = " + ".join(metric_of(name).label for name in selection.split("+"))
    return f"validation {label} {selected_figure(value, selection):.4f}"
