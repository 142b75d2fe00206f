"""Every figure of a report as rows of the journal, from where tracking sends them on.

A row named as the split has the metrics of all its rows, `auc` beside `auc_low` and `auc_high`. The figures
of parts are one row each of the kinds slices, baselines and importance: `split`, and `parts`, each with its
`name` (a list of texts, such as slice and value) and `figures`. Of a run with several tasks `auc`
is that of the first, `buy.auc` that of another; a slice of another has its name in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ctr.metrics import Evaluation, MetricValue, Summary
from ctr.metrics.regression import RegressionSummary
from ctr.metrics.table import METRICS
from ctr.report.evaluation import as_metric

ReportRow = tuple[str, dict[str, Any]]  # kind and values


def report_rows(
    evaluation: Evaluation,
    *,
    split: str,
    baselines: Sequence[Mapping[str, Any]] = (),
    importance: Mapping[str, MetricValue] | None = None,
    others: Mapping[str, Evaluation] = MappingProxyType({}),
    values: Mapping[str, RegressionSummary] = MappingProxyType({}),
) -> Iterator[ReportRow]:
    """The rows of a report.

    Args:
        evaluation: of the split.
        split: its name.
        baselines: the lines of its comparison, see `ctr.report.evaluation.ReportContext`.
        importance: what each feature is worth in AUC, where it was measured.
        others: output → evaluation, of a run with several tasks: all but the first one.
        values: task → the metrics of a regression.
    """
    metrics = {name: other.overall.metrics for name, other in others.items()}
    metrics |= {name: found.metrics for name, found in values.items()}
    of_others = {f"{n}.{key}": value for n, own in metrics.items() for key, value in figures(own).items()}
    yield split, figures(evaluation.overall.metrics) | of_others
    slices = [
        *_slices(evaluation, []),
        *(part for n, other in others.items() for part in _slices(other, [n])),
    ]
    lines = [
        _part([str(line.get("kind", line["name"]))], figures({n: as_metric(line.get(n)) for n in METRICS}))
        for line in baselines
    ]
    worth = [_part([name], figures({"auc_loss": found})) for name, found in (importance or {}).items()]
    for kind, parts in (("slices", slices), ("baselines", lines), ("importance", worth)):
        if parts:
            yield kind, {"split": split, "parts": parts}


def _slices(evaluation: Evaluation, front: list[str]) -> list[dict[str, Any]]:
    return [
        _part([*front, name, value], _counted(summary))
        for name, values in evaluation.slices.items()
        for value, summary in values.items()
    ]


def figures(metrics: Mapping[str, MetricValue]) -> dict[str, float | None]:
    """Each metric by its name, None where it is undefined, and the ends of its interval where it has one.

    Example:
        >>> figures({"auc": MetricValue(value=0.7, low=0.6, high=0.8), "ne": MetricValue(value=None)})
        {'auc': 0.7, 'auc_low': 0.6, 'auc_high': 0.8, 'ne': None}
    """
    found: dict[str, float | None] = {}
    for name, metric in metrics.items():
        found[name] = metric.value
        if metric.low is not None and metric.high is not None:
            found |= {f"{name}_low": metric.low, f"{name}_high": metric.high}
    return found


def _counted(summary: Summary) -> dict[str, float | None]:
    return {"rows": summary.rows, "positives": summary.positives, **figures(summary.metrics)}


def _part(name: list[str], known: dict[str, float | None]) -> dict[str, Any]:
    return {"name": name, "figures": {key: value for key, value in known.items() if value is not None}}
