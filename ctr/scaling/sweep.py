"""What a sweep says: a base run, one size of it that grows, how many of the largest are predicted first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ctr.ablate.ablation import Ablation, check
from ctr.ablate.expand import Variant, base_config, variant
from ctr.ablate.plan import Assignments, Plan, VariantPlan, parse_plan
from ctr.ablate.subruns import SubRun, plan_subruns
from ctr.config import RunConfig
from ctr.metrics.table import MetricName
from ctr.options.knobs import Knobs, Positive, Seeds
from ctr.options.reading import options_from
from ctr.scaling.measured import Against
from features.dataset import Dataset, Manifest
from features.errors import ConfigError
from features.names import check_name
from features.safe_yaml import apply_overrides, load_yaml

Size = Annotated[int | float, Field(gt=0)]


class SweepPoint(Knobs):
    """A size and the options of a run that make it."""

    x: Size
    set: Assignments


class Sweep(Knobs):
    """A chain of runs that differ in one size."""

    name: str
    base: str | dict[str, Any]  # the configuration of a run: a file (relative to the sweep) or written out
    set: Assignments = ()  # changes of the base that all runs share
    out: str | None = None  # directory; None = runs/scaling-<name>
    seeds: Seeds = (1, 2)
    axis: str = "size"  # history, width, layers, data, any numeric option of a run; with `points` a mere name
    values: tuple[Size, ...] = ()  # of the axis
    points: tuple[SweepPoint, ...] = ()  # instead of values: sizes with the options that make them
    hold_out: Positive = 1  # so many of the largest are predicted before they are trained
    task: str | None = None  # of runs with several: whose metrics are meant; None: the first one
    metrics: tuple[MetricName, ...] = Field(
        default=("auc", "log_loss"), min_length=1
    )  # the first orders the report
    against: Against = "x"  # what the curve is a function of: the size, operations or parameters

    @model_validator(mode="after")
    def _is_a_chain(self) -> Sweep:
        if bool(self.values) == bool(self.points):
            raise ValueError("a sweep has either values of its axis or points with their options")
        xs = self.xs
        if any(a >= b for a, b in pairwise(xs)):
            raise ValueError(f"sizes must ascend, got {list(xs)}")
        if len(xs) - self.hold_out < 3:
            raise ValueError(f"3 sizes must be left when {self.hold_out} are held out, got {len(xs)} in all")
        return self

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(metrics))

    @property
    def xs(self) -> tuple[float, ...]:
        """All of them, ascending."""
        return self.values or tuple(point.x for point in self.points)

    @property
    def directory(self) -> Path:
        """Where the runs and the report go."""
        return Path(self.out or f"runs/scaling-{self.name}")


@dataclass(frozen=True)
class Chain:
    """A sweep that has met its data set."""

    sweep: Sweep
    ablation: Ablation  # a variant for each size, in order; the base itself is not trained

    @classmethod
    def open(cls, sweep: Sweep, *, folder: Path = Path()) -> Chain:
        """Build every model once, so that no training fails for its configuration.

        Raises:
            ConfigError: a size that makes no valid run, or the same run as another.
            DataError: the data set of the base is not there.
        """
        plan = plan_of(sweep, folder)
        base = base_config(plan)
        dataset = Dataset(base.dataset)
        variants = sizes(sweep, base, dataset.manifest)
        subruns = plan_subruns(variants, dataset, seeds=plan.seeds, windows=1, directory=plan.directory)
        if shared := [s for s in subruns if len({trial.variant for trial in s.trials}) > 1]:
            names = [trial.variant for trial in shared[0].trials]
            raise ConfigError(f"every size must make another run, but {names} are the same; check the axis")
        resolved = sweep.model_copy(update={"base": plan.base})
        return cls(resolved, Ablation(plan, dataset, variants, subruns))

    @property
    def fitted(self) -> list[str]:
        """Names of the points that the curve is fitted to."""
        return self.ablation.names[: -self.sweep.hold_out]

    @property
    def held_out(self) -> list[str]:
        """Names of the points that are predicted."""
        return self.ablation.names[-self.sweep.hold_out :]

    def trainings(self, name: str) -> list[SubRun]:
        """Those of a point, in the order of the seeds."""
        return [s for s in self.ablation.subruns if s.trials[0].variant == name]

    def size(self, name: str) -> float:
        """The x of a point."""
        return float(self.sweep.xs[self.ablation.names.index(name)])


def load_sweep(path: Path, overrides: list[str] | None = None) -> Sweep:
    """Read a sweep.

    Args:
        path: the YAML file.
        overrides: `seeds=[1]` and the like, of the sweep itself.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    sweep = options_from(Sweep, apply_overrides(load_yaml(path), overrides or []), what=str(path))
    check_name(sweep.name, "sweep")
    return sweep


def plan_of(sweep: Sweep, folder: Path) -> Plan:
    """The sweep as a plan of an ablation, without variants; `base` is looked for in `folder`."""
    shared = sweep.model_dump(mode="json", include={"name", "base", "set", "seeds", "metrics", "task"})
    return parse_plan({**shared, "out": str(sweep.directory)}, what=f"sweep {sweep.name}", folder=folder)


def sizes(sweep: Sweep, base: RunConfig, manifest: Manifest) -> list[Variant]:
    """The run of every size, each proved to be one that can be built.

    Raises:
        ConfigError: naming the size that is not.
    """
    found = [variant(name, change, base, manifest) for name, change in _changes(sweep, base, manifest)]
    for one in found:
        check(one, manifest)
    return found


def _changes(sweep: Sweep, base: RunConfig, manifest: Manifest) -> Iterator[tuple[str, VariantPlan]]:
    """Every point's name and what it changes of the base."""
    for point in sweep.points:
        yield _name(point.x), VariantPlan(set=point.set)
    for value in sweep.values:
        yield _name(value), _change(sweep.axis, value, base, manifest)


def _name(x: float) -> str:
    """Of a point: `x-0.25`."""
    return check_name(f"x-{x}".replace("+", ""), "point of a sweep")


def _change(axis: str, value: float, base: RunConfig, manifest: Manifest) -> VariantPlan:
    if axis == "history":
        return VariantPlan(max_len=_lengths(value, base, manifest))
    if axis == "data":
        return options_from(VariantPlan, {"train_fraction": value}, what=f"a value of axis {axis}")
    if axis == "width":
        dim = max(1, round(base.embedding.dim * value / base.model.d_model))
        return VariantPlan(set={"model.d_model": value}, width=dim)
    return VariantPlan(set={"model.layers" if axis == "layers" else axis: value})


def _lengths(value: float, base: RunConfig, manifest: Manifest) -> dict[str, int]:
    """Histories of the longest domain cut to `value` events, the others in proportion."""
    view = manifest.without(base.drop)
    now = {d: base.loader.max_len.get(d, info.max_len) for d, info in view.domains.items()}
    if not now:
        raise ConfigError("axis history needs a data set with domains of behaviour, got one without")
    return {d: max(1, round(length * value / max(now.values()))) for d, length in now.items()}
