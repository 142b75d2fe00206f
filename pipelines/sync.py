"""`ctr sync RUN`: replay to MLflow whatever a run's journal holds and the server lacks."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctr.tracking import sync
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--uri", help="MLflow server or database, instead of the run's own")


def run(arguments: argparse.Namespace) -> None:
    """Sync each run and say how many values went."""
    for path in arguments.runs:
        echo(f"{path}: sent {sync(path, arguments.uri):,} values")
