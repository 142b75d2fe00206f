"""The trainings of an ablation: what is there is not done again, whatever was killed when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctr.ablate.ablation import Ablation
from ctr.ablate.expand import BASE
from ctr.ablate.halving import ROW, SHARES, Stopped, candidates, choose, decided, pause_step
from ctr.ablate.schedule import Failure, Job, Pool, TrainingFailed
from ctr.ablate.subruns import SubRun
from ctr.runs.directory import RunDir
from ctr.runs.journal import read_rows
from ctr.tracking import Tracker
from features.errors import ConfigError


@dataclass(frozen=True)
class Ended:
    """How the trainings ended."""

    interrupted: bool
    stopped: list[Stopped] = field(default_factory=list)  # for the budget
    failures: list[Failure] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, str]:
        """Variant → why it has no result."""
        return {t.variant: f.describe() for f in self.failures for t in f.subrun.trials}


class AblationRunner:
    """Does all trainings that are missing.

    Args:
        ablation: plan and trainings.
        pool: does them.
        run_dir: of the ablation; its journal holds the decisions of an earlier call.
        tracker: takes the decisions of this call.
        budget: seconds for this call, or None.
    """

    def __init__(
        self, ablation: Ablation, pool: Pool, *, run_dir: RunDir, tracker: Tracker, budget: float | None
    ) -> None:
        if budget is not None and ablation.variants[0].config.train.data != "train":
            raise ConfigError(
                "--budget compares variants on the validation part, but train.data: train+valid leaves none; "
                "set train.data to train, or run without --budget"
            )
        self.ablation = ablation
        self.pool = pool
        self.tracker = tracker
        self.budget = budget
        self._decided = decided(read_rows(run_dir.journal_file))
        self._began = time.monotonic()

    def run(self) -> Ended:
        """Train everything, or with a budget the better variants.

        Raises:
            TrainingFailed: the base failed, so that nothing can be compared.
        """
        alive, stopped = self.ablation.names, list[Stopped]()
        for rung, share in enumerate(SHARES if self.budget is not None else ()):
            chosen = self._decided[share] if share in self._decided else self._rung(rung, share, alive)
            if chosen is None:
                return Ended(interrupted=True)
            stopped += chosen
            alive = [name for name in alive if all(name != s.variant for s in chosen)]
        whole = self.pool.run([Job(subrun) for subrun in self.ablation.unfinished(alive)])
        if whole:
            check_base(self.pool.failures)
        return Ended(not whole, stopped, self.pool.failures)

    def _rung(self, rung: int, share: float, alive: list[str]) -> list[Stopped] | None:
        """Train to a share, and choose who stops if the rest would take too long; None if a signal came."""
        assert self.budget is not None
        pauses = {s.key: pause_step(s, share) for s in self.ablation.unfinished(alive)}
        jobs = [Job(s, pauses[s.key]) for s in self.ablation.unfinished(alive)]
        steps = sum(max(0, pauses[job.subrun.key] - steps_done(job.subrun)) for job in jobs)
        started = time.monotonic()
        if not self.pool.run(jobs):
            return None
        now = time.monotonic()
        left = sum(job.subrun.steps - pauses[job.subrun.key] for job in jobs)
        seconds = left * (now - started) / max(1, steps)
        too_long = now - self._began + seconds > self.budget
        metric = self.ablation.variants[0].config.train.metric
        chosen = choose(candidates(self.ablation.subruns, alive, metric), share) if too_long else []
        told = [{"variant": s.variant, "value": s.value, "kept": s.kept} for s in chosen]
        self.tracker.log(ROW, rung, {"share": share, "stopped": told}, wall={"seconds_left": seconds})
        return chosen


def steps_done(subrun: SubRun) -> int:
    """How far a training is, by its journal."""
    return max((row["step"] for row in read_rows(subrun.path / "journal.jsonl")), default=0)


def check_base(failures: Sequence[Failure]) -> None:
    """Refuse to go on without the base.

    Raises:
        TrainingFailed: a training of it is among the failures.
    """
    for failure in failures:
        if any(trial.variant == BASE for trial in failure.subrun.trials):
            raise TrainingFailed("the base must train, since everything is compared with it", failure)
