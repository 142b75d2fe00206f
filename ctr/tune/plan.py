"""What a tuning plan says: a base run, the options to search, a budget, seeds of the finalists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ctr.ablate.expand import PLAN_DECIDES
from ctr.ablate.plan import Assignments, Plan, VariantPlan, settings
from ctr.options.knobs import Knobs, Positive, Seed, Seeds
from ctr.options.overrides import refuse_decided
from ctr.options.reading import options_from, read_base
from features.names import check_name
from features.safe_yaml import apply_overrides, load_yaml

RangeEnd = int | float

_JUDGED = "trials are compared by one metric on the validation part; change the plan's `set`"
_SEARCH_DECIDES = {**PLAN_DECIDES, "train.metric": _JUDGED, "train.data": _JUDGED}


class Range(Knobs):
    """Numbers from `low` to `high`, both included; integers if both are."""

    low: RangeEnd
    high: RangeEnd
    log: bool = False  # equal chances for equal ratios
    step: RangeEnd | None = None

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs a positive low and no step, got low {self.low}, step {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Choices = Annotated[tuple[Any, ...], Field(min_length=2)]


class TuningPlan(Knobs):
    """A base and what is searched around it."""

    name: str
    base: str | dict[str, Any]  # the configuration of a run: a file (relative to the plan) or written out
    set: Assignments = ()  # changes of the base that every trial shares
    out: str | None = None  # directory; None = runs/tune-<name>
    # option of a run → the values that it may have: a range, or a list
    search: Annotated[dict[str, Range | Choices], Field(min_length=1)]
    trials: Positive = 20  # at most
    minutes: Annotated[float, Field(gt=0)] | None = None  # after which a call begins no further trial
    # Shares of a training at which a trial stops whose validation is below the median of earlier ones there.
    rungs: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5)
    startup: Positive = 5  # trials that are neither pruned nor guided by earlier ones
    sampler_seed: Annotated[Seed, Field(ge=0)] = 1
    finalists: Positive = 3  # the best trials by validation, which the test part is looked at for
    # Of the finalists' and the base's trainings; the search has the first.
    seeds: Seeds = (1, 2, 3)

    @property
    def directory(self) -> Path:
        """Where the trainings and the report go."""
        return Path(self.out or f"runs/tune-{self.name}")

    def ablation(
        self, variants: dict[str, VariantPlan], metrics: tuple[str, ...], task: str | None = None
    ) -> Plan:
        """The comparison of some variants with the base on the test part, of one task: None is the first."""
        return Plan(
            name=self.name, base=self.base, set=self.set, out=str(self.directory), seeds=self.seeds,
            variants=variants, metrics=metrics, slices=(), task=task,
        )  # fmt: skip

    def fixed(self) -> dict[str, Any]:
        """What may not change once a search has begun; its budget may."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude={"trials", "minutes", "out"})
        return plain


def load_tuning_plan(path: Path, overrides: list[str] | None = None) -> TuningPlan:
    """Read a plan; `base` becomes the plain data of its file.

    Args:
        path: the YAML file.
        overrides: `trials=50` and the like, of the plan itself.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    plan = options_from(TuningPlan, apply_overrides(load_yaml(path), overrides or []), what=str(path))
    check_name(plan.name, "plan")
    _check_search(plan)
    return plan.model_copy(update={"base": read_base(plan.base, path.parent)})


def _check_search(plan: TuningPlan) -> None:
    """Refuse to search what would change nothing, or what trials are compared by."""
    for path, values in plan.search.items():
        for value in (values.low,) if isinstance(values, Range) else values:
            overrides = settings({path: value})
            refuse_decided(overrides, _SEARCH_DECIDES, what=f"`search` of plan {plan.name}")


def words(params: dict[str, Any]) -> str:
    """Settings in a line.

    Example:
        >>> words({"optimizer.lr": 0.00123456, "model.layers": 2})
        'optimizer.lr=0.001235 model.layers=2'
    """
    shown = {path: f"{v:.4g}" if isinstance(v, float) else json.dumps(v) for path, v in params.items()}
    return " ".join(f"{path}={value}" for path, value in shown.items())
