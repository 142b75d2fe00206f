"""The report of an evaluated run: one HTML file that needs nothing else, its pictures, and metrics.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ctr.metrics import Evaluation, MetricValue, Summary
from ctr.metrics.regression import REGRESSION_METRICS, RegressionSummary
from ctr.metrics.table import METRICS, shown
from ctr.report.html import render_page
from ctr.report.pictures import draw_all
from ctr.report.plots import number, with_ends
from ctr.report.training import ValidationRows
from features.durable import replace_file, sweep

CAPTIONS = {
    "roc": "ROC curve",
    "precision_recall": "Precision over recall, as the threshold falls",
    "reliability": "Observed against predicted click rate; bars are 95 % of the rows taken as independent",
    "scores": "Distribution of the prediction in each class",
    "training": "Loss of training and validation, and validation AUC, over steps",
    "hidden": "AUC that an ID column adds on training rows (line) and on validation rows (dashes)",
    "importance": "Loss of AUC when a feature is exchanged among rows of a sample, with 95 % intervals",
    "slices": "AUC of each slice with its 95 % interval and number of rows",
}
_LONGEST_NAME = 48  # characters of a slice in the table of the terminal
_TEMPLATE = Path(__file__).with_name("report_template.html")


class ReportContext(TypedDict, total=False):
    """What a report says beside the figures; every key may be left out.

    Args:
        facts: name → value, shown at the head (run, data, split, model, commit …).
        baselines: lines to compare with: name, note, and any metric by its name, a number or a `MetricValue`.
        config: the resolved configuration, nested plain data.
        importance: feature → what the AUC loses without it.
        tasks: of a run with several, output → its evaluation, this page's own among them.
        pages: output → address of its page, from this one.
        values: of a run with regressions, task → its metrics.
    """

    facts: Mapping[str, Any]
    baselines: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    importance: Mapping[str, MetricValue]
    tasks: Mapping[str, Evaluation]
    pages: Mapping[str, str]
    values: Mapping[str, RegressionSummary]


def write_report(
    out_dir: Path, *, evaluation: Evaluation, history: ValidationRows, title: str, context: ReportContext
) -> Path:
    """Write index.html (pictures inside), the pictures as PNG, and metrics.json.

    Everything is made in memory first; each file then appears whole, index.html last.

    Args:
        out_dir: made where it is missing; files of an earlier report are replaced.
        evaluation: from `ctr.metrics.evaluate_table`.
        history: journal rows, kinds "train", "valid" and "hidden"; may be empty.
        title: heading, any text.
        context: see `ReportContext`.

    Returns:
        Path of index.html.
    """
    images = draw_all(evaluation, history, context.get("importance"))
    page = render(evaluation, images=images, title=title, context=context)
    files = {f"{name}.png": image for name, image in images.items()}
    files["metrics.json"] = (evaluation.to_json() + "\n").encode()
    files["index.html"] = page.encode()
    out_dir.mkdir(parents=True, exist_ok=True)
    sweep(out_dir)  # what a job that was killed here left
    for name in {f"{name}.png" for name in CAPTIONS} - set(files):
        (out_dir / name).unlink(missing_ok=True)
    for name, content in files.items():
        replace_file(out_dir / name, content, point="report")
    return out_dir / "index.html"


def render(evaluation: Evaluation, *, images: Mapping[str, bytes], title: str, context: ReportContext) -> str:
    """The HTML page."""
    return render_page(
        _TEMPLATE,
        figures=[(name, CAPTIONS[name], image) for name, image in images.items()],
        title=title,
        overall=evaluation.overall,
        cards=list(_cards(evaluation.overall)),
        tasks=list(_task_rows(context.get("tasks", {}), context.get("pages", {}), evaluation)),
        values=list(_value_rows(context.get("values", {}))),
        facts={key: str(value) for key, value in context.get("facts", {}).items()},
        comparison=_comparison(evaluation.overall, context.get("baselines", ())),
        slices=list(_slice_rows(evaluation)),
        labels={metric.name: metric.label for metric in shown()},
        config=list(_flatten(context.get("config", {}))),
    )


def _task_rows(
    tasks: Mapping[str, Evaluation], pages: Mapping[str, str], own: Evaluation
) -> Iterator[dict[str, Any]]:
    """A row for each output, with the address of its page, and whether it is this one."""
    for name, evaluation in tasks.items():
        found = evaluation.overall
        yield {
            "name": name,
            "page": pages.get(name, ""),
            "own": evaluation is own,
            "rows": f"{found.rows:,}",
            "positives": f"{found.positives:,}",
            "cells": [with_ends(found.metrics[entry.name]) for entry in shown()],
        }


def _value_rows(values: Mapping[str, RegressionSummary]) -> Iterator[dict[str, Any]]:
    """A row for each regression, with all of its metrics."""
    for name, found in values.items():
        cells = [f"{REGRESSION_METRICS[n].label} {with_ends(metric)}" for n, metric in found.metrics.items()]
        yield {"name": name, "rows": f"{found.rows:,}", "cells": cells}


def _cards(summary: Summary) -> Iterator[dict[str, str]]:
    for metric in shown():
        found = summary.metrics[metric.name]
        yield {
            "label": metric.label,
            "value": number(found.value),
            "interval": "" if found.low is None else f"{number(found.low)} to {number(found.high)}",
            "detail": _detail(found),
            "meaning": metric.meaning,
        }


def _detail(metric: MetricValue) -> str:
    """What stands under a figure: its reason, how many groups count, how the interval was made."""
    groups = (
        ""
        if metric.groups is None
        else f"{metric.groups:,} of {metric.groups_total:,} groups, {metric.n:,} rows"
    )
    return "; ".join(part for part in (metric.reason, groups, metric.interval) if part)


def _comparison(overall: Summary, baselines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The run and the lines it is compared with, with the columns that any line fills."""
    names = [metric.name for metric in shown()]
    columns = [n for n in names if n == "auc" or any(line.get(n) is not None for line in baselines)]
    rows = []
    for line in ({"name": "this run", **overall.metrics}, *baselines):
        cells = [with_ends(as_metric(line.get(n))) for n in columns]
        rows.append({"name": str(line["name"]), "cells": cells, "note": str(line.get("note", ""))})
    return {"columns": [METRICS[n].label for n in columns], "rows": rows if baselines else []}


def as_metric(figure: MetricValue | float | None) -> MetricValue:
    """A figure that may be known without its interval."""
    return figure if isinstance(figure, MetricValue) else MetricValue(value=figure)


def _slice_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for name, values in evaluation.slices.items():
        for value, summary in values.items():
            rate = number(summary.positives / summary.rows if summary.rows else None)
            cells = [
                {
                    "text": with_ends(metric) if key == "auc" else number(metric.value),
                    "reason": metric.reason or "",
                }
                for key, metric in ((entry.name, summary.metrics[entry.name]) for entry in shown())
            ]
            yield {"name": name, "value": value, "rows": f"{summary.rows:,}", "rate": rate, "cells": cells}


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _in_a_line(text: str) -> str:
    """A value of a log as a name in a table: without line ends, and cut where it is long."""
    text = text.replace("\r", "\\r").replace("\n", "\\n")
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def format_metrics_table(evaluation: Evaluation) -> str:
    """The metrics as plain aligned text for the terminal: one line a figure, then one line a slice."""
    overall = evaluation.overall
    lines = [f"{overall.rows:,} rows, {overall.positives:,} with label 1", ""]
    for entry in shown():
        metric = overall.metrics[entry.name]
        lines.append(f"{entry.label:<12} {with_ends(metric):<28} {_detail(metric)}".rstrip())
    names = [
        _in_a_line(f"{name} = {value}") for name, values in evaluation.slices.items() for value in values
    ]
    if not names:
        return "\n".join(lines)
    width = max(12, *(len(name) for name in names))
    columns = [entry for entry in shown() if entry.in_slices]
    heads = " ".join(f"{entry.label:<7}" for entry in columns)
    head = f"{'slice':<{width}} {'rows':>10} {METRICS['auc'].label:<27} {heads}"
    lines += ["", head.rstrip(), "-" * len(head)]
    summaries = [summary for values in evaluation.slices.values() for summary in values.values()]
    for name, summary in zip(names, summaries, strict=True):
        short = [f"{number(summary.metrics[e.name].value):<{max(7, len(e.label))}}" for e in columns]
        auc = with_ends(summary.metrics["auc"])
        lines.append(f"{name:<{width}} {summary.rows:>10,} {auc:<27} {' '.join(short)}".rstrip())
    return "\n".join(lines)
