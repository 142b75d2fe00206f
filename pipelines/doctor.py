"""`ctr doctor DIR`: prove that a written dataset does not leak, and describe it."""

from __future__ import annotations

import argparse
from pathlib import Path

from features.doctor import examine
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("dataset", type=Path, help="dataset directory")


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis; exit code 3 if a check failed."""
    diagnosis = examine(arguments.dataset)
    echo(diagnosis.text())
    return 0 if diagnosis.healthy else 3
