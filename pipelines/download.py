"""`ctr download NAME --out DIR`: fetch a public data set from its owner, with checksum."""

from __future__ import annotations

import argparse
from pathlib import Path

from features.download import ARCHIVES, download
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("name", choices=sorted(ARCHIVES), help="data set")
    parser.add_argument("--out", required=True, type=Path, help="directory to make")


def run(arguments: argparse.Namespace) -> None:
    """Fetch, check, unpack, say what came."""
    files = download(arguments.name, arguments.out)
    size = sum(path.stat().st_size for path in files)
    echo(f"wrote {len(files)} files ({size / 1e6:.0f} MB) to {arguments.out}; its README has the terms")
    echo(
        f"next: ctr prepare --spec pipelines/configs/specs/{arguments.name}.yaml --source {arguments.out} "
        f"--out {arguments.out}-dataset"
    )
