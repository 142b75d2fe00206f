"""What must be equal for a checkpoint to be continued: the data set, and what counts of the configuration."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ctr.config import RunConfig
from ctr.options.knobs import DROP_UNUSED
from ctr.runs.saved_config import as_saved
from features.dataset import Manifest

# What changes speed, location or record of a training, and no more than rounding of its course.
_FREE_SECTIONS = ("run", "dataset", "tracking", "distributed", "calibration")
_FREE = {
    "embedding": ("engine", "sharding", "table_sharding"),
    "loader": ("workers", "prefetch", "micro_batches"),
    "train": (
        "keep_last",
        "device",
        "checkpoint_every",
        "max_skipped",
        "recompute",
        "save_in_background",
        "hidden_rows",
    ),
}


def identity(config: RunConfig, manifest: Manifest) -> dict[str, Any]:
    """All that decides the course of a training, as JSON data."""
    parts = [manifest.splits.get(name) for name in config.train.data.split("+")]
    requests = sum(part.requests for part in parts if part is not None)
    plan = config.loader.decided_plan(requests)
    return {"config": _course(config, plan), "dataset": manifest.digest()}


def on_other_data(own: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The identity of a state that scores another data set: what follows from the data is as it was trained.

    Args:
        own: with the data set that is scored.
        found: saved with the weights.
    """
    loader = {k: v for k, v in own["config"]["loader"].items() if k != "plan"}
    plan = _saved_plan(found)
    config = {**own["config"], "loader": {**loader, **({} if plan == "requests" else {"plan": plan})}}
    return {**own, "config": config, "dataset": found["dataset"]}


def completed(found: dict[str, Any]) -> dict[str, Any]:
    """A saved identity as this version would have written it.

    Options that did not exist yet get their defaults, which are the behaviour of before them, and what no
    longer counts is left out, as are options without effect. What is no configuration of this version comes
    back as it is.
    """
    try:
        plain = as_saved({**found["config"], "run": "", "dataset": ""})
        config = RunConfig.model_validate(plain, context=DROP_UNUSED)
        plan = _saved_plan(found)
    except (KeyError, TypeError, ValidationError):
        return found
    return {**found, "config": _course(config, plan)}


def _saved_plan(found: dict[str, Any]) -> str:
    """How the batches of a saved training were cut; before there was a choice, by drawing all requests."""
    return str(found["config"]["loader"].get("plan", "requests"))


def _course(config: RunConfig, plan: str) -> dict[str, Any]:
    """What decides the course; `plan: requests`, which was the only one, is not said."""
    plain = config.model_dump(mode="json", exclude=set(_FREE_SECTIONS))
    for section, keys in _FREE.items():
        for key in keys:
            del plain[section][key]
    del plain["loader"]["plan"]
    if plan != "requests":
        plain["loader"]["plan"] = plan
    if plain["init"] is not None:
        del plain["init"]["dataset"]
    if config.train.epochs == 1:
        plain["embedding"]["restart"] = []  # of no effect
    return plain
