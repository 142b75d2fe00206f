"""`ctr ablate PLAN`: train variants of a run, compare them with it, report what pays and how sure that is."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ctr.ablate.ablation import Ablation
from ctr.ablate.estimate import estimate
from ctr.ablate.expand import BASE
from ctr.ablate.plan import load_plan
from ctr.ablate.publish import log_results, parent_tracker, publish_children
from ctr.ablate.report import text, write_report
from ctr.ablate.results import AblationResults, evaluate
from ctr.ablate.run import AblationRunner, Ended
from ctr.ablate.schedule import Launch, Pool
from ctr.ablate.unseen import seen_facts
from ctr.report.result_line import write_lines
from ctr.runs.directory import RunDir
from ctr.runs.signals import GracefulStop
from ctr.runs.versions import check_versions
from ctr.tracking.address import tracking_uri
from features.durable import replace_file
from features.safe_yaml import dump_yaml
from pipelines.ablate_display import Watch
from pipelines.ablate_select import select_columns
from pipelines.display import make_display
from pipelines.options import at_least_one, number, only_with
from pipelines.result_line import ablation_lines
from pipelines.terminal import echo
from pipelines.trainings import Processes, add_workers, until_stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("plan", type=Path, help="YAML plan: a base run and its variants")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", dest="overrides",
                        help="override a value of the plan, such as seeds=[1]; repeatable")  # fmt: skip
    add_workers(parser)
    stop = "stop the worse half of the variants, by validation, if time runs short"
    parser.add_argument("--budget", type=number(0), metavar="MINUTES", help=stop)
    what = "drop the columns that the validation part does not miss, half of them at a time"
    parser.add_argument("--select", action="store_true", help=what)
    parser.add_argument("--margin", type=number(0, 1), default=0.002, metavar="AUC",
                        help="of --select: what may surely be lost at most; default: 0.002")  # fmt: skip
    parser.add_argument("--most", type=at_least_one, default=12, help="of --select: trainings; default: 12")
    parser.add_argument("--dry-run", action="store_true", help="list the trainings and their time, stop")


def run(arguments: argparse.Namespace) -> int:
    """Do the ablation, or what of it is missing; the exit code is 0, a failed training's, or 128 + signal."""
    check_versions()
    if arguments.select:
        only_with("the comparison of variants", "workers budget dry-run", arguments, add_arguments)
        return until_stopped(partial(select, arguments))
    only_with("--select", "margin most", arguments, add_arguments)
    ablation = Ablation.open(load_plan(arguments.plan, arguments.overrides))
    processes = Processes.sharing_cores(ablation.subruns, arguments.workers)
    if arguments.dry_run:
        echo(dry_run(ablation, processes.workers))
        return 0
    return ablate(
        ablation,
        launch=processes.launch,
        workers=processes.workers,
        budget=None if arguments.budget is None else 60 * arguments.budget,
    )


def select(arguments: argparse.Namespace) -> int:
    """Choose columns instead."""
    plan = load_plan(arguments.plan, arguments.overrides)
    select_columns(plan, margin=arguments.margin, most=arguments.most)
    return 0


def ablate(ablation: Ablation, *, launch: Launch, workers: int, budget: float | None = None) -> int:
    """Train what is missing, compare, report, track; see `run`."""
    plan = ablation.plan
    tracking = ablation.variants[0].config.tracking
    with RunDir.open(plan.directory) as run_dir, GracefulStop() as stop:
        tracker = parent_tracker(
            run_dir,
            config=ablation.variants[0].config,
            manifest=ablation.dataset.manifest,
            plan=plan.model_dump(mode="json"),
            kind="ablation",
        )
        with tracker:
            tracker.begin(0)
            replace_file(run_dir.config, dump_yaml(plan.model_dump(mode="json")).encode())
            with Watch(ablation.subruns, make_display()) as watch:
                pool = Pool(launch, workers, look=watch.look, stopped=lambda: stop.requested)
                ended = AblationRunner(ablation, pool, run_dir=run_dir, tracker=tracker, budget=budget).run()
            if ended.interrupted:
                tracker.close("KILLED")
                echo("stopped; the same command goes on", err=True)
                return stop.exit_code
            results = compare(ablation, ended)
            report = write_report(run_dir.report, results)
            write_lines(run_dir.report / "lines.jsonl", ablation_lines(ablation, results))
            log_results(tracker, results, journal=run_dir.journal_file, report=run_dir.report)
            tracker.close()
        if uri := tracking_uri(run_dir.path, tracking.uri):
            publish(ablation, kind="ablation", parent=tracker.run_id, uri=uri)
    echo(f"{text(results)}\n\nreport: {report}")
    return pool.exit_code


def compare(ablation: Ablation, ended: Ended) -> AblationResults:
    """The statistics of what was trained."""
    plan, manifest = ablation.plan, ablation.dataset.manifest
    base = ablation.variants[0].config
    facts = {
        **seen_facts(ablation.subruns),
        "base": f"{base.model.kind} on {manifest.name}, {len(base.drop)} columns dropped",
        "data set": f"{manifest.splits['test'].impressions:,} test rows; sha256 {manifest.digest()[:16]}",
        "seeds": ", ".join(map(str, plan.seeds)),
        "windows": str(plan.windows),
        **({} if plan.task is None else {"task": plan.task}),
        "trainings": f"{len(ablation.subruns)} for {len(ablation.variants)} variants",
    }
    return evaluate(
        plan,
        ablation.variants,
        ablation.subruns,
        stopped=ended.stopped,
        failed={name: why for name, why in ended.failed.items() if name != BASE},
        facts=facts,
    )


def publish(ablation: Ablation, *, kind: str, parent: str, uri: str) -> None:
    """Send the trainings to MLflow; where it is away, a later call of the command sends them."""
    if not parent:
        echo("MLflow is away; run the command again to send the trainings", err=True)
        return
    experiment = ablation.variants[0].config.tracking.experiment
    publish_children(
        ablation.subruns, ablation.plan, kind=kind, parent=parent, uri=uri, experiment=experiment
    )


def dry_run(ablation: Ablation, workers: int) -> str:
    """The trainings with their state and time, and the time of all."""
    todo = [subrun for subrun in ablation.subruns if not subrun.is_finished()]
    guess = estimate(todo, workers=workers)
    lines = [
        f"plan {ablation.plan.name}: {len(ablation.variants)} variants, {len(ablation.subruns)} trainings"
    ]
    for subrun in ablation.subruns:
        serves = sorted({trial.variant for trial in subrun.trials} - {subrun.trials[0].variant})
        state = f"{guess.seconds[subrun.key]:6.0f} s" if subrun.key in guess.seconds else "    done"
        also = f"  (also {', '.join(serves)})" if serves else ""
        lines.append(f"{state}  {subrun.steps:>7,} steps  {subrun.path.name}{also}")
    for variant in ablation.variants:
        if variant.permute:
            lines.append(f"  no training  {variant.name}: permutes {', '.join(variant.permute)}")
    minutes = guess.total / 60
    lines.append(
        f"about {minutes:.1f} minutes with {workers} workers (a step of each model timed on one batch)"
    )
    return "\n".join(lines)
