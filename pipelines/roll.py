"""`ctr roll PLAN`: day after day prepare, test on the new day, train on it, compare, promote or keep.

The same command goes on: with the step that was interrupted, or with the days that have come since.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ctr.ablate.publish import PARENT_TAG, log_once, parent_tracker
from ctr.roll.plan import RollPlan, load_roll
from ctr.roll.report import text, write_report
from ctr.roll.results import FROZEN, SCRATCH, RollResults, over_days
from ctr.runs.directory import RunDir
from ctr.runs.versions import check_versions
from features.dataset import Dataset
from features.durable import replace_file
from features.safe_yaml import dump_yaml
from features.spec import load_spec
from pipelines.roll_days import Rolling
from pipelines.terminal import echo
from pipelines.trainings import until_stopped

ROW = "roll"  # kind of the journal row with a day's figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("plan", type=Path, help="YAML plan: logs by day, a spec, a run, a rule of promotion")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", dest="overrides",
                        help="override a value of the plan, such as scratch=true; repeatable")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="list the days and what is done, stop")


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, of all days there are; the exit code is 0 or 128 + signal."""
    check_versions()
    plan = load_roll(arguments.plan, arguments.overrides)
    if arguments.dry_run:
        echo(dry_run(plan))
        return 0
    return until_stopped(partial(roll, plan))


def dry_run(plan: RollPlan) -> str:
    """The days, and how far each one is."""
    done = {path.stem for path in (plan.directory / "steps").glob("*.json")}
    lines = [f"{log.name}  {'done' if f'{log.name}.decide' in done else 'to do'}" for log in plan.days()]
    plan.run_config(run=Path("run"), dataset=Path("data"), start=None)
    load_spec(plan.spec)
    return "\n".join(lines)


def roll(plan: RollPlan) -> int:
    """All days, the page, MLflow."""
    with RunDir.open(plan.directory) as run_dir:
        replace_file(run_dir.config, dump_yaml(plan.model_dump(mode="json")).encode())
        work = Rolling(plan)
        days = work.all_days()
        results = RollResults(
            plan,
            days,
            over_days(days, base=FROZEN, alpha=plan.promotion.alpha),
            over_days(days, base=SCRATCH, alpha=plan.promotion.alpha),
        )
        page = write_report(run_dir.report, results)
        _track(run_dir, work, results)
    echo(f"{text(results)}\n\nreport: {page}")
    if work.unsent:
        raise work.unsent[0]
    return 0


def _track(run_dir: RunDir, work: Rolling, results: RollResults) -> None:
    """The parent run in MLflow, with a child for each day."""
    plan, data = results.plan, Dataset(work.data(results.days[0].name), verify=False)
    config = work.config(results.days[0].name, None)
    config = config.model_copy(
        update={"tracking": config.tracking.model_copy(update={"uri": work.asked_uri})}
    )
    tracker = parent_tracker(
        run_dir, config=config, manifest=data.manifest, plan=plan.model_dump(mode="json"), kind="roll"
    )
    with tracker:
        tracker.begin(0)
        for day in results.days:
            aucs = {name: own["auc"].value for name, own in day.figures.items()}
            log_once(tracker, f"{ROW}/{day.name}", aucs, journal=run_dir.journal_file)
        tracker.artifact(run_dir.report)
        tracker.close()
    for day in results.days:
        if tracker.run_id and work.uri is not None and not work.unsent:
            work.send(day.name, {PARENT_TAG: tracker.run_id})
