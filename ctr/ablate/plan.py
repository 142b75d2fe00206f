"""What an ablation plan says: a base run, named variants of it, seeds and windows. Plain data, from YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ctr.metrics.table import MetricName, headlines
from ctr.options.knobs import Knobs, Positive, Seeds
from ctr.options.reading import options_from, read_base
from features.names import check_name
from features.safe_yaml import apply_overrides, load_yaml

Assignments = tuple[str, ...] | dict[str, Any]  # [model.layers=3] or {model.layers: 3}
NameTuple = tuple[str, ...]
NamedPoints = Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
Axis = NamedPoints | Annotated[tuple[Any, ...], Field(min_length=1)]
Parts = Literal["features", "groups", "domains", "sides"] | NameTuple


class VariantPlan(Knobs):
    """One change of the base. What it does not name stays as it is there."""

    set: Assignments = ()  # options of the run
    drop: NameTuple = ()  # features, domains, domain.side fields (* and ? as in a run), group:<token group>
    keep: NameTuple = ()  # … only these; empty: all
    permute: NameTuple = ()  # exchanged among rows when the trained model is tested; no training of its own
    max_len: Positive | dict[str, Positive] | None = None  # newest events, of every domain or by domain
    train_fraction: float | None = Field(default=None, gt=0, le=1)  # the newest part of the training period
    width: Positive | None = None  # of the embedding tables


class Plan(Knobs):
    """A base and what is compared with it."""

    name: str
    base: str | dict[str, Any]  # the configuration of a run: a file (relative to the plan) or written out
    set: Assignments = ()  # changes of the base that all variants share
    out: str | None = None  # directory; None = runs/ablate-<name>
    seeds: Seeds = (1,)
    windows: Positive = 1  # rolling origin: the test part in so many windows (ctr.loader.periods)
    variants: dict[str, VariantPlan] = Field(default_factory=dict)
    one_at_a_time: Parts = ()  # a variant without each of them
    leave_one_in: Parts = ()  # a variant with each of them alone; what is not of the listed kind stays
    # option → values, or section → name → options in it (`model: {din: {kind: grid, sequence.kind: din}}`): a
    # variant for every combination
    grid: dict[str, Axis] = Field(default_factory=dict)
    # Entries of ctr.metrics.table; the first one orders the report.
    metrics: tuple[MetricName, ...] = Field(
        default_factory=lambda: tuple(metric.name for metric in headlines()), min_length=1
    )
    task: str | None = None  # of runs with several: whose labels and scores are compared; None: the first one
    noise: Literal["own", "pooled"] = "own"  # of training: each variant's own seeds, or one for all
    slices: NameTuple = ("history", "known_user", "item_age")  # slice_* columns of the predictions

    @property
    def directory(self) -> Path:
        """Where the ablation's runs and report go."""
        return Path(self.out or f"runs/ablate-{self.name}")


def load_plan(path: Path, overrides: list[str] | None = None) -> Plan:
    """Read a plan; `base` becomes the plain data of its file.

    Args:
        path: the YAML file.
        overrides: `seeds=[1]` and the like, of the plan itself.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    return parse_plan(apply_overrides(load_yaml(path), overrides or []), what=str(path), folder=path.parent)


def parse_plan(data: dict[str, Any], *, what: str = "plan", folder: Path = Path()) -> Plan:
    """Build a Plan from plain data; a base that is a file is looked for beside `folder`."""
    plan = options_from(Plan, data, what=what)
    check_name(plan.name, "plan")
    for name in plan.variants:
        check_name(name, "variant")
    return plan.model_copy(update={"base": read_base(plan.base, folder)})


def settings(changes: Assignments) -> list[str]:
    """Changes as `path=value` overrides.

    Example:
        >>> settings({"model.layers": 3, "model.queries": {"view": 2}})
        ['model.layers=3', 'model.queries={"view": 2}']
    """
    if isinstance(changes, tuple):
        return list(changes)
    return [f"{path}={json.dumps(value)}" for path, value in changes.items()]
