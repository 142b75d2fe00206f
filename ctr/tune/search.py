"""The search: trials are trained, pruned at rungs and valued on the validation part. No test part is read.

Every trial is a sub-run of `ctr.ablate` with the plan's first seed, in a directory of its own, so that what
is trained is found again. A trial's value is the run's validation metric at its best step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctr.ablate.expand import BASE, Variant, base_config, variant
from ctr.ablate.halving import pause_step, rung_value
from ctr.ablate.plan import VariantPlan
from ctr.ablate.run import check_base
from ctr.ablate.schedule import Job, Pool
from ctr.ablate.subruns import SubRun, plan_subruns
from ctr.config import RunConfig
from ctr.runs.journal import read_rows
from ctr.training.validation import selected_figure, selection_value
from ctr.tune.plan import Range, TuningPlan, words
from ctr.tune.study import Study, Tried
from features.dataset import Dataset
from features.errors import ConfigError

TO_THE_END = 2**40  # a pause that no training reaches: it ends, and its test part is not scored


@dataclass
class TrialSearch:
    """Trials of a plan, until its budget is used up.

    Args:
        plan: what is searched.
        dataset: of the base.
        study: says what comes next.
        pool: trains.
        say: told of every trial that ends.
    """

    plan: TuningPlan
    dataset: Dataset
    study: Study
    pool: Pool
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.base: RunConfig = base_config(self.plan.ablation({}, ("auc",)))
        if self.base.train.data != "train":
            raise ConfigError(
                f"a search chooses on the validation part, but the base's train.data is "
                f"{self.base.train.data}, which leaves none; set it to train"
            )
        probe = {p: v.low if isinstance(v, Range) else v[0] for p, v in self.plan.search.items()}
        self.variant("probe", probe)  # a name that no run has is refused before anything is trained

    def run(self) -> bool:
        """Go on until trials or minutes are used up; False if a signal came.

        Raises:
            TrainingFailed: the base cannot be trained.
            ConfigError: its training has no validation, or no trial of the first ones can be trained.
        """
        began = time.monotonic()
        base = self.subrun(Variant(BASE, self.base))
        if not self.pool.run([Job(base, TO_THE_END)]):
            return False
        check_base(self.pool.failures)
        if (value := best_value(base)) is None:
            raise ConfigError(
                f"trials are chosen by the validation part, but the base was trained without, see "
                f"{base.path / 'log.txt'}; give the data set a validation part with rows of both classes"
            )
        self.say(f"base: {self._shown(value)}")
        while (group := self._next(began)) and self._try(group):
            self._check_some_train()
        return not self.pool.stopped()

    def variant(self, name: str, settings: dict[str, object]) -> Variant:
        """The base with these settings."""
        return variant(name, VariantPlan(set=settings), self.base, self.dataset.manifest)

    def subrun(self, variant: Variant) -> SubRun:
        """Its training in the search."""
        seeds = self.plan.seeds[:1]
        (found,) = plan_subruns(
            [variant], self.dataset, seeds=seeds, windows=1, directory=self.plan.directory
        )
        return found

    def _next(self, began: float) -> list[Tried]:
        """Trials that were killed, or new ones, as many as are trained at a time."""
        there = self.study.trials()
        if going := [trial for trial in there if trial.state == "running"]:
            return going
        late = self.plan.minutes is not None and time.monotonic() - began > 60 * self.plan.minutes
        left = 0 if late else self.plan.trials - len(there)
        return [self.study.ask() for _ in range(min(left, self.pool.workers))]

    def _try(self, group: Sequence[Tried]) -> bool:
        """Train some trials together, rung by rung; False if a signal came."""
        alive: list[tuple[Tried, SubRun]] = []
        for trial in group:
            try:
                alive.append((trial, self.subrun(self.variant(trial.name, trial.settings))))
            except ConfigError as error:
                self._failed(trial, str(error))
        for rung, share in enumerate(self.plan.rungs):
            new = [subrun for trial, subrun in alive if rung not in trial.reported]
            if not self.pool.run([Job(subrun, pause_step(subrun, share)) for subrun in new]):
                return False
            alive = [(trial, subrun) for trial, subrun in alive if self._goes_on(trial, subrun, rung)]
        if not self.pool.run([Job(subrun, TO_THE_END) for _, subrun in alive]):
            return False
        for trial, subrun in alive:
            self._end(trial, subrun)
        return True

    def _goes_on(self, trial: Tried, subrun: SubRun, rung: int) -> bool:
        why, value = self._why(subrun), rung_value(subrun, self.base.train.metric)
        if why or value is None:
            self._failed(trial, why or "it has no validation")
            return False
        if self.study.prune(trial, rung, value):
            self.say(f"{trial.name}: pruned at {self._shown(value)}  {words(trial.settings)}")
            return False
        return True

    def _end(self, trial: Tried, subrun: SubRun) -> None:
        why = self._why(subrun)
        if why or (value := best_value(subrun)) is None:
            self._failed(trial, why or "it has no validation")
            return
        self.study.complete(trial, value)
        self.say(f"{trial.name}: {self._shown(value)}  {words(trial.settings)}")

    def _why(self, subrun: SubRun) -> str:
        found = [failure.describe() for failure in self.pool.failures if failure.subrun.key == subrun.key]
        return found[-1] if found else ""

    def _failed(self, trial: Tried, why: str) -> None:
        self.study.fail(trial, why)
        self.say(f"{trial.name}: failed, {why}  {words(trial.settings)}")

    def _check_some_train(self) -> None:
        there = self.study.trials()
        if len(there) >= 2 * self.plan.startup and all(trial.state == "failed" for trial in there):
            raise ConfigError(
                f"of the first {len(there)} trials one must train, but all failed; narrow the search, as the "
                "lines above say"
            )

    def _shown(self, value: float) -> str:
        return f"validation {self.base.train.metric} {selected_figure(value, self.base.train.metric):.4f}"


def best_value(subrun: SubRun) -> float | None:
    """The validation metric at the best step of a training, larger is better; None without any."""
    rows = [row for row in read_rows(subrun.path / "journal.jsonl") if row["kind"] == "best"]
    return selection_value(rows[-1], subrun.config.train.metric) if rows else None
