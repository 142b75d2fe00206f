"""An ablation in MLflow: one parent run with table and pictures, the trainings as its children."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctr.ablate.plan import Plan
from ctr.ablate.results import Results
from ctr.ablate.subruns import SubRun
from ctr.journal import read_rows
from ctr.tracking import Tracker, sync

ROW = "ablation"  # kind of the journal row with the results
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own name of the link


def log_results(tracker: Tracker, results: Results, *, journal: Path, report: Path) -> None:
    """The differences of every variant as metrics of the parent, and the report as its artifact.

    Results that the journal holds already are not written again; others become its next step.
    """
    values: dict[str, dict[str, float]] = {}
    for line in results.compared():
        for metric, j in line.judgements.items():
            figures = {"delta": j.delta, "low": j.low, "high": j.high, "p_holm": j.p_holm}
            values[f"{line.name}/{metric}"] = {k: v for k, v in figures.items() if v is not None}
    told = [row for row in read_rows(journal) if row["kind"] == ROW]
    if not told or {key: told[-1].get(key) for key in values} != values:
        tracker.log(ROW, len(told), values)
    tracker.artifact(report)


def publish_children(subruns: Sequence[SubRun], plan: Plan, *, parent: str, uri: str, experiment: str) -> int:
    """Send every finished training to MLflow as a child of the ablation; again changes nothing.

    Args:
        subruns: those that are not finished are left out.
        plan: names the ablation.
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
        sync(subrun.path, uri, experiment=experiment, tags=_tags(subrun, plan, parent)) for subrun in finished
    )


def _tags(subrun: SubRun, plan: Plan, parent: str) -> dict[str, str]:
    """What the MLflow UI can group and filter by."""
    return {
        PARENT_TAG: parent,
        "ablation": plan.name,
        "variant": ", ".join(dict.fromkeys(place.variant for place in subrun.places)),
        "seed": str(subrun.places[0].seed),
        "window": str(subrun.places[0].window),
    }
