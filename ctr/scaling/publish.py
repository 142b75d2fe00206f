"""The results of a sweep in its journal, and so in MLflow."""

from __future__ import annotations

from typing import Any

from ctr.ablate.publish import log_once
from ctr.runs.directory import RunDir
from ctr.scaling.results import Finding, SweepResults
from ctr.tracking import Tracker

ROW = "scaling"  # kind of the journal row


def log_results(tracker: Tracker, results: SweepResults, run_dir: RunDir) -> None:
    """Curves and scores as metrics of the parent run, and the report as its artifact."""
    values = {found.metric: figures(found) for found in results.findings}
    log_once(tracker, ROW, values, journal=run_dir.journal_file)
    tracker.artifact(run_dir.report)


def figures(found: Finding) -> dict[str, Any]:
    """Numbers of a curve and of its scores; those that the points do not tell are left out."""
    curve = found.first
    told = {
        "alpha": curve.alpha.value,
        "beta": curve.beta.value,
        "gamma": curve.gamma.value,
        "r2": curve.explained,
    }
    values: dict[str, Any] = {key: value for key, value in told.items() if value is not None}
    for s in found.scores:
        values[f"at-{s.prediction.forecast.x:g}"] = {
            "predicted": s.prediction.forecast.value,
            "observed": s.observed,
            "inside": float(s.inside),
            "error": s.errors["curve"],
        }
    return values
