"""`ctr predict RUN`: score a split into RUN/predictions/<split>.parquet."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctr.build import scoring_loader
from ctr.runs.directory import RunDir
from ctr.training.scoring import predict_split
from features.durable import sweep
from pipelines.remote_runs import runs_here
from pipelines.runs import DATASET_HELP, OpenRun, open_run
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run_dir", type=Path, help="run directory")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--checkpoint", default="best", help="best, last or a step number")
    parser.add_argument("--dataset", type=Path, help=DATASET_HELP)
    parser.add_argument("--raw", action="store_true", help="scores without the calibration of the run")


def run(arguments: argparse.Namespace) -> None:
    """Score and say where the table is."""
    with runs_here(arguments.run_dir), RunDir.open_results(arguments.run_dir) as run_dir:
        opened = open_run(
            run_dir, dataset=arguments.dataset, checkpoint=arguments.checkpoint, raw=arguments.raw
        )
        path, rows = predict(run_dir, opened, arguments.split)
    echo(f"wrote {rows:,} rows to {path} (weights of step {opened.step})")


def predict(run_dir: RunDir, opened: OpenRun, split: str) -> tuple[Path, int]:
    """Score a split of an opened run; returns the file and its rows."""
    path = run_dir.predictions / opened.place / f"{split}.parquet"
    if opened.place and path.parent.is_dir():
        sweep(path.parent)  # what a job that was killed here left
    loader = scoring_loader(opened.config, opened.dataset, split)
    bf16 = opened.config.train.precision == "bf16"
    rows = predict_split(path, opened.state, loader, opened.dataset, split, bf16=bf16, device=opened.device)
    return path, rows
