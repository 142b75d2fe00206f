"""What a roll plan says: logs that come day by day, a run that goes on through them, when it is promoted."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from ctr.ablate.plan import Assignments, settings
from ctr.config import RunConfig, TrackingConfig, parse_config
from ctr.metrics.table import MetricName, check_compared
from ctr.options.knobs import Knobs, Share
from ctr.options.overrides import change, refuse_decided
from ctr.options.reading import options_from, read_base
from features.errors import ConfigError
from features.names import check_name
from features.safe_yaml import apply_overrides, load_yaml

_EVERY_DAY = "it is another one every day"
_DAY_DECIDES = {"run": _EVERY_DAY, "dataset": _EVERY_DAY}
_START = {"init": "every day goes on from the champion"}


class DaySplit(Knobs):
    """The parts of every day: what the model of the day does not train on compares it with the one before."""

    valid: Share = 0.0
    test: float = Field(default=0.1, gt=0, lt=1)  # the end of the day


class PromotionRule(Knobs):
    """When the model of a day takes the champion's place, by the paired difference on the day's test part."""

    rule: Literal["unless_worse", "if_better"] = "unless_worse"  # unless it hurts; only if it helps
    metric: MetricName = "auc"
    alpha: float = Field(default=0.05, gt=0, lt=1)  # chance of a false verdict

    @field_validator("metric")
    @classmethod
    def _is_compared(cls, metric: str) -> str:
        return check_compared(metric)

    def promotes(self, verdict: str) -> bool:
        """Whether a model with that verdict, against the champion, takes its place.

        Example:
            >>> [PromotionRule(rule=rule).promotes("no evidence") for rule in ("unless_worse", "if_better")]
            [True, False]
        """
        return verdict != "hurts" if self.rule == "unless_worse" else verdict == "helps"


class RollPlan(Knobs):
    """A model that is trained on day after day."""

    name: str
    logs: str  # the days' directories of raw logs: a glob, in the order of their names
    spec: str  # the data set's description: a file, relative to the plan
    base: str | dict[str, Any]  # the configuration of a run: a file (relative to the plan) or written out
    set: Assignments = ()  # changes of the base, of every day
    first: Assignments = ()  # further ones, of the first day and of models from scratch
    split: DaySplit = DaySplit()
    optimizer: Literal["keep", "drop"] = "keep"  # state of both optimizers, from one day to the next
    promotion: PromotionRule = PromotionRule()
    scratch: bool | Literal["last"] = (
        False  # beside it a model from scratch on all days before: each, or last
    )
    registered_model: str | None = None  # in MLflow's registry; None = the plan's name
    alias: str = "champion"  # of the promoted version there
    out: str | None = None  # directory; None = runs/roll-<name>

    @property
    def directory(self) -> Path:
        """Where data sets, runs and the page go."""
        return Path(self.out or f"runs/roll-{self.name}")

    def days(self) -> list[Path]:
        """The raw logs of each day there is now.

        Raises:
            ConfigError: there is none.
        """
        found = sorted(Path(path) for path in glob(self.logs) if Path(path).is_dir())
        if not found:
            raise ConfigError(f"logs must match the directories of the days, {self.logs!r} matches none")
        return found

    def tracking_uri(self) -> str | None:
        """Where the roll itself reports, as the base and its changes say."""
        assert isinstance(self.base, dict)
        section = change(RunConfig, self.base, settings(self.set)).get("tracking") or {}
        return options_from(TrackingConfig, section, what=f"tracking of plan {self.name}").uri

    def run_config(self, *, run: Path, dataset: Path, start: Path | None) -> RunConfig:
        """The training of one day.

        Args:
            run: its directory.
            dataset: of the day.
            start: the run that it goes on from; None: the first day, or from scratch.
        """
        changes = [*settings(self.set), *(settings(self.first) if start is None else ())]
        assert isinstance(self.base, dict)
        data = change(RunConfig, self.base, changes)
        if start is not None:
            data["init"] = {"run": str(start), "optimizer": self.optimizer}
        # The roll itself reports to MLflow, one run for each day.
        tracking = {**data.get("tracking", {}), "uri": None}
        return parse_config({**data, "run": str(run), "dataset": str(dataset), "tracking": tracking})


def load_roll(path: Path, overrides: list[str] | None = None) -> RollPlan:
    """Read a plan; `base` becomes the plain data of its file.

    Args:
        path: the YAML file.
        overrides: `scratch=true` and the like, of the plan itself.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    plan = options_from(RollPlan, apply_overrides(load_yaml(path), overrides or []), what=str(path))
    for what, name in (
        ("plan", plan.name),
        ("registered_model", plan.registered_model or plan.name),
        ("alias", plan.alias),
    ):
        check_name(name, what)
    refuse_decided(settings(plan.set), _DAY_DECIDES | _START, what=f"`set` of plan {plan.name}")
    refuse_decided(settings(plan.first), _DAY_DECIDES, what=f"`first` of plan {plan.name}")
    base = read_base(plan.base, path.parent)
    if "init" in base:
        raise ConfigError(f"the base of {path} must not have init: every day goes on from the champion")
    return plan.model_copy(update={"base": base, "spec": str(path.parent / plan.spec)})
