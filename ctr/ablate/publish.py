"""An ablation or a sweep in MLflow: one parent run with table and pictures, the trainings as its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctr.ablate.plan import Plan
from ctr.ablate.results import AblationResults
from ctr.ablate.subruns import SubRun
from ctr.config import RunConfig
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker, sync
from features.dataset import Manifest

ROW = "ablation"  # kind of the journal row with the results
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own name of the link


def parent_tracker(
    run_dir: RunDir, *, config: RunConfig, manifest: Manifest, plan: Mapping[str, Any], kind: str
) -> Tracker:
    """The tracker of the parent run.

    Args:
        run_dir: of the parent.
        config: of any training: where it reports to.
        manifest: of the whole data set.
        plan: what was asked for, with its name, as plain data; becomes MLflow parameters.
        kind: `ablation` or `scaling`; the tag that has the plan's name.
    """
    return Tracker(
        run_dir,
        uri=config.tracking.uri,
        experiment=config.tracking.experiment,
        config=plan,
        dataset={"name": manifest.name, "sha256": manifest.digest()},
        tags={kind: str(plan["name"]), **config.tracking.tags},
        system_seconds=0,
    )


def log_results(tracker: Tracker, results: AblationResults, *, journal: Path, report: Path) -> None:
    """The differences of every variant as metrics of the parent, and the report as its artifact."""
    values: dict[str, dict[str, float]] = {}
    for line in results.compared():
        for metric, j in line.judgements.items():
            figures = {"delta": j.delta, "low": j.low, "high": j.high, "p_holm": j.p_holm}
            values[f"{line.name}/{metric}"] = {k: v for k, v in figures.items() if v is not None}
    log_once(tracker, ROW, values, journal=journal)
    tracker.artifact(report)


def log_once(tracker: Tracker, kind: str, values: Mapping[str, Any], *, journal: Path) -> None:
    """Write a row of results that the journal does not end with already; others become its next step."""
    told = [row for row in read_rows(journal) if row["kind"] == kind]
    if not told or {key: told[-1].get(key) for key in values} != values:
        tracker.log(kind, len(told), values)


def publish_children(
    subruns: Sequence[SubRun], plan: Plan, *, kind: str, parent: str, uri: str, experiment: str
) -> int:
    """Send every finished training to MLflow as a child of the parent; again changes nothing.

    Args:
        subruns: those that are not finished are left out.
        plan: gives the tag `kind` its value.
        kind: as for `parent_tracker`.
        parent: MLflow's ID of the parent run.
        uri: where the parent reports to.
        experiment: of the parent.

    Returns:
        How many metric values were new.

    Raises:
        RetryableError: MLflow cannot be reached, or refuses.
    """
    finished = [subrun for subrun in subruns if subrun.is_finished()]
    return sum(
        sync(subrun.path, uri, experiment=experiment, tags={kind: plan.name, **_tags(subrun, parent)})
        for subrun in finished
    )


def _tags(subrun: SubRun, parent: str) -> dict[str, str]:
    """What the MLflow UI can group and filter by."""
    return {
        PARENT_TAG: parent,
        "variant": ", ".join(dict.fromkeys(trial.variant for trial in subrun.trials)),
        "seed": str(subrun.trials[0].seed),
        "window": str(subrun.trials[0].window),
    }
