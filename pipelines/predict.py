"""`ctr predict RUN`: score a split into RUN/predictions/<split>.parquet, or write its user vectors."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctr.build import scoring_loader
from ctr.runs.directory import RunDir
from ctr.runs.learned import JudgedPart, learned_until
from ctr.serving.scorer import model_digest
from ctr.training.scoring import predict_split
from ctr.training.user_vectors import write_user_vectors
from features.durable import sweep
from pipelines.options import only_with
from pipelines.remote_runs import runs_here
from pipelines.runs import DATASET_HELP, OpenRun, open_run
from pipelines.terminal import echo
from pipelines.unseen import warned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("run_dir", type=Path, help="run directory")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--checkpoint", default="best", help="best, last or a step number")
    parser.add_argument("--dataset", type=Path, help=DATASET_HELP)
    parser.add_argument(
        "--user-vectors",
        type=Path,
        metavar="FILE",
        help="instead of scores, the vector of each request's user as a Parquet table for another data set",
    )
    parser.add_argument("--raw", action="store_true", help="scores without the calibration of the run")


def run(arguments: argparse.Namespace) -> None:
    """Score and say where the table is."""
    if arguments.user_vectors:
        only_with("scores", "raw", arguments, add_arguments)
    with runs_here(arguments.run_dir), RunDir.open_results(arguments.run_dir) as run_dir:
        opened = open_run(
            run_dir, dataset=arguments.dataset, checkpoint=arguments.checkpoint, raw=arguments.raw
        )
        if path := arguments.user_vectors:
            rows = user_vectors(path, opened, arguments.split)
        else:
            warn_of_seen(arguments.run_dir, opened, arguments.split)
            path, rows = predict(run_dir, opened, arguments.split)
    echo(f"wrote {rows:,} rows to {path} (weights of step {opened.step})")


def warn_of_seen(run: Path, opened: OpenRun, split: str) -> list[str]:
    """Say where a part is not unseen by a run; nothing of its own training part, asked for as such."""
    if split == "train" and not opened.place:
        return []
    return warned(run, learned_until(run), JudgedPart.of(opened.dataset, split))


def predict(run_dir: RunDir, opened: OpenRun, split: str) -> tuple[Path, int]:
    """Score a split of an opened run; returns the file and its rows."""
    path = run_dir.predictions / opened.place / f"{split}.parquet"
    if opened.place and path.parent.is_dir():
        sweep(path.parent)  # what a job that was killed here left
    loader = scoring_loader(opened.config, opened.dataset, split)
    train = opened.config.train
    rows = predict_split(
        path,
        opened.state,
        loader,
        opened.dataset,
        split,
        bf16=train.precision == "bf16",
        device=opened.device,
        negatives=train.negatives,
    )
    return path, rows


def user_vectors(path: Path, opened: OpenRun, split: str) -> int:
    """Write the vectors of a split's requests; returns their number."""
    loader = scoring_loader(opened.config, opened.dataset, split)
    return write_user_vectors(
        path,
        opened.state,
        loader.iterate(0),
        opened.dataset,
        version=model_digest(opened.state, opened.state.model),
        bf16=opened.config.train.precision == "bf16",
        device=opened.device,
    )
