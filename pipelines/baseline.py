"""`ctr baseline DATASET`: logistic regression or LightGBM, what a deep model must beat."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.baseline import BASELINES, write_baseline
from ctr.metrics import Evaluation, evaluate_table
from ctr.metrics.table import headlines
from ctr.report.evaluation import format_metrics_table
from ctr.report.result_line import append_line
from ctr.runs.directory import RunDir
from features.dataset import Dataset
from features.errors import ConfigError
from pipelines.options import only_with
from pipelines.terminal import echo

if TYPE_CHECKING:
    from pipelines.runs import OpenRun

MOST_SEEDS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("dataset", type=Path, help="dataset directory")
    parser.add_argument("--kind", choices=BASELINES, default="logistic")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--seeds", type=int, default=1, help="LightGBM: how many seeds")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="Parquet file of the predictions, for ctr evaluate --compare; of several seeds FILE-<seed>",
    )
    parser.add_argument(
        "--line",
        type=Path,
        metavar="FILE",
        help="append each seed's result to a file of lines, as in docs/results/",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit, score, print the figures with intervals."""
    if not 1 <= arguments.seeds <= MOST_SEEDS:
        raise ConfigError(f"--seeds must be 1 to {MOST_SEEDS}, got {arguments.seeds}")
    if arguments.kind == "logistic":
        only_with("LightGBM", "seeds", arguments, add_arguments)
    dataset = Dataset(arguments.dataset)
    for seed in range(1, arguments.seeds + 1):
        out = arguments.out
        if out is not None and arguments.seeds > 1:
            out = out.with_name(f"{out.stem}-{seed}{out.suffix}")
        evaluation = evaluate_baseline(dataset, arguments.kind, arguments.split, seed=seed, out=out)
        echo(f"{BASELINES[arguments.kind]} (seed {seed}) on {arguments.split}: {_summary(evaluation)}")
        echo(format_metrics_table(evaluation))
        if out is not None:
            echo(f"wrote {evaluation.overall.rows:,} rows to {out}")
        if arguments.line is not None:
            from pipelines.result_line import baseline_line  # loads torch, which a baseline does not need

            append_line(
                arguments.line,
                baseline_line(dataset, evaluation, kind=arguments.kind, split=arguments.split, seed=seed),
            )


def _summary(evaluation: Evaluation) -> str:
    figures = evaluation.overall.metrics
    return "  ".join(
        f"{name} {m.value:.4f} [{m.low:.4f}, {m.high:.4f}]"
        for name in (metric.name for metric in headlines() if metric.better == "higher")
        if (m := figures[name]).value is not None and m.low is not None and m.high is not None
    )


def evaluate_baseline(
    dataset: Dataset, kind: str, split: str, *, seed: int = 1, out: Path | None = None
) -> Evaluation:
    """Fit on the training part, write the predictions of a split, and evaluate them, without slices.

    Args:
        dataset: an opened one.
        kind: one of `ctr.baseline.BASELINES`.
        split: valid or test.
        seed: of LightGBM.
        out: where the predictions stay; None: nowhere.
    """
    with tempfile.TemporaryDirectory(prefix="ctr-baseline-") as folder:
        path = out or Path(folder) / "predictions.parquet"
        write_baseline(path, dataset, kind, split, seed=seed)
        return evaluate_table(path, slices=[])


def check_baselines(opened: OpenRun, kinds: list[str]) -> None:
    """Check that the first task of a run is what baselines learn.

    Raises:
        ConfigError: it is another label than the first one of the data set.
    """
    from ctr.build import first_label

    own, label = opened.dataset.manifest.tasks[0].name, first_label(opened.prepared)
    if kinds and own != label:
        raise ConfigError(
            f"--baseline learns the data set's first label, {label}, so the run's first task must be that, "
            f"got {own}; name {label} first in tasks.use, or leave the baseline out"
        )


def compared_with(run_dir: RunDir, opened: OpenRun, kind: str, split: str) -> dict[str, Any]:
    """A line of the report's comparison: a baseline, whose predictions stay beside those of the run."""
    path = run_dir.predictions / opened.place / f"{split}-{kind}.parquet"
    evaluation = evaluate_baseline(opened.prepared, kind, split, out=path)
    note = path.relative_to(run_dir.path).as_posix()
    return {"name": BASELINES[kind], "kind": kind, "note": note, **evaluation.overall.metrics}
