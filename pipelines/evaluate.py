"""`ctr evaluate RUN`: score a split, compute metrics with intervals and per slice, write a report.

`ctr evaluate --compare A B …` compares finished runs or prediction files instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ctr.baseline import BASELINES
from ctr.metrics.table import compared
from ctr.runs.ensemble import is_ensemble
from features.errors import ConfigError
from features.remote.working_copy import here
from pipelines.compare import compare
from pipelines.ensemble_report import evaluate_ensemble
from pipelines.measured import EvaluationResult
from pipelines.options import only_with
from pipelines.remote_runs import runs_here
from pipelines.terminal import echo

# Each form of the command reads its own options alone.
ONE_RUN = "split checkpoint raw dataset baseline line importance"
COMPARED = "metric alpha noise task where out"


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
        weights = {"--checkpoint": checkpoint != "best", "--dataset": dataset is not None}
        weights |= {"--baseline": bool(baselines), "--importance": bool(importance_rows), "--raw": raw_scores}
        _refuse_for_ensemble(path, [option for option, given in weights.items() if given])
        return evaluate_ensemble(path, split, line_file=line_file)
    # Here, because it loads torch, which comparing predictions does not need.
    from pipelines.evaluate_run import evaluate_run

    return evaluate_run(
        path,
        split,
        checkpoint=checkpoint,
        dataset=dataset,
        baselines=baselines or [],
        lines=lines or [],
        line_file=line_file,
        importance_rows=importance_rows,
        raw_scores=raw_scores,
    )


def _refuse_for_ensemble(path: Path, given: list[str]) -> None:
    """Refuse what needs weights."""
    if given:
        raise ConfigError(
            f"{path} holds an ensemble, which has predictions and no weights, got {' '.join(given)}; "
            "leave that out, or evaluate one of the runs that it is made of"
        )
