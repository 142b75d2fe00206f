"""The report of a run with several tasks, or with calibrated scores: a page and a line for each output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ctr.metrics import Evaluation, MetricValue
from ctr.metrics.regression import REGRESSION_METRICS, RegressionSummary
from ctr.metrics.table import METRICS, headlines
from ctr.report.evaluation import ReportContext, write_report
from ctr.report.plots import number, with_ends
from ctr.report.training import ValidationRows


def write_reports(
    out_dir: Path,
    evaluations: Mapping[str, Evaluation],
    *,
    history: ValidationRows,
    title: str,
    context: ReportContext,
    importances: Mapping[str, Mapping[str, MetricValue]] = MappingProxyType({}),
    raw: Mapping[str, Evaluation] = MappingProxyType({}),
    values: Mapping[str, RegressionSummary] = MappingProxyType({}),
    sampled: Evaluation | None = None,
) -> Path:
    """The report of a run and, of one with several tasks, those of its further outputs in folders below it.

    Args:
        out_dir, history, title, context: as `write_report` takes them; baselines are for the first task.
        evaluations: output → its evaluation, as `ctr.metrics.evaluate_tasks` gives them.
        importances: output → feature → what its AUC loses without it.
        raw: of a calibrated run, output → its evaluation without calibration.
        values: task → the metrics of a regression.
        sampled: of a run with sampled negatives, the first output as if nothing made up for that.

    Returns:
        Path of the index.html of the first.
    """
    first, *others = evaluations
    own: ReportContext = {**context, "importance": importances.get(first, {})}
    own["baselines"] = [*context.get("baselines", ()), *uncalibrated(raw, first), *uncorrected(sampled)]
    own["values"] = values
    if not others:
        return write_report(out_dir, evaluation=evaluations[first], history=history, title=title, context=own)
    for name in others:
        pages = {first: "../index.html"} | {n: f"../{n}/index.html" for n in others}
        write_report(
            out_dir / name,
            evaluation=evaluations[name],
            history=(),
            title=f"{title}, {name}",
            context={
                **context,
                "baselines": uncalibrated(raw, name),
                "importance": importances.get(name, {}),
                "tasks": evaluations,
                "pages": pages,
            },
        )
    own |= {"tasks": evaluations, "pages": {n: f"{n}/index.html" for n in others}}
    return write_report(
        out_dir, evaluation=evaluations[first], history=history, title=f"{title}, {first}", context=own
    )


def uncalibrated(raw: Mapping[str, Evaluation], name: str) -> list[dict[str, Any]]:
    """The line of a comparison for an output without calibration; none of a run that is not calibrated."""
    if name not in raw:
        return []
    note = "the same weights, σ(logit)"
    return [
        {"name": "without calibration", "kind": "uncalibrated", "note": note, **raw[name].overall.metrics}
    ]


def uncorrected(sampled: Evaluation | None) -> list[dict[str, Any]]:
    """The line of a comparison for sampled negatives as if nothing made up for that; none if none were."""
    if sampled is None:
        return []
    note = "σ(logit − ln w), a kept negative counts once"
    return [
        {"name": "without the correction of sampling", "kind": "uncorrected", "note": note}
        | sampled.overall.metrics
    ]


def format_tasks_table(tasks: Mapping[str, Evaluation]) -> str:
    """The headline figures of several tasks as aligned text: a line each, over the rows of each."""
    columns = headlines()
    width = max(8, *(len(name) for name in tasks))
    heads = " ".join(f"{METRICS[c.name].label:<27}" if c.name == "auc" else f"{c.label:<10}" for c in columns)
    lines = [f"{'task':<{width}} {'rows':>10} {'label 1':>10} {heads}".rstrip()]
    lines.append("-" * len(lines[0]))
    for name, evaluation in tasks.items():
        found = evaluation.overall
        cells = [
            f"{with_ends(found.metrics[c.name]):<27}"
            if c.name == "auc"
            else f"{number(found.metrics[c.name].value):<10}"
            for c in columns
        ]
        lines.append(f"{name:<{width}} {found.rows:>10,} {found.positives:>10,} {' '.join(cells)}".rstrip())
    return "\n".join(lines)


def format_calibration_table(tasks: Mapping[str, Evaluation], raw: Mapping[str, Evaluation]) -> str:
    """NE, calibration and ECE of each output with and without calibration, as aligned text."""
    return _probabilities(
        (name, said, found)
        for name, evaluation in tasks.items()
        for said, found in (("calibrated", evaluation), ("not calibrated", raw[name]))
    )


def format_sampling_table(corrected: Evaluation, sampled: Evaluation) -> str:
    """NE, calibration and ECE with sampled negatives made up for and as if they were not, as aligned text."""
    said = {"of all rows": corrected, "of the kept rows, not corrected": sampled}
    return _probabilities(("sampled negatives:", name, found) for name, found in said.items())


def _probabilities(parts: Iterable[tuple[str, str, Evaluation]]) -> str:
    """What is said of probabilities, a line for each evaluation and its two names."""
    columns, parts = [METRICS[name] for name in ("ne", "calibration", "ece")], list(parts)
    first = max(8, *(len(name) for name, _, _ in parts))
    second = max(19, *(len(said) for _, said, _ in parts))
    lines = [f"{'':<{first + second + 1}} {' '.join(f'{c.label:<12}' for c in columns)}".rstrip()]
    for name, said, found in parts:
        cells = (f"{number(found.overall.metrics[c.name].value):<12}" for c in columns)
        lines.append(f"{name:<{first}} {said:<{second}} {' '.join(cells)}".rstrip())
    return "\n".join(lines)


def format_values_table(values: Mapping[str, RegressionSummary]) -> str:
    """The metrics of regressions in the unit of the log, as aligned text."""
    lines = []
    for name, found in values.items():
        lines.append(f"{name}, {found.rows:,} rows")
        for key, metric in found.metrics.items():
            said = metric.reason or metric.interval or ""
            lines.append(f"{REGRESSION_METRICS[key].label:<12} {with_ends(metric):<28} {said}".rstrip())
    return "\n".join(lines)
