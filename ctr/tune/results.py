"""The finalists on the test part, beside what the search promised of them: the winner's curse.

A search takes the largest of many validation figures. Each is a true gain plus an error, and the largest is
large in part by its error: on the days after, and for other seeds, the gain is smaller. So a finalist has

    searched     its gain over the base on the validation part, with the seed that it was chosen by
    other seeds  the same for seeds that had no part in the choice; still the same validation rows
    test         the same on the later days of the test part, over all seeds, with an interval

The test part is scored for the finalists alone, once their names stand in the journal.

Source: Cawley and Talbot (JMLR 11, 2010), over-fitting in model selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctr.ablate.ablation import Ablation
from ctr.ablate.expand import BASE
from ctr.ablate.results import AblationResults
from ctr.ablate.subruns import SubRun, Trial
from ctr.metrics.table import check_compared, headlines, metric_of
from ctr.training.validation import selected_figure
from ctr.tune.plan import TuningPlan
from ctr.tune.search import best_value
from ctr.tune.study import Tried
from features.errors import ConfigError

FINALISTS = "finalists"  # kind of the journal row that closes a search


@dataclass(frozen=True)
class Promise:
    """What the validation part said of a finalist: differences from the base in the run's metric."""

    name: str
    settings: dict[str, Any]
    searched: float
    others: float | None  # mean over the other seeds; None where there are none


@dataclass(frozen=True)
class TuningResults:
    """Everything a report says."""

    plan: TuningPlan
    metric: str  # of the table of metrics, that the search chose by
    trials: list[Tried]
    base: float | None  # validation figure of the base, in the search
    promises: list[Promise]  # the best by validation first
    compared: AblationResults  # on the test part
    importance: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "metric": self.metric,
            "base": self.base,
            "trials": [vars(trial) for trial in self.trials],
            "importance": self.importance,
            "finalists": [vars(promise) for promise in self.promises],
            "test": self.compared.to_dict(),
        }


def choose_finalists(trials: Sequence[Tried], count: int) -> list[Tried]:
    """The best complete trials by validation, each setting once.

    Raises:
        ConfigError: no trial is complete.
    """
    complete = [t for t in trials if t.state == "complete" and t.value is not None]
    ranked = sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))
    if not ranked:
        raise ConfigError(
            f"a trial must be complete, but all {len(trials)} were pruned or failed; allow more"
        )
    distinct = {str(sorted(t.settings.items())): t for t in reversed(ranked)}
    return sorted(distinct.values(), key=lambda t: (-(t.value or 0.0), t.number))[:count]


def compared_metrics(selection: str) -> tuple[str, ...]:
    """The metrics of the comparison: the one that the search chose by, then those of every report.

    Raises:
        ConfigError: models are not compared by the one that the search would choose by.
    """
    first = metric_of(selection.split("+")[0]).name
    try:
        check_compared(first)
    except ValueError as error:
        raise ConfigError(f"train.metric of a search: {error}") from None
    return (first, *(metric.name for metric in headlines() if metric.name != first))


def promises(ablation: Ablation, finalists: Sequence[Tried]) -> list[Promise]:
    """The validation gains of finalists, seed by seed beside the base."""
    seeds, by_trial = ablation.plan.seeds, {t: s for s in ablation.subruns for t in s.trials}
    found = []
    for trial in finalists:
        gains = [
            _gain(by_trial[Trial(trial.name, seed, 0)], by_trial[Trial(BASE, seed, 0)]) for seed in seeds
        ]
        others = float(np.mean(gains[1:])) if len(gains) > 1 else None
        found.append(Promise(trial.name, trial.settings, gains[0], others))
    return found


def _gain(own: SubRun, base: SubRun) -> float:
    values = best_value(own), best_value(base)
    assert values[0] is not None and values[1] is not None  # they have been trained
    return float(metric_of(own.config.train.metric.split("+")[0]).direction * (values[0] - values[1]))


def figure(value: float | None, selection: str) -> float | None:
    """A value of the search as people read it."""
    return None if value is None else selected_figure(value, selection)
