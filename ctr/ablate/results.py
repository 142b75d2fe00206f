"""From predictions to what the report shows: differences from the base with their verdicts, costs, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ctr.ablate.cost import Cost, cost_of, mean_cost
from ctr.ablate.expand import BASE, Variant
from ctr.ablate.halving import Stopped
from ctr.ablate.plan import Plan
from ctr.ablate.subruns import SubRun, Trial
from ctr.compare import DRAWS, Cell, Judgement, compare_files, judge
from ctr.runs.journal import read_rows

SLICE_DRAWS = 300
MAX_VALUES = 12  # of a slice
SliceValue = tuple[str, str]


@dataclass(frozen=True)
class VariantResult:
    """One variant beside the base."""

    name: str
    changes: str
    judgements: dict[str, Judgement]  # by metric; empty for the base and for what is the same run
    windows: list[float]  # difference in AUC in each window, mean over seeds
    cost: Cost | None
    same_as_base: bool = False


@dataclass(frozen=True)
class AblationResults:
    """Everything a report says."""

    plan: Plan
    lines: list[VariantResult]  # the base first
    slices: dict[SliceValue, dict[str, Judgement]] = field(default_factory=dict)  # of the AUC, by variant
    stopped: list[Stopped] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # variant → why
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> VariantResult:
        """The line of the base."""
        return self.lines[0]

    def compared(self) -> list[VariantResult]:
        """Lines with verdicts, the largest gain in the first metric first."""
        first = self.plan.metrics[0]
        found = [line for line in self.lines if line.judgements]
        return sorted(found, key=lambda line: -(line.judgements[first].delta or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what depends on the clock or the machine stands under `wall`."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "facts": self.facts,
            "variants": [_line_dict(line) for line in self.lines],
            "slices": [
                {"slice": name, "value": value, "variant": variant, **judgement.to_dict()}
                for (name, value), found in self.slices.items()
                for variant, judgement in found.items()
            ],
            "stopped": [vars(s) for s in self.stopped],
            "failed": self.failed,
        }


def _line_dict(line: VariantResult) -> dict[str, Any]:
    return {
        "name": line.name,
        "changes": line.changes,
        "same_as_base": line.same_as_base,
        "metrics": {metric: j.to_dict() for metric, j in line.judgements.items()},
        "delta_auc_by_window": line.windows,
        "cost": line.cost.to_dict() if line.cost else None,
    }


def evaluate(
    plan: Plan,
    variants: Sequence[Variant],
    subruns: Sequence[SubRun],
    *,
    stopped: Sequence[Stopped] = (),
    failed: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> AblationResults:
    """Compare every finished variant with the base on the same test rows.

    Args:
        plan: what was asked for.
        variants: the base first.
        subruns: their trainings, finished but for those of stopped and failed variants.
        stopped, failed: variants that are left out of the comparison.
        facts: name → text for the head of the report.
    """
    by_trial = {trial: subrun for subrun in subruns for trial in subrun.trials}
    out = {s.variant for s in stopped} | set(failed or {})
    there = [v for v in variants if v.name not in out]
    own = {v.name: _files(v, plan, by_trial) for v in there}
    others = [v.name for v in there if own[v.name] != own[BASE]]
    cells = _cells(own, others, task=plan.task)
    judged = judge(cells, metrics=plan.metrics, noise=plan.noise) if others else []
    lines = [_line(v, judged, cells.get(v.name, []), plan, by_trial) for v in there]
    slices = (
        {where: _in_slice(own, others, where, plan.task) for where in _slices(own[BASE], plan)}
        if others
        else {}
    )
    return AblationResults(plan, lines, slices, list(stopped), dict(failed or {}), dict(facts or {}))


Files = dict[tuple[int, int], Path]  # (seed, window) → predictions


def _files(variant: Variant, plan: Plan, by_trial: Mapping[Trial, SubRun]) -> Files:
    return {
        (seed, window): by_trial[Trial(variant.name, seed, window)].predictions(variant.permute)
        for window in range(plan.windows)
        for seed in plan.seeds
    }


def _cells(
    files: Mapping[str, Files],
    names: Sequence[str],
    where: SliceValue | None = None,
    *,
    task: str | None,
    draws: int = DRAWS,
) -> dict[str, list[Cell]]:
    """Each variant's trainings beside the base's of the same seed and window."""
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for (seed, window), base in files[BASE].items():
        variants = {name: files[name][seed, window] for name in names}
        pairs = compare_files(base, variants, where=where, task=task, draws=draws)
        for name in names:
            cells[name].append(Cell(pair=pairs[name], seed=seed, window=str(window)))
    return cells


def _line(
    variant: Variant,
    judged: Sequence[Judgement],
    cells: Sequence[Cell],
    plan: Plan,
    by_trial: Mapping[Trial, SubRun],
) -> VariantResult:
    trials = [Trial(variant.name, seed, w) for w in range(plan.windows) for seed in plan.seeds]
    deltas = [
        float(np.mean([cell.pair.delta("auc") for cell in cells if cell.window == str(window)]))
        for window in range(plan.windows)
        if cells
    ]
    journals = {by_trial[trial].key: by_trial[trial].path / "journal.jsonl" for trial in trials}
    return VariantResult(
        variant.name,
        variant.changes,
        {j.metric: j for j in judged if j.variant == variant.name},
        deltas,
        mean_cost(cost_of(read_rows(path)) for path in journals.values()),
        same_as_base=variant.name != BASE and not cells,
    )


def _slices(base: Files, plan: Plan) -> list[SliceValue]:
    """Slice values that the base's predictions have, of the slices that the plan asks for."""
    wanted = [f"slice_{name}" for name in plan.slices]
    found: dict[SliceValue, None] = {}
    for path in base.values():
        there = [name for name in wanted if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=there)
        for name in there:
            values = sorted({str(v) for v in table[name].unique().to_pylist() if v is not None})
            found |= {(name.removeprefix("slice_"), value): None for value in values[:MAX_VALUES]}
    return sorted(found, key=lambda where: (plan.slices.index(where[0]), where[1]))


def _in_slice(
    files: Mapping[str, Files], names: Sequence[str], where: SliceValue, task: str | None
) -> dict[str, Judgement]:
    judged = judge(_cells(files, names, where, task=task, draws=SLICE_DRAWS), metrics=("auc",))
    return {j.variant: j for j in judged if j.metric == "auc"}
