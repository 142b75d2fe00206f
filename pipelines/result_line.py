"""The line of an evaluated run for a table of results, from its journal and its evaluation."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from statistics import median

from ctr.bench.environment import describe
from ctr.build import parameter_counts
from ctr.metrics import Evaluation, MetricValue
from ctr.report.result_line import Figure, ResultLine
from ctr.runs.directory import RunDir
from ctr.runs.journal import Row, read_rows
from pipelines.runs import OpenRun


def result_line(run_dir: RunDir, opened: OpenRun, evaluation: Evaluation, split: str) -> ResultLine:
    """What was measured, with all that somebody else needs to measure it again.

    Args:
        run_dir: its journal tells who trained, when and how fast.
        opened: configuration, data set and weights.
        evaluation: of the split.
        split: what was scored.
    """
    sessions = training_sessions(read_rows(run_dir.journal_file))
    metrics = {name: m for name, m in evaluation.overall.metrics.items() if m.value is not None}
    kinds = sorted({m.interval for m in metrics.values() if m.interval is not None})
    counts = parameter_counts(opened.state)
    speeds = [r["wall"]["rows_per_s"] for rows in sessions for r in rows if "rows_per_s" in r["wall"]]
    # Where a run reports to decides nothing, and may hold a password.
    settings = opened.config.model_dump(mode="json", exclude={"tracking"})
    return ResultLine(
        dataset=opened.dataset.manifest.name,
        dataset_digest=opened.dataset.manifest.digest(),
        split=split,
        model=opened.config.model.kind,
        settings=settings,
        seeds=[opened.config.seed],
        metrics={name: _figure(metric) for name, metric in metrics.items()},
        interval=f"95 %, {', '.join(kinds)}" if kinds else None,
        rows=evaluation.overall.rows,
        dense_parameters=counts["dense_parameters"],
        embedding_parameters=counts["embedding_parameters"],
        rows_per_s=_number(median(speeds)) if speeds else None,
        seconds=_number(sum(_time(rows[-1]) - _time(rows[0]) for rows in sessions)) if sessions else None,
        hardware=_hardware(sessions),
        commit=", ".join(_distinct(rows[0]["wall"].get("commit") for rows in sessions)) or None,
        date=time.strftime("%Y-%m-%d", time.gmtime(_time(sessions[-1][-1]))) if sessions else None,
        commands=[
            "ctr train settings.yaml   # the settings of this line, saved as a file",
            f"ctr evaluate {opened.config.run} --split {split} --checkpoint {opened.step}",
        ],
    )


def training_sessions(rows: Sequence[Row]) -> list[list[Row]]:
    """The journal's sessions in which something was trained: the row of the start, then the training rows."""
    found: list[list[Row]] = []
    for row in rows:
        if row["kind"] == "session" and row["wall"].get("event") == "start":
            found.append([row])
        elif row["kind"] == "train" and found:
            found[-1].append(row)
    return [session for session in found if len(session) > 1]


def _hardware(sessions: Sequence[Sequence[Row]]) -> str | None:
    """This machine's, if the training ran on it; a journal tells no more than the host's name."""
    if not sessions or any(rows[0]["wall"].get("host") != socket.gethostname() for rows in sessions):
        return None
    found = describe()
    return f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, GPU: {found['gpu']}"


def _figure(metric: MetricValue) -> Figure:
    value, low, high = (None if x is None else _number(x) for x in (metric.value, metric.low, metric.high))
    return Figure(value=value, low=low, high=high)


def _number(value: float) -> Decimal:
    return Decimal(repr(float(value)))  # the shortest text that reads back as this float


def _time(row: Row) -> float:
    return float(row["wall"]["time"])


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))
