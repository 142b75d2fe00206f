"""`ctr evaluate RUN`: score a split, compute metrics with intervals and per slice, write a report.

`ctr evaluate --compare A B …` compares finished runs or prediction files instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.baseline import BASELINES
from ctr.metrics import MetricValue
from ctr.metrics.table import compared
from ctr.report.result_line import append_line
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import is_ensemble
from ctr.runs.journal import Row, read_rows
from ctr.tracking import Tracker
from ctr.transfer.report import KIND, TakenOver
from features.errors import ConfigError
from features.remote.working_copy import here
from pipelines.baseline import check_baselines, compared_with
from pipelines.compare import compare
from pipelines.ensemble_report import evaluate_ensemble
from pipelines.measured import EvaluationResult, measure
from pipelines.options import only_with
from pipelines.remote_runs import runs_here
from pipelines.terminal import echo

if TYPE_CHECKING:
    from ctr.ablate.importance import HeldBatches
    from ctr.training.search_recall import Recall
    from pipelines.runs import OpenRun

# Each form of the command reads its own options alone.
ONE_RUN = "split checkpoint raw dataset baseline line importance"
COMPARED = "metric alpha noise task where out"
RECALL_ROWS = 4_000  # on which the recall of a search is measured, about


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run_dir", type=Path, nargs="?", help="run directory")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--checkpoint", default="best", help="best, last or a step number")
    parser.add_argument("--raw", action="store_true", help="scores without the calibration of the run")
    parser.add_argument(
        "--dataset", type=Path, help="where the data set is now, if it moved, or another one to evaluate on"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=BASELINES,
        help="show it beside the model; repeatable",
    )
    parser.add_argument(
        "--line", type=Path, metavar="FILE", help="append the result to a file of lines, as in docs/results/"
    )
    parser.add_argument(
        "--importance",
        type=int,
        nargs="?",
        const=20_000,
        default=0,
        metavar="ROWS",
        help="measure what each feature is worth on a sample of about so many rows; default: 20000",
    )
    group = parser.add_argument_group("comparing predictions, with no model needed")
    group.add_argument(
        "--compare",
        nargs="+",
        metavar="MODEL",
        help="base and variants: [name=]PATH[,PATH…], a run or a Parquet or CSV file for each seed",
    )
    group.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help=f"judge this one of {', '.join(m.name for m in compared())}; repeatable (default: all)",
    )
    group.add_argument("--alpha", type=float, default=0.05, help="chance of a false verdict in a metric")
    group.add_argument(
        "--noise", default="own", choices=("own", "pooled"), help="noise of training of each variant, or one"
    )
    group.add_argument("--task", metavar="NAME", help="of runs with several tasks; default: the first one")
    group.add_argument("--where", metavar="SLICE=VALUE", help="only the rows of a slice")
    group.add_argument("--out", type=Path, help="folder for comparison.json and comparison.md")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print the table and where the report is, or compare."""
    if (arguments.run_dir is None) == (arguments.compare is None):
        raise ConfigError("give either the run directory to evaluate or --compare with two models or more")
    if arguments.importance < 0:
        raise ConfigError(f"--importance must be a number of rows, got {arguments.importance}")
    if arguments.compare:
        only_with("the evaluation of one run", ONE_RUN, arguments, add_arguments)
        _compare(arguments)
        return
    only_with("--compare", COMPARED, arguments, add_arguments)
    with runs_here(arguments.run_dir):
        result = evaluate(
            arguments.run_dir,
            split=arguments.split,
            checkpoint=arguments.checkpoint,
            dataset=arguments.dataset,
            baselines=arguments.baseline,
            line_file=arguments.line,
            importance_rows=arguments.importance,
            raw_scores=arguments.raw,
        )
    echo(f"{result.text()}\n\nreport: {result.report}")


def _compare(arguments: argparse.Namespace) -> None:
    where = None
    if arguments.where is not None:
        name, given, value = arguments.where.partition("=")
        if not given:
            raise ConfigError(f"--where must be slice=value, got {arguments.where!r}")
        where = (name, value)
    compare(
        arguments.compare,
        metrics=arguments.metric,
        alpha=arguments.alpha,
        noise=arguments.noise,
        where=where,
        task=arguments.task,
        out=arguments.out,
    )


def evaluate(
    path: Path,
    *,
    split: str = "test",
    checkpoint: str = "best",
    dataset: Path | None = None,
    baselines: list[str] | None = None,
    lines: list[dict[str, Any]] | None = None,
    line_file: Path | None = None,
    importance_rows: int = 0,
    raw_scores: bool = False,
) -> EvaluationResult:
    """Score, measure, report, track; of an ensemble, which has its predictions, without the scoring.

    Args:
        path: the directory of a run or an ensemble.
        split: which part of the data set.
        checkpoint: `best`, `last` or a step number.
        dataset: where the data set is now, if it moved, or another one to evaluate on.
        baselines: kinds of baselines to fit and show beside the model.
        lines: further lines of comparison for the report, such as the best possible AUC.
        line_file: a file of results that gets a line more, see `ctr.report.result_line`.
        importance_rows: rows on which each feature's worth is measured; 0: it is not.
        raw_scores: without the calibration of the run.
    """
    if is_ensemble(here(path)):
        asked = {"--checkpoint": checkpoint != "best", "--dataset": dataset is not None}
        asked |= {"--baseline": bool(baselines), "--importance": bool(importance_rows), "--raw": raw_scores}
        if given := [option for option, value in asked.items() if value]:
            raise ConfigError(
                f"{path} holds an ensemble, which has predictions and no weights, got {' '.join(given)}; "
                "leave that out, or evaluate one of the runs that it is made of"
            )
        return evaluate_ensemble(path, split, line_file=line_file)
    # Here, because they load torch, which comparing predictions does not need.
    from ctr.training.search_recall import describe_recall, recall_rows
    from pipelines.predict import predict, warn_of_seen
    from pipelines.result_line import result_line
    from pipelines.runs import open_run
    from pipelines.train import describe_dataset

    with RunDir.open_results(path) as run_dir:
        opened = open_run(run_dir, dataset=dataset, checkpoint=checkpoint, raw=raw_scores)
        check_baselines(opened, baselines or [])
        seen = "; ".join(warn_of_seen(path, opened, split)) or None
        predictions, _ = predict(run_dir, opened, split)
        compared = [compared_with(run_dir, opened, kind, split) for kind in baselines or []]
        history = read_rows(run_dir.journal_file)
        recall = _recall(opened, split)
        notes = describe_recall(recall)
        result = measure(
            predictions,
            run_dir.report / opened.place,
            title=f"{opened.config.model.kind} on {opened.dataset.manifest.name}, {split}",
            facts={
                "run": path,
                "weights": f"step {opened.step}",
                "split": split,
                **({} if seen is None else {"warning": seen}),
                **describe_dataset(opened.prepared),
                **_started_from(history),
                **_closed(opened),
                **({"search": "; ".join(notes)} if notes else {}),
            },
            config=opened.config.model_dump(mode="json"),
            step=opened.step,
            comparison=compared + (lines or []),
            importances=_importances(opened, split, importance_rows) if importance_rows else {},
            history=history,
        )
        result = replace(result, notes=notes)
        name = f"{split}.{opened.place}" if opened.place else split
        rows = [*result.rows(name), *recall_rows(recall, split=name)]
        _record(run_dir, opened, rows, report=result.report.parent)
        if line_file is not None:
            line = result_line(run_dir, opened, result.evaluation, split, others=result.others, note=seen)
            append_line(line_file, line)
    return result


def _importances(opened: OpenRun, split: str, rows: int) -> dict[str, dict[str, MetricValue]]:
    from ctr.ablate.importance import permutation_importances

    batches, bf16 = _sample(opened, split, rows), opened.config.train.precision == "bf16"
    return permutation_importances(
        opened.state, batches, opened.dataset.manifest, bf16=bf16, device=opened.device
    )


def _recall(opened: OpenRun, split: str) -> dict[str, Recall]:
    """How much of exact attention the searches of a model find; empty for one that does not search."""
    from ctr.training.search_recall import measure_recall, searches

    if not searches(opened.state.model):
        return {}
    batches, bf16 = _sample(opened, split, RECALL_ROWS), opened.config.train.precision == "bf16"
    return measure_recall(opened.state, batches.iterate(0), bf16=bf16, device=opened.device)


def _sample(opened: OpenRun, split: str, rows: int) -> HeldBatches:
    """About so many rows of a split."""
    from ctr.ablate.importance import sample_batches
    from ctr.build import scoring_loader

    return sample_batches(scoring_loader(opened.config, opened.dataset, split), rows)


def _record(
    run_dir: RunDir, opened: OpenRun, rows: Iterable[tuple[str, dict[str, Any]]], *, report: Path
) -> None:
    """Write the figures into the run's journal, and so to MLflow, unless a job trains the run."""
    from pipelines.runs import keep_spec

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
    from pipelines.logged_model import OPENER

    try:
        size = sum(path.stat().st_size for path in opened.checkpoint.iterdir())
    except FileNotFoundError:
        return
    if size <= opened.config.tracking.model_mb * 2**20:
        tracker.model(opened.checkpoint, dataset=opened.dataset.root, opener=OPENER)


def _closed(opened: OpenRun) -> dict[str, str]:
    """Which columns the model does not read, of one with gates."""
    from ctr.training.column_gates import describe_gates, gate_values

    told = describe_gates(gate_values(opened.state.model))
    return {"columns": told[0]} if told else {}


def _started_from(history: list[Row]) -> dict[str, str]:
    """What the run took over from another one, for the head of the report."""
    rows = [row for row in history if row["kind"] == KIND]
    return {"start": "; ".join(TakenOver.from_json(rows[-1]).lines())} if rows else {}
