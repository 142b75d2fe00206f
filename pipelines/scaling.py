"""`ctr scaling SWEEP`: train a chain of sizes, predict the largest before they are trained, score that.

`ctr scaling --points TABLE` does the same with points that were measured elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ctr.ablate.publish import parent_tracker
from ctr.ablate.schedule import Launch, Pool
from ctr.runs.directory import RunDir
from ctr.runs.signals import GracefulStop
from ctr.runs.versions import check_versions
from ctr.scaling.measured import read_points
from ctr.scaling.publish import log_results
from ctr.scaling.report import text, write_report
from ctr.scaling.results import from_points
from ctr.scaling.run import SweepRunner
from ctr.scaling.sweep import Chain, load_sweep
from ctr.tracking.address import tracking_uri
from features.durable import replace_file
from features.errors import ConfigError
from features.names import check_name
from features.safe_yaml import dump_yaml
from pipelines.ablate import dry_run, publish
from pipelines.ablate_display import Watch
from pipelines.display import make_display
from pipelines.options import at_least_one, only_with
from pipelines.terminal import echo
from pipelines.trainings import Processes, add_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("sweep", type=Path, nargs="?", help="YAML sweep: a base run and sizes of one axis")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", dest="overrides",
                        help="override a value of the sweep, such as seeds=[1]; repeatable")  # fmt: skip
    add_workers(parser)
    parser.add_argument("--dry-run", action="store_true", help="list the trainings and their time, stop")
    table = "instead of a sweep: points in CSV, Parquet or JSON, with x, y, seed, flops"
    parser.add_argument("--points", type=Path, metavar="TABLE", help=table)
    parser.add_argument("--hold-out", type=at_least_one, metavar="N",
                        help="of the points: the N largest; default 1")  # fmt: skip
    parser.add_argument("--metric", metavar="NAME", help="of the points: what y is; default y")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the points: default runs/scaling-<TABLE>")


def run(arguments: argparse.Namespace) -> int:
    """Do the sweep, or what of it is missing; the exit code is 0, a failed training's, or 128 + signal."""
    if (arguments.sweep is None) == (arguments.points is None):
        raise ConfigError("ctr scaling needs either a sweep (a YAML file) or --points TABLE, and not both")
    if arguments.points is not None:
        only_with("a sweep", "set workers dry-run", arguments, add_arguments)
        return of_points(arguments)
    only_with("--points (in a sweep, --set hold_out=2)", "hold-out metric out", arguments, add_arguments)
    check_versions()
    chain = Chain.open(load_sweep(arguments.sweep, arguments.overrides), folder=arguments.sweep.parent)
    processes = Processes.sharing_cores(chain.ablation.subruns, arguments.workers)
    if arguments.dry_run:
        echo(dry_run(chain.ablation, processes.workers))
        return 0
    return scale(chain, launch=processes.launch, workers=processes.workers)


def scale(chain: Chain, *, launch: Launch, workers: int) -> int:
    """Train, predict, train, score, report, track; see `run`."""
    ablation, plan = chain.ablation, chain.sweep.model_dump(mode="json")
    config = ablation.variants[0].config
    with RunDir.open(chain.sweep.directory) as run_dir, GracefulStop() as stop:
        tracker = parent_tracker(
            run_dir, config=config, manifest=ablation.dataset.manifest, plan=plan, kind="scaling"
        )
        with tracker:
            tracker.begin(0)
            replace_file(run_dir.config, dump_yaml(plan).encode())
            display = make_display()
            with Watch(ablation.subruns, display) as watch:
                pool = Pool(launch, workers, look=watch.look, stopped=lambda: stop.requested)
                results = SweepRunner(
                    chain, pool, run_dir=run_dir, tracker=tracker, say=display.message
                ).run()
            if results is None:
                tracker.close("KILLED")
                echo("stopped; the same command goes on", err=True)
                return stop.exit_code
            report = write_report(run_dir.report, results)
            log_results(tracker, results, run_dir)
            tracker.close()
        if uri := tracking_uri(run_dir.path, config.tracking.uri):
            publish(ablation, kind="scaling", parent=tracker.run_id, uri=uri)
    echo(f"{text(results)}\n\nreport: {report}")
    return 0


def of_points(arguments: argparse.Namespace) -> int:
    """Fit, score and report what a table says; no data set, no model."""
    path, metric = arguments.points, arguments.metric or "y"
    name = check_name(path.stem, "table of points")
    points = read_points(path, metric=check_name(metric, "metric"))
    results = from_points(points, metric, hold_out=arguments.hold_out or 1, name=name)
    report = write_report((arguments.out or Path(f"runs/scaling-{name}")) / "report", results)
    echo(f"{text(results)}\n\nreport: {report}")
    return 0
