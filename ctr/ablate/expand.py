"""From a plan and a data set to variants: each a whole run configuration and what is permuted in its test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ctr.ablate.plan import Axis, Plan, VariantPlan, settings
from ctr.ablate.select import GROUP, complement, members, parts, tidy
from ctr.config import RunConfig, parse_config
from ctr.options.overrides import change as changed
from ctr.options.overrides import refuse_decided
from features.dataset import Manifest
from features.errors import ConfigError
from features.names import check_name

BASE = "base"

# What the plan decides for all trainings alike, and how it does.
_OF_A_RUN = {
    "run": "all runs lie below the plan's `out`",
    "seed": "every variant is trained with each of the plan's `seeds`",
}
_WINDOWS = "every variant is tested in each of the plan's `windows`"
PLAN_DECIDES = {
    **_OF_A_RUN,
    "period.windows": _WINDOWS,
    "period.window": _WINDOWS,
    "dataset": "all read that of the base; change `set.dataset` of the plan, or write a plan for each",
    "tracking": "all report where the base does; change `set.tracking` of the plan",
}
# Options that a variant may say in two ways, of which one would be of no effect.
_SAID_TWICE = {
    "drop": "drop",
    "keep": "drop",
    "max_len": "loader.max_len",
    "width": "embedding.dim",
    "train_fraction": "period.train_fraction",
}


@dataclass(frozen=True)
class Variant:
    """A named configuration; seed and window are still those of the base."""

    name: str
    config: RunConfig
    permute: tuple[str, ...] = ()  # names of the data set, sorted
    changes: str = ""  # in words, for people


def base_config(plan: Plan) -> RunConfig:
    """The base run of a plan, with the changes that all variants share."""
    assert isinstance(plan.base, dict)
    whole, shared = {"run": str(plan.directory), **plan.base}, settings(plan.set)
    refuse_decided(shared, _OF_A_RUN, what=f"`set` of plan {plan.name}")
    config = parse_config(changed(RunConfig, whole, shared), what=f"base of plan {plan.name}")
    if config.period.windows != 1 or config.period.window:
        raise ConfigError(
            "the windows of an ablation are those of the plan (`windows`), but its base sets period.windows "
            f"{config.period.windows} and period.window {config.period.window}; delete them there"
        )
    return config


def expand(plan: Plan, manifest: Manifest) -> list[Variant]:
    """The base, then every variant of the plan in its order: list, one at a time, leave one in, grid.

    Args:
        plan: as read.
        manifest: of the whole data set, nothing dropped.

    Raises:
        ConfigError: a variant that is not a valid run, names nothing of the data set, or has another's name.
    """
    base = base_config(plan)
    named = [*plan.variants.items(), *_one_at_a_time(plan, manifest, base), *_grid(plan)]
    variants = [variant(BASE, VariantPlan(), base, manifest)]
    variants += [variant(name, change, base, manifest) for name, change in named]
    names = [v.name for v in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"variants of plan {plan.name} must have different names, got {twice} twice; rename"
        )
    if len(variants) == 1:
        raise ConfigError(
            f"plan {plan.name} must have something to compare: variants, one_at_a_time, leave_one_in or grid"
        )
    return variants


def variant(name: str, change: VariantPlan, base: RunConfig, manifest: Manifest) -> Variant:
    """One variant: the base's plain data with everything that the change says."""
    gone = members(manifest, [*base.drop, *change.drop])
    if change.keep:
        gone |= complement(manifest, change.keep)
    view = manifest.without(dropped := tidy(manifest, gone))
    overrides = settings(change.set)
    twice = {path: f"its `{key}` says it" for key, path in _SAID_TWICE.items() if getattr(change, key)}
    refuse_decided(overrides, PLAN_DECIDES | twice, what=f"variant {name}")
    plain: dict[str, Any] = changed(RunConfig, base.model_dump(mode="json"), overrides)
    lengths = {d: n for d, n in plain["loader"]["max_len"].items() if d in view.domains}
    plain["loader"]["max_len"] = lengths | _lengths(change.max_len, lengths, view)
    if not any(override.startswith("drop=") for override in overrides):
        plain["drop"] = dropped
    if change.train_fraction is not None:
        plain["period"]["train_fraction"] = change.train_fraction
    if change.width is not None:
        plain["embedding"]["dim"] = change.width
    permuted = tuple(sorted(members(view, change.permute)))
    config = parse_config(plain, what=f"variant {name}")
    config = config.model_copy(update={"model": config.model.without_sequences(gone)})
    return Variant(name, config, permuted, _words(change))


def _lengths(wanted: int | dict[str, int] | None, now: dict[str, int], view: Manifest) -> dict[str, int]:
    """max_len as a run has it; one number shortens every domain and lengthens none."""
    if wanted is None or isinstance(wanted, dict):
        return wanted or {}
    return {d: min(wanted, now.get(d, info.max_len)) for d, info in view.domains.items()}


def _one_at_a_time(plan: Plan, manifest: Manifest, base: RunConfig) -> Iterator[tuple[str, VariantPlan]]:
    """`without-x` for each item, `only-x` for each that is left in while the others of the list go."""
    there = manifest.without(base.drop)
    for item in parts(there, plan.one_at_a_time):
        yield f"without-{_name(item)}", VariantPlan(drop=(item,))
    alone = parts(there, plan.leave_one_in)
    for item in alone:
        yield f"only-{_name(item)}", VariantPlan(drop=tuple(other for other in alone if other != item))


def _name(item: str) -> str:
    """An item as a part of a variant's name; a pattern's signs cannot stand in one."""
    plain = item.replace(GROUP, "group-").replace("*", "all").replace("?", "any")
    return check_name(plain, "variant")


def _grid(plan: Plan) -> Iterator[tuple[str, VariantPlan]]:
    """Every combination of the axes' points, named by the points' names."""
    axes = [list(_points(path, axis)) for path, axis in plan.grid.items()]
    for combination in itertools.product(*axes) if axes else ():
        name = check_name("_".join(name for name, _ in combination), "variant of a grid")
        options = {path: value for _, options in combination for path, value in options.items()}
        yield name, VariantPlan(set=options)


def _points(path: str, axis: Axis) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and options of each point: of a list of values the option's last part and the value."""
    if isinstance(axis, dict):
        for name, options in axis.items():
            yield check_name(name, "point of a grid"), {f"{path}.{key}": v for key, v in options.items()}
    else:
        for value in axis:
            yield f"{path.rpartition('.')[2]}-{value}", {path: value}


def _words(change: VariantPlan) -> str:
    """What a variant changes, in a line."""
    told = settings(change.set)
    for word in ("drop", "keep", "permute"):
        if items := getattr(change, word):
            told.append(f"{word} {', '.join(items)}")
    for word in ("max_len", "train_fraction", "width"):
        if value := getattr(change, word):
            told.append(f"{word} {value}")
    return "; ".join(told)
