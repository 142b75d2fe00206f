"""`ctr tune PLAN`: search options on the validation part, then show its winners on the test part, once."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctr.ablate.ablation import Ablation
from ctr.ablate.expand import BASE, Variant, base_config
from ctr.ablate.plan import VariantPlan
from ctr.ablate.publish import PARENT_TAG, log_once, parent_tracker
from ctr.ablate.results import evaluate
from ctr.ablate.run import Ended, check_base
from ctr.ablate.schedule import Job, Launch, Pool
from ctr.ablate.subruns import plan_subruns
from ctr.ablate.unseen import seen_facts
from ctr.config import RunConfig
from ctr.errors import LockedError
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.runs.signals import GracefulStop
from ctr.runs.versions import check_versions
from ctr.tracking import Tracker, sync
from ctr.tracking.address import tracking_uri
from ctr.tune.plan import TuningPlan, load_tuning_plan
from ctr.tune.report import on_test, text, write_report
from ctr.tune.results import FINALISTS, TuningResults, choose_finalists, compared_metrics, promises
from ctr.tune.search import TrialSearch, best_value
from ctr.tune.study import Study, Tried
from features.dataset import Dataset
from features.durable import replace_file
from features.errors import ConfigError
from features.safe_yaml import dump_yaml, load_yaml
from pipelines.terminal import echo
from pipelines.trainings import Processes, add_workers

ROW = "tuning"  # kind of the journal row with the results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("plan", type=Path, help="YAML plan: a base run, options to search, a budget")
    parser.add_argument("--set", action="append", default=[], metavar="A=1", dest="overrides",
                        help="override a value of the plan, such as trials=50; repeatable")  # fmt: skip
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, or go on with a search; the exit code is 0, a failed training's, or 128 + signal."""
    check_versions()
    plan = load_tuning_plan(arguments.plan, arguments.overrides)
    base = base_config(plan.ablation({}, ("auc",)))
    compared_metrics(base.train.metric)  # refused before anything is trained
    dataset = Dataset(base.dataset)
    options = {"seeds": plan.seeds[:1], "windows": 1, "directory": plan.directory}
    own = plan_subruns([Variant(BASE, base)], dataset, **options) * plan.trials  # type: ignore[arg-type]
    processes = Processes.sharing_cores(own, arguments.workers)
    return tune(plan, dataset, launch=processes.launch, workers=processes.workers)


def tune(plan: TuningPlan, dataset: Dataset, *, launch: Launch, workers: int) -> int:
    """Search, name the finalists, train them for all seeds, score the test part, report, track; see `run`."""
    with RunDir.open(plan.directory) as run_dir, GracefulStop() as stop:
        _check_same(run_dir, plan)
        pool = Pool(launch, workers, stopped=lambda: stop.requested)
        search = TrialSearch(plan, dataset, Study(plan, run_dir.path), pool, echo)
        tracker = parent_tracker(
            run_dir,
            config=search.base,
            manifest=dataset.manifest,
            plan=plan.model_dump(mode="json"),
            kind="tuning",
        )
        with tracker:
            tracker.begin(0)
            replace_file(run_dir.config, dump_yaml(plan.model_dump(mode="json")).encode())
            finalists = _finalists(search, run_dir, tracker)
            results = None if finalists is None else _test(search, finalists)
            if results is None:
                tracker.close("KILLED")
                echo("stopped; the same command goes on", err=True)
                return stop.exit_code
            report = write_report(run_dir.report, results)
            log_once(tracker, ROW, _figures(results), journal=run_dir.journal_file)
            tracker.artifact(run_dir.report)
            tracker.close()
        if uri := tracking_uri(run_dir.path, search.base.tracking.uri):
            _publish(search.base, run_dir.path, plan, parent=tracker.run_id, uri=uri)
    echo(f"{text(results)}\n\nreport: {report}")
    return pool.exit_code


def _check_same(run_dir: RunDir, plan: TuningPlan) -> None:
    """Refuse another search in the directory of one."""
    if not run_dir.config.is_file():
        return
    before = TuningPlan.model_validate(load_yaml(run_dir.config)).fixed()
    if before != plan.fixed():
        changed = sorted(key for key, value in plan.fixed().items() if before[key] != value)
        raise ConfigError(
            f"{run_dir.path} must hold the search of this plan, but there it was begun with other values of "
            f"{', '.join(changed)}; only trials and minutes may change: choose another out"
        )


def _finalists(search: TrialSearch, run_dir: RunDir, tracker: Tracker) -> list[Tried] | None:
    """The trials that the test part is looked at for, as the journal names them; None if a signal came.

    Once they are named the search is closed: what came after would be chosen by who has seen the test part.
    """
    rows = [row for row in read_rows(run_dir.journal_file) if row["kind"] == FINALISTS]
    if not rows:
        if not search.run():
            return None
        chosen = choose_finalists(search.study.trials(), search.plan.finalists)
        tracker.log(FINALISTS, 0, {"trials": [trial.number for trial in chosen]})
        return chosen
    trials = search.study.trials()
    if search.plan.trials > len(trials):
        echo(
            "the search is closed, its finalists have been named; to search on, choose another out", err=True
        )
    return [trials[number] for number in rows[0]["trials"]]


def _test(search: TrialSearch, finalists: list[Tried]) -> TuningResults | None:
    """Train base and finalists for every seed and compare them on the test part; None if a signal came."""
    metrics = compared_metrics(search.base.train.metric)
    task = search.base.train.metric.split("+")[0].rpartition(".")[0] or None
    variants = {trial.name: VariantPlan(set=trial.settings) for trial in finalists}
    ablation = Ablation.open(search.plan.ablation(variants, metrics, task))
    search.pool.failures.clear()
    if not search.pool.run([Job(subrun) for subrun in ablation.unfinished(ablation.names)]):
        return None
    check_base(search.pool.failures)
    failed = Ended(False, failures=search.pool.failures).failed
    manifest, seeds = search.dataset.manifest, ", ".join(map(str, search.plan.seeds))
    facts = {
        **seen_facts(ablation.subruns),
        "base": f"{search.base.model.kind} on {manifest.name}",
        "data set": f"{manifest.splits['test'].impressions:,} test rows; sha256 {manifest.digest()[:16]}",
        "seeds": f"{seeds}; the search has the first",
    }
    compared = evaluate(ablation.plan, ablation.variants, ablation.subruns, failed=failed, facts=facts)
    return TuningResults(
        search.plan,
        metrics[0],
        search.study.trials(),
        best_value(search.subrun(Variant(BASE, search.base))),
        promises(ablation, [trial for trial in finalists if trial.name not in failed]),
        compared,
        search.study.importance(),
    )


def _figures(results: TuningResults) -> dict[str, dict[str, float]]:
    """What the parent run shows of each finalist."""
    found: dict[str, dict[str, float]] = {}
    for promise in results.promises:
        judged = on_test(results, promise)
        figures = {"searched": promise.searched, "other_seeds": promise.others}
        if judged is not None:
            figures |= {"test": judged.delta, "test_low": judged.low, "test_high": judged.high}
        found[promise.name] = {key: value for key, value in figures.items() if value is not None}
    return found


def _publish(config: RunConfig, folder: Path, plan: TuningPlan, *, parent: str, uri: str) -> None:
    """Send every training to MLflow as a child of the parent; again changes nothing."""
    if not parent:
        echo("MLflow is away; run the command again to send the trainings", err=True)
        return
    for path in sorted((folder / "subruns").iterdir()):
        tags = {"tuning": plan.name, PARENT_TAG: parent, "variant": path.name.partition(".")[0]}
        try:
            sync(path, uri, experiment=config.tracking.experiment, tags=tags)
        except LockedError:
            echo(f"{path.name} is in use; run the command again to send it", err=True)
