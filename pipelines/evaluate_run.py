"""The evaluation of one run, for `ctr evaluate RUN`: scores, metrics, report, journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctr.ablate.importance import HeldBatches, permutation_importances, sample_batches
from ctr.build import scoring_loader
from ctr.metrics import MetricValue
from ctr.report.result_line import append_line
from ctr.runs.directory import RunDir
from ctr.runs.journal import Row, read_rows
from ctr.tracking import Tracker
from ctr.training.column_gates import describe_gates, gate_values
from ctr.training.search_recall import Recall, describe_recall, measure_recall, recall_rows, searches
from ctr.transfer.report import KIND, TakenOver
from pipelines.baseline import check_baselines, compared_with
from pipelines.logged_model import OPENER
from pipelines.measured import EvaluationResult, measure
from pipelines.predict import predict, warn_of_seen
from pipelines.result_line import result_line
from pipelines.runs import OpenRun, keep_spec, open_run
from pipelines.train import describe_dataset

RECALL_ROWS = 4_000  # on which the recall of a search is measured, about


def evaluate_run(
    path: Path,
    split: str,
    *,
    checkpoint: str,
    dataset: Path | None,
    baselines: list[str],
    lines: list[dict[str, Any]],
    line_file: Path | None,
    importance_rows: int,
    raw_scores: bool,
) -> EvaluationResult:
    """Score, measure, report, track; see `pipelines.evaluate.evaluate`."""
    with RunDir.open_results(path) as run_dir:
        opened = open_run(run_dir, dataset=dataset, checkpoint=checkpoint, raw=raw_scores)
        check_baselines(opened, baselines)
        seen = "; ".join(warn_of_seen(path, opened, split)) or None
        predictions, _ = predict(run_dir, opened, split)
        comparison = [compared_with(run_dir, opened, kind, split) for kind in baselines] + lines
        history, recall = read_rows(run_dir.journal_file), _recall(opened, split)
        notes = describe_recall(recall)
        result = measure(
            predictions,
            run_dir.report / opened.place,
            title=f"{opened.config.model.kind} on {opened.dataset.manifest.name}, {split}",
            facts={
                "run": path,
                **({"warning": seen} if seen else {}),
                **_facts(opened, split, history, notes),
            },
            config=opened.config.model_dump(mode="json"),
            step=opened.step,
            comparison=comparison,
            importances=_importances(opened, split, importance_rows) if importance_rows else {},
            history=history,
        )
        result = replace(result, notes=notes)
        _record(run_dir, opened, _rows(opened, result, recall, split), report=result.report.parent)
        if line_file is not None:
            line = result_line(run_dir, opened, result.evaluation, split, others=result.others, note=seen)
            append_line(line_file, line)
    return result


def _facts(opened: OpenRun, split: str, history: list[Row], notes: list[str]) -> dict[str, Any]:
    """The head of the report, but for the run's place."""
    return {
        "weights": f"step {opened.step}",
        "split": split,
        **describe_dataset(opened.prepared),
        **_started_from(history),
        **_closed(opened),
        **({"search": "; ".join(notes)} if notes else {}),
    }


def _rows(
    opened: OpenRun, result: EvaluationResult, recall: dict[str, Recall], split: str
) -> list[tuple[str, dict[str, Any]]]:
    """What the journal keeps: the figures of the split, and of the searches in it."""
    name = f"{split}.{opened.place}" if opened.place else split
    return [*result.rows(name), *recall_rows(recall, split=name)]


def _importances(opened: OpenRun, split: str, rows: int) -> dict[str, dict[str, MetricValue]]:
    batches, bf16 = _sample(opened, split, rows), opened.config.train.precision == "bf16"
    return permutation_importances(
        opened.state, batches, opened.dataset.manifest, bf16=bf16, device=opened.device
    )


def _recall(opened: OpenRun, split: str) -> dict[str, Recall]:
    """How much of exact attention the searches of a model find; empty for one that does not search."""
    if not searches(opened.state.model):
        return {}
    batches, bf16 = _sample(opened, split, RECALL_ROWS), opened.config.train.precision == "bf16"
    return measure_recall(opened.state, batches.iterate(0), bf16=bf16, device=opened.device)


def _sample(opened: OpenRun, split: str, rows: int) -> HeldBatches:
    """About so many rows of a split."""
    return sample_batches(scoring_loader(opened.config, opened.dataset, split), rows)


def _record(
    run_dir: RunDir, opened: OpenRun, rows: Iterable[tuple[str, dict[str, Any]]], *, report: Path
) -> None:
    """Write the figures into the run's journal, and so to MLflow, unless a job trains the run."""
    if not run_dir.record():
        return
    tracking = opened.config.tracking
    with Tracker(run_dir, uri=tracking.uri, experiment=tracking.experiment, system_seconds=0) as tracker:
        tracker.begin(opened.step)
        for kind, values in rows:
            tracker.log(kind, opened.step, values)
        own = not opened.place  # spec and model belong to the run's own data set
        if own and keep_spec(run_dir, opened.dataset):
            tracker.artifact(run_dir.spec)
        tracker.artifact(report)
        if own:
            _log_model(tracker, opened)


def _log_model(tracker: Tracker, opened: OpenRun) -> None:
    """Have MLflow keep the weights as a model, unless they are too large, or gone since they were read."""
    try:
        size = sum(path.stat().st_size for path in opened.checkpoint.iterdir())
    except FileNotFoundError:
        return
    if size <= opened.config.tracking.model_mb * 2**20:
        tracker.model(opened.checkpoint, dataset=opened.dataset.root, opener=OPENER)


def _closed(opened: OpenRun) -> dict[str, str]:
    """Which columns the model does not read, of one with gates."""
    told = describe_gates(gate_values(opened.state.model))
    return {"columns": told[0]} if told else {}


def _started_from(history: list[Row]) -> dict[str, str]:
    """What the run took over from another one, for the head of the report."""
    rows = [row for row in history if row["kind"] == KIND]
    return {"start": "; ".join(TakenOver.from_json(rows[-1]).lines())} if rows else {}
