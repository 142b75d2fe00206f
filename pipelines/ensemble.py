"""`ctr ensemble RUN RUN … --out DIR`: several runs as one model, the mean of their logits, evaluated.

DIR is taken by `ctr evaluate`, `ctr evaluate --compare` and MLflow as the directory of a run.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ctr.build import open_dataset, scoring_loader
from ctr.config import CalibrationKind, RunConfig
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import ENSEMBLE, EnsembleRecord, Member, member_file
from ctr.runs.learned import JudgedPart, LearnedFrom, learned_of_members
from ctr.tracking.tracked_run import keep_run
from ctr.training.calibration import Calibrators
from ctr.training.mean_scores import MeanScores, write_scores
from ctr.training.scoring import Scores, score_split
from ctr.training.validation import figures_of, fitted, selection_value
from features.dataset import Dataset, read_manifest
from features.errors import ConfigError
from features.remote.working_copy import here
from pipelines.ensemble_report import evaluate_ensemble, show_difference
from pipelines.remote_runs import runs_here
from pipelines.runs import open_run, read_run_config
from pipelines.terminal import echo

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directory; two or more")
    parser.add_argument("--out", type=Path, required=True, help="directory of the ensemble")
    parser.add_argument("--checkpoint", default="best", help="of each run: best, last or a step number")
    parser.add_argument(
        "--dataset", type=Path, help="where their data set is now, if it moved, or another one to score"
    )
    parser.add_argument(
        "--calibration",
        default="none",
        choices=get_args(CalibrationKind),
        help="make probabilities of the mean logits by this, fitted on the validation part",
    )
    parser.add_argument(
        "--train", action="store_true", help="score the training part too, for runs that learn from it"
    )


def run(arguments: argparse.Namespace) -> None:
    """Score, average, evaluate, and print the members beside the ensemble."""
    with runs_here(*arguments.runs):
        made = make_ensemble(
            arguments.runs,
            arguments.out,
            checkpoint=arguments.checkpoint,
            dataset=arguments.dataset,
            calibration=arguments.calibration,
            train=arguments.train,
        )
    result = evaluate_ensemble(arguments.out, "test")
    echo(result.text())
    show_difference(arguments.out, made)
    echo(f"\nreport: {result.report}")


def make_ensemble(
    runs: Sequence[Path],
    out: Path,
    *,
    checkpoint: str = "best",
    dataset: Path | None = None,
    calibration: CalibrationKind = "none",
    train: bool = False,
) -> EnsembleRecord:
    """Score the validation and test parts by each run, and write the predictions of all and of their mean.

    Args:
        runs: their directories.
        out: of the ensemble; that of an earlier one is replaced.
        checkpoint: `best`, `last` or a step number.
        dataset: where the data set is now, if it moved, or another one.
        calibration: of the mean and of each member; fitted on the validation part.
        train: whether the training part is scored too.

    Raises:
        ConfigError: fewer than two runs, one that is named twice, or a calibration without validation part.
        DataError: the runs do not score the same rows.
    """
    views = _open_views(runs, dataset)
    validated = views.validated
    if calibration != "none" and not validated:
        raise ConfigError(
            f"--calibration {calibration} is fitted on the validation part, which must have rows, and no "
            "member may be trained on it, nor a run that one goes on from; leave it out"
        )
    if (out / "config.yaml").exists():
        raise ConfigError(f"{out} must be new or the directory of an ensemble, and holds a run; name another")
    splits = [*(["valid"] if validated else []), "test", *(["train"] if train else [])]
    with RunDir.open(out, results=True) as run_dir:
        (run_dir.path / ENSEMBLE).unlink(missing_ok=True)
        for old in run_dir.predictions.glob("*.parquet"):
            old.unlink()
        scoring = _Scoring(views, out, calibration, splits)
        members = [scoring.member(number, dataset, checkpoint) for number in range(1, len(runs) + 1)]
        scoring.write_means()
        tracking = views.configs[0].tracking
        keep_run(run_dir, experiment=tracking.experiment, uri=tracking.uri or "none")
        made = views.described(members, calibration)
        views.learned.write(out)
        made.write(out)
    return made


@dataclass(frozen=True)
class _Views:
    """The runs with their configurations, and the data set as each of them sees it."""

    runs: Sequence[Path]
    configs: Sequence[RunConfig]
    datasets: Sequence[Dataset]
    digest: str  # of the data set as it was prepared
    learned: LearnedFrom  # what the runs have learned from, and those that they go on from

    @property
    def validated(self) -> bool:
        """Whether the validation part has rows of which no run knows, nor one that it goes on from."""
        rows = self.datasets[0].manifest.splits["valid"].impressions
        own = all(config.train.data == "train" for config in self.configs)
        return rows > 0 and own and self.learned.reaching(JudgedPart.of(self.datasets[0], "valid")) is None

    def described(self, members: list[Member], calibration: CalibrationKind) -> EnsembleRecord:
        """What `ensemble.json` says."""
        values = [(member.value, number) for number, member in enumerate(members, start=1)]
        known = [(value, -number) for value, number in values if value is not None]
        first = self.datasets[0]
        return EnsembleRecord(
            dataset=first.manifest.name,
            digest=self.digest,
            place=first.place,
            calibration=calibration,
            metric=self.configs[0].train.metric,
            members=members,
            best=-max(known)[1] if known else None,  # of equal ones the first
        )


def _open_views(runs: Sequence[Path], dataset: Path | None) -> _Views:
    """Read the configurations, and refuse runs that see other rows or tasks than the first one."""
    places = [here(run).resolve() for run in runs]
    if len(runs) < 2 or len(set(places)) < len(places):
        raise ConfigError(f"ctr ensemble needs two runs or more, each once, got {' '.join(map(str, runs))}")
    configs = [read_run_config(here(run)) for run in runs]
    datasets = [open_dataset(config, at=dataset) for config in configs]
    digests = [read_manifest(found.root).digest() for found in datasets]
    for run, found, digest in zip(runs[1:], datasets[1:], digests[1:], strict=True):
        first, own = datasets[0].manifest, found.manifest
        same = {
            "the data set": (f"{first.name} {digests[0][:12]}…", f"{own.name} {digest[:12]}…"),
            "the tasks": (first.tasks, own.tasks),
            "the parts (period)": (first.splits, own.splits),
        }
        if differ := [(what, one, two) for what, (one, two) in same.items() if one != two]:
            what, one, two = differ[0]
            raise ConfigError(
                f"all runs must score the same rows and tasks: {what} of {run} must be as of {runs[0]}, "
                f"{one}, got {two}; average runs of one data set, or name one that all read with --dataset"
            )
    learned = learned_of_members(datasets[0].manifest.name, runs)
    return _Views(runs, configs, datasets, digests[0], learned)


class _Scoring:
    """Scores parts of the data set by one run after the other, and sums what they say.

    Args:
        views: the runs.
        out: of the ensemble.
        calibration: of the members and their mean.
        splits: what is scored, the validation part first.
    """

    def __init__(self, views: _Views, out: Path, calibration: CalibrationKind, splits: Sequence[str]) -> None:
        self.views, self.out, self.calibration = views, out, calibration
        self.dataset: Dataset | None = None  # as the first run reads it
        self.means: dict[str, MeanScores] = {split: MeanScores() for split in splits}

    def member(self, number: int, dataset: Path | None, checkpoint: str) -> Member:
        """Score all parts by a run, and write its predictions."""
        run = self.views.runs[number - 1]
        opened = open_run(RunDir(here(run)), dataset=dataset, checkpoint=checkpoint, raw=True)
        bf16, own, value = opened.config.train.precision == "bf16", None, None
        for split, mean in self.means.items():
            loader = scoring_loader(opened.config, opened.dataset, split)
            scores = score_split(opened.state, loader, bf16=bf16, device=opened.device)
            assert scores is not None  # of one process
            if split == "valid":
                value = selection_value(figures_of(scores), self.views.configs[0].train.metric)
                own = self._fitted(str(run), scores, opened.step)
            write_scores(member_file(self.out, split, number), scores, own, opened.dataset, split)
            mean.add(str(run), scores)
        self.dataset = self.dataset or opened.dataset
        config = opened.config
        return Member(
            run=str(run),
            model=config.model.kind,
            seed=config.seed,
            step=opened.step,
            trained_on=config.train.data,
            value=value,
        )

    def write_means(self) -> None:
        """Write the predictions of the ensemble."""
        assert self.dataset is not None  # a member has been scored
        valid = self.means.get("valid")
        own = None if valid is None else self._fitted(str(self.out), valid.mean(), 0)
        for split, mean in self.means.items():
            path = self.out / "predictions" / f"{split}.parquet"
            write_scores(path, mean.mean(), own, self.dataset, split)

    def _fitted(self, name: str, scores: Scores, step: int) -> Calibrators | None:
        plain = fitted(scores, self.calibration, step)
        if plain is None:
            return None
        found = Calibrators.from_plain(plain)
        if not found.outputs:
            _log.warning(
                "no %s calibration fits %s: its validation labels are of one class, or rarer where logits "
                "are higher; its scores are those without calibration",
                self.calibration,
                name,
            )
        return found
