"""What must be equal for a checkpoint to be continued: the data set, and what counts of the configuration."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ctr.config import RunConfig
from ctr.options.knobs import DROP_UNUSED
from features.dataset import Manifest

# What changes speed, location or record of a training, and no more than rounding of its course.
_FREE_SECTIONS = ("run", "dataset", "tracking", "distributed", "calibration")
_FREE = {
    "embedding": ("engine", "sharding", "table_sharding"),
    "loader": ("workers", "prefetch", "micro_batches"),
    "train": ("keep_last", "device", "checkpoint_every", "max_skipped", "recompute", "save_in_background"),
}


def identity(config: RunConfig, manifest: Manifest) -> dict[str, Any]:
    """All that decides the course of a training, as JSON data."""
    return {"config": _course(config), "dataset": manifest.digest()}


def completed(found: dict[str, Any]) -> dict[str, Any]:
    """A saved identity as this version would have written it.

    Options that did not exist yet get their defaults, which are the behaviour of before them, and what no
    longer counts is left out, as are options without effect. What is no configuration of this version comes
    back as it is.
    """
    try:
        plain = {**found["config"], "run": "", "dataset": ""}
        config = RunConfig.model_validate(plain, context=DROP_UNUSED)
    except (KeyError, TypeError, ValidationError):
        return found
    return {**found, "config": _course(config)}


def _course(config: RunConfig) -> dict[str, Any]:
    plain = config.model_dump(mode="json", exclude=set(_FREE_SECTIONS))
    for section, keys in _FREE.items():
        for key in keys:
            del plain[section][key]
    if plain["init"] is not None:
        del plain["init"]["dataset"]
    return plain
