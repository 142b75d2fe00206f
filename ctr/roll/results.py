"""What the days have shown: figures of every model by day, and paired differences over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctr.compare import Cell, Judgement, compare_files, judge
from ctr.metrics import MetricValue, evaluate_table
from ctr.roll.plan import RollPlan
from ctr.roll.steps import PlainResult

METRICS = ("auc", "ne", "calibration")
ROLLED, FROZEN, SCRATCH = "rolled", "frozen", "scratch"
NAMES = {
    ROLLED: "trained day by day",
    FROZEN: "frozen after the first day",
    SCRATCH: "from scratch on all days before",
}


@dataclass(frozen=True)
class Day:
    """A day, as it was before and after the training on it.

    Attributes:
        name: of its directory of logs.
        facts: rows, label mean, shares of new users and items.
        files: model → its predictions of the whole day, before any model was trained on it.
        figures: model → metric → value.
        judgement: of the day's model against the champion, on the part that neither was trained on.
        decision: whether it was promoted, why, and who is champion now.
    """

    name: str
    facts: PlainResult
    files: Mapping[str, Path]
    figures: Mapping[str, Mapping[str, MetricValue]]
    judgement: PlainResult | None
    decision: PlainResult


@dataclass(frozen=True)
class RollResults:
    """All days so far.

    Attributes:
        pooled: differences over all days that were tested, from the frozen model.
        apart: the same from the model from scratch, where there is one.
    """

    plan: RollPlan
    days: Sequence[Day]
    pooled: Sequence[Judgement] = field(default_factory=list)
    apart: Sequence[Judgement] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the same whenever and wherever the roll was done."""
        return {
            "name": self.plan.name,
            "days": [_plain(day) for day in self.days],
            "beside_frozen": [j.to_dict() for j in self.pooled],
            "beside_scratch": [j.to_dict() for j in self.apart],
        }


def figures_of(path: Path) -> dict[str, Any]:
    """The metrics of a predictions table, as plain data."""
    metrics = evaluate_table(path, slices=[]).overall.metrics
    return {name: metrics[name].to_dict() for name in METRICS}


def read_figures(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, MetricValue]]:
    """Of `figures_of`, by model."""
    return {
        model: {name: MetricValue(**value) for name, value in own.items()} for model, own in plain.items()
    }


def over_days(days: Sequence[Day], *, base: str, alpha: float) -> list[Judgement]:
    """The other models beside one of them, over all days on which both were tested."""
    cells: dict[str, list[Cell]] = {}
    for day in days:
        others = {name: path for name, path in day.files.items() if name != base}
        if base not in day.files or not others:
            continue
        for name, pair in compare_files(day.files[base], others).items():
            cells.setdefault(name, []).append(Cell(pair=pair, window=day.name))
    return judge(cells, metrics=["auc", "ne"], alpha=alpha) if cells else []


def _plain(day: Day) -> dict[str, Any]:
    figures = {m: {n: v.to_dict() for n, v in own.items()} for m, own in day.figures.items()}
    return {
        "day": day.name,
        **day.facts,
        "figures": figures,
        "judgement": day.judgement,
        "decision": day.decision,
    }
