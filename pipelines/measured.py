"""From a table of predictions to figures with intervals, a report, and the rows that the journal gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ctr.metrics import (
    Evaluation,
    MetricValue,
    evaluate_raw,
    evaluate_sampled,
    evaluate_tasks,
    evaluate_values,
)
from ctr.metrics.regression import RegressionSummary
from ctr.report.evaluation import as_metric, format_metrics_table
from ctr.report.figures import ReportRow, report_rows
from ctr.report.plots import with_ends
from ctr.report.tasks import (
    format_calibration_table,
    format_sampling_table,
    format_tasks_table,
    format_values_table,
    uncalibrated,
    uncorrected,
    write_reports,
)
from ctr.runs.journal import Row

Importances = Mapping[str, Mapping[str, MetricValue]]  # output → feature → loss of AUC without it


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation produced."""

    evaluation: Evaluation
    report: Path
    step: int
    comparison: list[dict[str, Any]]  # baselines and reference lines
    importance: Mapping[str, MetricValue] = field(default_factory=dict)  # feature → loss of AUC without it
    tasks: dict[str, Evaluation] = field(default_factory=dict)  # output → evaluation, the first one first
    raw: dict[str, Evaluation] = field(default_factory=dict)  # the same without calibration, if there is one
    values: dict[str, RegressionSummary] = field(default_factory=dict)  # of regressions
    sampled: Evaluation | None = None  # of the first output, as if nothing made up for sampled negatives
    notes: Sequence[str] = ()  # further sentences, below the tables

    @property
    def others(self) -> dict[str, Evaluation]:
        """The evaluations of further tasks, without the first."""
        return dict(list(self.tasks.items())[1:])

    def rows(self, name: str) -> Iterator[ReportRow]:
        """What the journal gets; `name` is that of the split."""
        beside = [*self.comparison, *uncalibrated(self.raw, next(iter(self.tasks)))]
        beside += uncorrected(self.sampled)
        return report_rows(
            self.evaluation,
            split=name,
            baselines=beside,
            importance=self.importance,
            others=self.others,
            values=self.values,
        )

    def text(self) -> str:
        """The table of metrics, and below it what the model is compared with."""
        lines = [format_metrics_table(self.evaluation), *([""] if self.comparison else [])]
        if len(self.tasks) > 1:
            first = next(iter(self.tasks))
            lines = [format_tasks_table(self.tasks), "", f"{first}, the first task:", *lines]
        if self.values:
            lines += ["", format_values_table(self.values)]
        if self.raw:
            lines += ["", format_calibration_table(self.tasks, self.raw)]
        if self.sampled is not None:
            lines += ["", format_sampling_table(self.evaluation, self.sampled)]
        for line in self.comparison:
            lines.append(f"{line['name']:45} AUC {with_ends(as_metric(line['auc']))}")
        ranked = sorted(self.importance.items(), key=lambda item: -(item[1].value or 0.0))
        if ranked:
            lines += ["", f"AUC lost without a feature, {ranked[0][1].n:,} rows"]
            lines += [f"{name:45} {with_ends(metric)}" for name, metric in ranked]
        lines += ["", *self.notes] if self.notes else []
        return "\n".join(lines)


def measure(
    predictions: Path,
    report: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    step: int,
    comparison: Sequence[dict[str, Any]] = (),
    importances: Importances = MappingProxyType({}),
    history: Sequence[Row] = (),
) -> EvaluationResult:
    """Compute metrics overall and per slice, and write the report.

    Args:
        predictions: a table of `ctr.predictions`.
        report: folder of the report.
        title: its heading.
        facts: name → value, at its head.
        config: what was scored, as plain data.
        step: of the weights.
        comparison: baselines and other lines, see `ctr.report.evaluation.ReportContext`.
        importances: output → feature → what its AUC loses without it, where it was measured.
        history: rows of the journal.
    """
    evaluations = evaluate_tasks(predictions)
    first, evaluation = next(iter(evaluations.items()))
    raw, values = evaluate_raw(predictions), evaluate_values(predictions)
    sampled = evaluate_sampled(predictions, slices=[])
    page = write_reports(
        report,
        evaluations,
        history=history,
        title=title,
        importances=importances,
        raw=raw,
        values=values,
        sampled=sampled,
        context={"baselines": comparison, "config": config, "facts": facts},
    )
    own = importances.get(first, {})
    return EvaluationResult(evaluation, page, step, list(comparison), own, evaluations, raw, values, sampled)
