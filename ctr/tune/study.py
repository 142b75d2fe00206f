"""The study: which settings are tried next, and which trial stops. The only place that knows Optuna.

Everything that decides lies in `study.journal` of the tuning directory, so that a search goes on where it was
killed. The sampler is seeded by the number of trials asked so far: a search that was interrupted asks what
one that was not would have asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctr.tune.plan import Range, TuningPlan
from features.errors import ConfigError

JOURNAL = "study.journal"


@dataclass(frozen=True)
class Tried:
    """A trial.

    Args:
        number: from 0.
        settings: option → value.
        state: complete, pruned, failed or running.
        value: its best validation, larger is better; of a pruned one that of its last rung.
        reported: validation by rung.
    """

    number: int
    settings: dict[str, Any]
    state: str
    value: float | None
    reported: dict[int, float]

    @property
    def name(self) -> str:
        """Of its variant."""
        return f"trial-{self.number}"


class Study:
    """See the module.

    Args:
        plan: the search.
        folder: of its journal.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(self, plan: TuningPlan, folder: Path) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise ConfigError(
                "ctr tune needs optuna, which is not installed; "
                "pip install --no-deps -r requirements/tune.txt"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self.plan = optuna, plan
        self._space = {path: self._distribution(values) for path, values in plan.search.items()}
        backend = JournalFileBackend(str(folder / JOURNAL))
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=plan.name,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=plan.startup),
        )

    def trials(self) -> list[Tried]:
        """All so far."""
        return [self._tried(trial) for trial in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Tried:
        """A new trial."""
        asked = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=self.plan.startup, seed=self.plan.sampler_seed + asked
        )
        number = self._study.ask(self._space).number
        return self.trials()[number]

    def prune(self, trial: Tried, rung: int, value: float) -> bool:
        """Note the validation at a rung; whether the trial is to stop there, which is noted too."""
        going = self._trial(trial)
        if rung not in trial.reported:
            going.report(value, rung)
        if going.should_prune():
            self._study.tell(going.number, state=self._optuna.trial.TrialState.PRUNED)
            return True
        return False

    def complete(self, trial: Tried, value: float) -> None:
        """Note the validation of a whole training."""
        self._study.tell(trial.number, value)

    def fail(self, trial: Tried, why: str) -> None:
        """Note that a trial has no value."""
        self._trial(trial).set_user_attr("why", why)
        self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Option → its share in the variance of the values, after fANOVA; empty with too few trials."""
        complete = [t for t in self.trials() if t.state == "complete"]
        if len(complete) < 2 * self.plan.startup or len({t.value for t in complete}) < 2:
            return {}
        evaluator = self._optuna.importance.PedAnovaImportanceEvaluator()
        found: dict[str, float] = self._optuna.importance.get_param_importances(
            self._study, evaluator=evaluator
        )
        return found

    def _trial(self, trial: Tried) -> Any:
        found = self._study.get_trials(deepcopy=False)[trial.number]
        return self._optuna.trial.Trial(self._study, found._trial_id)

    def _distribution(self, values: Range | tuple[Any, ...]) -> Any:
        """Choices are kept as JSON, since Optuna's are single values."""
        kinds = self._optuna.distributions
        if not isinstance(values, Range):
            return kinds.CategoricalDistribution([json.dumps(value) for value in values])
        if values.whole:
            step = 1 if values.step is None else int(values.step)
            return kinds.IntDistribution(int(values.low), int(values.high), log=values.log, step=step)
        return kinds.FloatDistribution(values.low, values.high, log=values.log, step=values.step)

    def _tried(self, trial: Any) -> Tried:
        ranges = {path for path, values in self.plan.search.items() if isinstance(values, Range)}
        settings = {p: v if p in ranges else json.loads(v) for p, v in trial.params.items()}
        states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        reported = dict(trial.intermediate_values)
        last = reported[max(reported)] if reported else None
        value = trial.value if trial.state.name == "COMPLETE" else last
        return Tried(trial.number, settings, states.get(trial.state.name, "running"), value, reported)
