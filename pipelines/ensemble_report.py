"""What is said of an ensemble: its evaluation, the members beside it, and what it adds to the best one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctr.compare import Cell, compare_files, judge
from ctr.metrics import evaluate_table
from ctr.report.result_line import append_line
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import EnsembleRecord, member_file, read_ensemble
from ctr.runs.learned import JudgedPart, learned_until
from ctr.tracking import Tracker
from ctr.tracking.tracked_run import known_run
from features.errors import ConfigError
from pipelines.compare import show
from pipelines.measured import EvaluationResult, measure
from pipelines.terminal import echo
from pipelines.unseen import first_time, warned


def evaluate_ensemble(path: Path, split: str = "test", *, line_file: Path | None = None) -> EvaluationResult:
    """Figures, report and journal rows of an ensemble, with its members beside it.

    Args:
        path: its directory.
        split: one that it has predictions of.
        line_file: a file of results that gets a line more, see `ctr.report.result_line`.

    Raises:
        ConfigError: it has no predictions of this part.
    """
    with RunDir.open_results(path) as run_dir:
        made = read_ensemble(run_dir.path)
        predictions = run_dir.predictions / f"{split}.parquet"
        if not predictions.is_file():
            option = " --train" if split == "train" else ""
            raise ConfigError(
                f"{path} must have predictions of the {split} part; make it again: ctr ensemble RUN RUN … "
                f"--out {path}{option}"
            )
        seen = "; ".join(_warned(path, made, split, predictions)) or None
        result = measure(
            predictions,
            run_dir.report,
            title=f"mean of {len(made.members)} runs on {made.dataset}, {split}",
            facts={
                "ensemble": path,
                "split": split,
                **({} if seen is None else {"warning": seen}),
                **_data(made),
            },
            config=made.model_dump(mode="json"),
            step=0,
            comparison=list(_member_lines(run_dir.path, made, split)),
        )
        _record(run_dir, made, result, split)
    if line_file is not None:
        from pipelines.result_line import ensemble_line  # loads torch, which figures do not need

        line = ensemble_line(path, made, result.evaluation, split, others=result.others, note=seen)
        append_line(line_file, line)
    return result


def show_difference(path: Path, made: EnsembleRecord) -> None:
    """Print what the ensemble adds, on the test part, to the member that is the best on the validation part.

    Args:
        path: directory of the ensemble.
        made: what it is made of.
    """
    if made.best is None:
        echo("\nno member is compared: the validation part is empty, or was trained on, so none is chosen")
        return
    base, mean = member_file(path, "test", made.best), path / "predictions" / "test.parquet"
    echo(f"\nbase: {made.members[made.best - 1].run}, the best member on validation ({made.metric})")
    pairs = compare_files(base, {"ensemble": mean})
    judgements = judge({name: [Cell(pair=pair, seed=0)] for name, pair in pairs.items()})
    show(judgements, alpha=0.05)


def _warned(path: Path, made: EnsembleRecord, split: str, predictions: Path) -> list[str]:
    """Say where the part is not unseen by a member; nothing of the training part."""
    if split == "train":
        return []
    part = JudgedPart(frozenset({made.dataset}), made.digest, split, first_time(predictions))
    return warned(path, learned_until(path), part)


def _data(made: EnsembleRecord) -> dict[str, str]:
    return {"name": made.dataset, "sha256": made.digest, "source": made.place}


def _member_lines(directory: Path, made: EnsembleRecord, split: str) -> Iterator[dict[str, Any]]:
    """A line of the report's comparison for each member."""
    for number, member in enumerate(made.members, start=1):
        file = member_file(directory, split, number)
        chosen = ", best on validation" if number == made.best else ""
        note = f"{file.relative_to(directory).as_posix()}, step {member.step}"
        metrics = evaluate_table(file, slices=[]).overall.metrics
        yield {"name": f"{member.run}{chosen}", "kind": f"member-{number}", "note": note, **metrics}


def _record(run_dir: RunDir, made: EnsembleRecord, result: EvaluationResult, split: str) -> None:
    """Write the figures into the journal, and so to MLflow, where the first member is tracked."""
    if not run_dir.record():
        return
    known, data = known_run(run_dir), _data(made)
    with Tracker(
        run_dir,
        uri=known.uri if known else "auto",
        experiment=known.experiment if known else "ctr",
        config=made.model_dump(mode="json"),
        dataset=data,
        tags={"ctr.model": "ensemble", "ctr.dataset": data["name"], "ctr.dataset_sha256": data["sha256"]},
        system_seconds=0,
    ) as tracker:
        tracker.begin(0)
        for kind, values in result.rows(split):
            tracker.log(kind, 0, values)
        tracker.artifact(result.report.parent)
