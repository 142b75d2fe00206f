"""`ctr ablate PLAN --select`: which columns a run may leave out, decided on the validation part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ctr.ablate.ablation import check
from ctr.ablate.backward import ColumnChoice, Validated, select_backward
from ctr.ablate.expand import Variant, base_config, variant
from ctr.ablate.importance import item_losses, sample_batches
from ctr.ablate.plan import Plan, VariantPlan
from ctr.ablate.select import members, parts
from ctr.build import scoring_loader
from ctr.runs.directory import RunDir
from features.dataset import Dataset
from features.durable import canonical_json, replace_file
from features.errors import ConfigError
from pipelines.runs import open_run
from pipelines.terminal import echo
from pipelines.trainings import train_to_the_end

ROWS = 20_000  # of the validation part


@dataclass(frozen=True)
class Selector:
    """Trains and measures a plan's base without some of its columns."""

    plan: Plan

    @cached_property
    def dataset(self) -> Dataset:
        """As a whole."""
        return Dataset(base_config(self.plan).dataset)

    @cached_property
    def items(self) -> list[str]:
        """What may be dropped: `one_at_a_time`, or every feature and field that the base reads."""
        base = base_config(self.plan)
        if base.train.data != "train" or base.train.metric != "auc":
            raise ConfigError(
                "--select decides by the AUC on the validation part: set train.data to train and "
                f"train.metric to auc, got {base.train.data} and {base.train.metric}"
            )
        manifest = self.dataset.manifest.without(base.drop)
        if self.plan.one_at_a_time:
            return parts(manifest, self.plan.one_at_a_time)
        return [*parts(manifest, "features"), *parts(manifest, "sides")]

    def without(self, dropped: Sequence[str]) -> Variant:
        """The base without some items; its run lies below the plan's directory."""
        found = variant(
            "select", VariantPlan(drop=tuple(dropped)), base_config(self.plan), self.dataset.manifest
        )
        key = hashlib.sha256(canonical_json(found.config.drop)).hexdigest()[:10]
        tracking = found.config.tracking.model_copy(update={"uri": None})
        at = {"run": str(self.plan.directory / "select" / key), "seed": self.plan.seeds[0]}
        config = found.config.model_copy(update={**at, "tracking": tracking})
        return Variant(found.name, config)

    def fits(self, dropped: Sequence[str]) -> bool:
        """Whether a model can be built without the items."""
        try:
            check(self.without(dropped), self.dataset.manifest)
        except ConfigError:
            return False
        return True

    def measure(self, dropped: Sequence[str]) -> Validated:
        """Train without the items, or take what was trained, and measure on the validation part."""
        config = self.without(dropped).config
        train_to_the_end(config)
        opened = open_run(RunDir(Path(config.run)))
        batches = sample_batches(scoring_loader(config, opened.dataset, "valid"), ROWS)
        left = [item for item in self.items if item not in set(dropped)]
        names = {item: sorted(self._there(item, opened.dataset)) for item in left}
        label, score, user, losses = item_losses(
            opened.state,
            batches,
            {item: own for item, own in names.items() if own},
            bf16=config.train.precision == "bf16",
            device=opened.device,
        )
        return Validated(label, np.asarray(score), user, losses)

    def _there(self, item: str, view: Dataset) -> set[str]:
        """What of an item the view still has."""
        manifest = view.manifest
        there = {c.name for c in manifest.features} | set(manifest.domains) | set(parts(manifest, "sides"))
        return members(self.dataset.manifest, [item]) & there


def select_columns(plan: Plan, *, margin: float, most: int) -> ColumnChoice:
    """Select, write `select/selection.json` in the plan's directory, and say what to drop.

    Raises:
        TrainingStopped: a signal ended a training; nothing is written.
    """
    selector = Selector(plan)
    if not selector.items:
        raise ConfigError("--select needs columns to select from; the base drops all of them")
    found = select_backward(selector.measure, selector.fits, margin=margin, most=most)
    drop = selector.without(found.dropped).config.drop
    out = plan.directory / "select" / "selection.json"
    replace_file(out, canonical_json({**found.to_dict(), "drop": drop}))
    for attempt in found.attempts:
        d = attempt.difference
        verdict = "dropped" if attempt.kept else "kept"
        echo(f"{verdict}: {', '.join(attempt.dropped)}: AUC {d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})")
    d = found.whole
    echo(f"selected minus all columns, validation AUC: {d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})")
    echo(f"drop: {drop}\nwrote {out}")
    return found
