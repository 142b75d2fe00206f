"""`ctr prepare --spec SPEC --out DIR`: raw logs → dataset directory."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from features.dataset import Manifest
from features.errors import ConfigError
from features.memory.sizes import parse_size
from features.partitions.workers import Resources
from features.prepare import check, prepare
from features.remote.url import remote
from features.spec import Spec, load_spec
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--spec", required=True, type=Path, help="YAML description of the data set")
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument(
        "--source",
        help="where the raw logs are, here or in an object store, instead of the spec's source.path",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset directory")
    parser.add_argument(
        "--after", type=Path, metavar="DATASET", help="go on from a data set: the source is a new day"
    )
    parser.add_argument("--state", action="store_true", help="write what a later --after goes on from")
    parser.add_argument(
        "--memory", metavar="SIZE", help="what all of it may take, as in 4GB; else what there is"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (docs/scale.md)")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask cluster's scheduler, in the workers' place")
    parser.add_argument("--partitions", type=int, metavar="N", help="instead of what --memory makes of it")
    parser.add_argument("--dry-run", action="store_true", help="only check, by the beginnings of the files")


def run(arguments: argparse.Namespace) -> None:
    """Check the spec, prepare, say what was written."""
    spec = with_source(load_spec(arguments.spec), arguments.source)
    if arguments.dry_run:
        check(spec, base=arguments.spec.parent)
        tasks = list(spec.impressions.tasks)
        labels = f", labels {tasks}" if len(tasks) > 1 else ""
        echo(
            f"{arguments.spec} is valid: data set {spec.name}, {len(spec.features)} features, "
            f"sequences {list(spec.domains)}{labels}"
        )
        return
    started = time.monotonic()
    memory = None if arguments.memory is None else parse_size(arguments.memory, what="--memory")
    for name in ("workers", "partitions"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            raise ConfigError(f"--{name} must be at least 1, got {given}")
    manifest = prepare(
        spec,
        arguments.out,
        base=arguments.spec.parent,
        overwrite=arguments.overwrite,
        progress=report,
        resources=Resources(memory, arguments.workers, arguments.dask, arguments.partitions),
        after=arguments.after,
        keep_state=arguments.state,
    )
    for name, split in manifest.splits.items():
        rate = split.positives / max(split.impressions, 1)
        echo(
            f"{name:6} {split.requests:>10,} requests  {split.impressions:>10,} impressions  "
            f"label mean {rate:.4f}"
        )
        for task, counts in split.tasks.items():
            young = f", {counts.young:,} not mature" if counts.young else ""
            echo(f"{name:6} label {task}: known in {counts.known:,} impressions{young}")
    for name, domain in manifest.domains.items():
        echo(f"events {name}: {domain.events:,}")
    for name, count in manifest.counters.items():
        if count and name.startswith("age."):
            age = name.removesuffix(".later_than_request")
            echo(f"{age}: missing in {count:,} impressions, whose moment is later than the request")
    _report_growth(manifest)
    echo(
        f"wrote {arguments.out} in {time.monotonic() - started:.1f} s; "
        f"look at it with: ctr doctor {arguments.out}"
    )


def _report_growth(manifest: Manifest) -> None:
    """Say what is new since the data set before."""
    if (lineage := manifest.lineage) is None:
        return
    echo(f"day {lineage.generation + 1}, after {lineage.parent}")
    for name, grown in lineage.grew.items():
        retired = f", {grown.retired:,} in rows of retired values" if grown.retired else ""
        full = f", {grown.full:,} found no room" if grown.full else ""
        echo(f"  {name}: {grown.new:,} new{retired}{full}")


def with_source(spec: Spec, path: str | None) -> Spec:
    """The spec with another source path (relative to the working directory)."""
    if path is None:
        return spec
    place = str(remote(path) or Path(path).resolve())
    return spec.model_copy(update={"source": spec.source.model_copy(update={"path": place})})


def report(text: str) -> None:
    """Progress goes to stderr."""
    echo(text, err=True)
