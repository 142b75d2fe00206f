"""Trainings that a plan needs, each once: variants × seeds × windows, and what of them is there already.

<directory>/subruns/<variant>.s<seed>.w<window>-<key>/   a run directory; <key> is its identity
    predictions/test.parquet  predictions/test.permuted-<digest>.parquet
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ctr.ablate.expand import Variant
from ctr.config import RunConfig
from ctr.loader.periods import restrict
from ctr.models.registry import model_config
from ctr.options.kinds import differing
from ctr.runs.identity import identity
from ctr.runs.saved_config import load_saved_config
from features.dataset import Dataset, Manifest
from features.durable import canonical_json
from features.errors import CtrError

SYSTEM_SECONDS = 2.0  # between samples of memory: the runs of an ablation may be short


@dataclass(frozen=True)
class Trial:
    """A variant trained once, with a seed and in a window."""

    variant: str
    seed: int
    window: int


@dataclass
class SubRun:
    """One training, and all trials of the plan that it serves."""

    key: str
    config: RunConfig  # its `run` is the directory
    manifest: Manifest = field(repr=False)  # of the whole data set
    steps: int  # of the whole training, about
    trials: list[Trial] = field(default_factory=list)
    permutations: list[tuple[str, ...]] = field(default_factory=list)  # of columns, in its test

    @property
    def path(self) -> Path:
        """The run directory."""
        return Path(self.config.run)

    def predictions(self, permute: Sequence[str] = ()) -> Path:
        """The predictions table of the test part, or of it with some columns permuted."""
        return self.path / "predictions" / f"{predictions_name(permute)}.parquet"

    def is_finished(self) -> bool:
        """Whether every prediction is there, made with this configuration."""
        wanted = [self.predictions(permute) for permute in ((), *self.permutations)]
        return all(path.is_file() for path in wanted) and self.is_of_this_config()

    def is_of_this_config(self) -> bool:
        """Whether config.yaml in its directory says what this run is."""
        try:
            found = load_saved_config(self.path / "config.yaml")
        except CtrError:
            return False
        return run_key(found, self.manifest) == self.key


def predictions_name(permute: Sequence[str] = ()) -> str:
    """The name of a predictions table of the test part, without `.parquet`.

    Example:
        >>> predictions_name(), predictions_name(["price"])
        ('test', 'test.permuted-683b531f41')
    """
    if not permute:
        return "test"
    return f"test.permuted-{hashlib.sha256(','.join(permute).encode()).hexdigest()[:10]}"


def run_key(config: RunConfig, manifest: Manifest) -> str:
    """What two runs that are the same run have in common: settings that decide the course, and the data.

    Settings at their default are left out, so that an option added to the code later changes no key.
    """
    own = identity(config, manifest)
    default = identity(RunConfig(dataset="", run="", model=config.model), manifest)["config"]
    essence = _differing(own["config"], default)
    if model := differing(config.model, model_config()):
        essence["model"] = model
    return hashlib.sha256(canonical_json({"config": essence, "dataset": own["dataset"]})).hexdigest()[:12]


def _differing(own: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not at their default."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        usual = default.get(key)
        if isinstance(value, dict) and isinstance(usual, dict):
            value, usual = _differing(value, usual), {}
        if value != usual:
            found[key] = value
    return found


def plan_subruns(
    variants: Sequence[Variant],
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    windows: int,
    directory: Path,
) -> list[SubRun]:
    """The trainings, those of the base first; variants that ask for the same one share it.

    Args:
        variants: from `expand`.
        dataset: as a whole.
        seeds, windows: of the plan.
        directory: of the ablation; runs that lie there under another variant's name are found by their key.

    Raises:
        ConfigError: too many windows for the test part.
    """
    rows = cache(lambda period: restrict(dataset, period).manifest.splits)
    found: dict[str, SubRun] = {}
    for variant in variants:
        for trial in (Trial(variant.name, seed, window) for window in range(windows) for seed in seeds):
            config = _config(variant, trial, windows)
            key = run_key(config, dataset.manifest)
            if key not in found:
                splits = rows(config.period)
                trained = sum(splits[name].impressions for name in config.train.data.split("+"))
                found[key] = _subrun(key, config, trial, dataset.manifest, trained, directory)
            found[key].trials.append(trial)
            if variant.permute and variant.permute not in found[key].permutations:
                found[key].permutations.append(variant.permute)
    return list(found.values())


def _config(variant: Variant, trial: Trial, windows: int) -> RunConfig:
    period = variant.config.period.model_copy(update={"windows": windows, "window": trial.window})
    tracking = variant.config.tracking.model_copy(update={"uri": None, "system_every": SYSTEM_SECONDS})
    return variant.config.model_copy(update={"seed": trial.seed, "period": period, "tracking": tracking})


def _subrun(
    key: str, config: RunConfig, trial: Trial, manifest: Manifest, rows: int, directory: Path
) -> SubRun:
    there = sorted((directory / "subruns").glob(f"*-{key}"))
    name = f"{trial.variant[:80]}.s{trial.seed}.w{trial.window}-{key}"
    path = there[0] if there else directory / "subruns" / name
    steps = config.train.epochs * math.ceil(rows / config.loader.batch_rows)
    steps = min(steps, config.train.max_steps or steps)
    return SubRun(key, config.model_copy(update={"run": str(path)}), manifest, steps)
