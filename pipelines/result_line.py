"""Lines for tables of results: of an evaluated run, of a baseline, and of the variants of an ablation."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from ctr.ablate.ablation import Ablation
from ctr.ablate.results import AblationResults, VariantResult
from ctr.bench.environment import commit, describe
from ctr.build import parameter_counts
from ctr.compare import Judgement
from ctr.metrics import Evaluation, MetricValue
from ctr.report.result_line import Figure, ResultLine
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import EnsembleRecord
from ctr.runs.journal import Row, read_rows
from features.dataset import Dataset
from pipelines.runs import OpenRun


def result_line(
    run_dir: RunDir,
    opened: OpenRun,
    evaluation: Evaluation,
    split: str,
    *,
    others: Mapping[str, Evaluation] = MappingProxyType({}),
    note: str | None = None,
) -> ResultLine:
    """What was measured, with all that somebody else needs to measure it again.

    Args:
        run_dir: its journal tells who trained, when and how fast.
        opened: configuration, data set and weights.
        evaluation: of the split.
        split: what was scored.
        others: output → evaluation, of a run with several tasks: all but the first one.
        note: a sentence.
    """
    sessions = training_sessions(read_rows(run_dir.journal_file))
    counts = parameter_counts(opened.state)
    speeds = [r["wall"]["rows_per_s"] for rows in sessions for r in rows if "rows_per_s" in r["wall"]]
    # Where a run reports to decides nothing, and may hold a password.
    settings = opened.config.model_dump(mode="json", exclude={"tracking"})
    return ResultLine(
        dataset=opened.dataset.manifest.name,
        dataset_digest=opened.prepared.manifest.digest(),
        split=split,
        model=opened.config.model.kind,
        settings=settings,
        seeds=[opened.config.seed],
        **_measured(evaluation, others),
        dense_parameters=counts["dense_parameters"],
        embedding_parameters=counts["embedding_parameters"],
        rows_per_s=_number(median(speeds) if speeds else None),
        seconds=_number(sum(_time(rows[-1]) - _time(rows[0]) for rows in sessions)) if sessions else None,
        hardware=_hardware(sessions),
        commit=", ".join(_distinct(rows[0]["wall"].get("commit") for rows in sessions)) or None,
        date=_day(_time(sessions[-1][-1])) if sessions else None,
        commands=[
            "ctr train settings.yaml   # the settings of this line, saved as a file",
            f"ctr evaluate {opened.config.run} --split {split} --checkpoint {opened.step}"
            + (f" --dataset {opened.prepared.place}" if opened.place else ""),
        ],
        note=note,
    )


def baseline_line(
    dataset: Dataset, evaluation: Evaluation, *, kind: str, split: str, seed: int
) -> ResultLine:
    """What a baseline of `ctr baseline` reached with a seed."""
    return ResultLine(
        dataset=dataset.manifest.name,
        dataset_digest=dataset.manifest.digest(),
        split=split,
        model=kind,
        seeds=[seed],
        **_measured(evaluation),
        hardware=machine(),
        commit=commit(),
        date=_day(),
        commands=[f"ctr baseline {dataset.place} --kind {kind} --split {split} --seeds {seed}"],
    )


def ensemble_line(
    path: Path,
    made: EnsembleRecord,
    evaluation: Evaluation,
    split: str,
    *,
    others: Mapping[str, Evaluation] = MappingProxyType({}),
    note: str | None = None,
) -> ResultLine:
    """What an ensemble reached; its settings are what it is made of."""
    runs = " ".join(member.run for member in made.members)
    options = f" --calibration {made.calibration}" if made.calibration != "none" else ""
    return ResultLine(
        dataset=made.dataset,
        dataset_digest=made.digest,
        split=split,
        model="ensemble",
        variant=f"mean of {len(made.members)} runs",
        settings=made.model_dump(mode="json"),
        seeds=[member.seed for member in made.members],
        **_measured(evaluation, others),
        hardware=machine(),
        commit=commit(),
        date=_day(),
        commands=[f"ctr ensemble {runs} --out {path}{options}"],
        note=note,
    )


def _measured(
    evaluation: Evaluation, others: Mapping[str, Evaluation] = MappingProxyType({})
) -> dict[str, Any]:
    """Metrics that are defined, of other tasks with their names; the kind of the intervals, and the rows."""
    found = dict(evaluation.overall.metrics)
    found |= {f"{t}.{name}": m for t, other in others.items() for name, m in other.overall.metrics.items()}
    metrics = {name: m for name, m in found.items() if m.value is not None}
    kinds = sorted({m.interval for m in metrics.values() if m.interval is not None})
    return {
        "metrics": {name: _figure(metric) for name, metric in metrics.items()},
        "interval": f"95 %, {', '.join(kinds)}" if kinds else None,
        "rows": evaluation.overall.rows,
    }


def ablation_lines(ablation: Ablation, results: AblationResults) -> list[ResultLine]:
    """A line for the base and for each variant that was compared with it."""
    manifest = ablation.dataset.manifest
    plan = results.plan.model_dump(mode="json")
    plan["base"].pop("tracking", None)
    shared: dict[str, Any] = {
        "dataset": manifest.name,
        "dataset_digest": manifest.digest(),
        "split": "test",
        "settings": plan,
        "seeds": list(results.plan.seeds),
        "interval": f"95 % of the difference, noise of training: {results.plan.noise}",
        "rows": manifest.splits["test"].impressions,
        "hardware": machine(),
        "commit": commit(),
        "date": _day(),
        "note": results.facts.get("warning"),
        "commands": ["ctr ablate settings.yaml   # the settings of this line, saved as a file"],
    }
    compared = results.compared()
    model = ablation.variants[0].config.model.kind
    bases = {metric: Figure(value=_number(j.base)) for metric, j in _judged(compared[:1])}
    lines = [ResultLine(model=model, metrics=bases, **_cost(results.base), **shared)] if bases else []
    for line in compared:
        metrics = {metric: _compared(judgement) for metric, judgement in _judged([line])}
        lines.append(ResultLine(model=model, variant=line.name, metrics=metrics, **_cost(line), **shared))
    return lines


def _judged(lines: Sequence[VariantResult]) -> Iterator[tuple[str, Judgement]]:
    for line in lines:
        yield from ((m, j) for m, j in line.judgements.items() if j.value is not None and j.base is not None)


def _compared(found: Judgement) -> Figure:
    """The mean over the trainings, and the difference from the base."""
    return Figure(
        value=_number(found.value),
        difference=_number(found.delta),
        difference_low=_number(found.low),
        difference_high=_number(found.high),
        verdict=found.verdict if found.reason is None else None,
        detectable=_number(found.detectable),
    )


def _cost(line: VariantResult) -> dict[str, Any]:
    """Parameters, operations and speed, as far as they are known."""
    if line.cost is None:
        return {}
    return {
        "dense_parameters": round(line.cost.dense_parameters),
        "embedding_parameters": round(line.cost.embedding_parameters),
        "mflop_per_row": _number(line.cost.flops_per_row / 1e6),
        "rows_per_s": _number(line.cost.rows_per_s),
    }


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
    return machine()


def machine() -> str:
    """This machine in a line."""
    found = describe()
    return f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, GPU: {found['gpu']}"


def _figure(metric: MetricValue) -> Figure:
    return Figure(value=_number(metric.value), low=_number(metric.low), high=_number(metric.high))


def _number(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(repr(float(value)))  # the shortest text of this float


def _day(seconds: float | None = None) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _time(row: Row) -> float:
    return float(row["wall"]["time"])


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))
