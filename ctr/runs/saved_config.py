"""Configurations that a run directory or a checkpoint holds: resolved, maybe by an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctr.config import RunConfig, parse_config
from features.safe_yaml import load_yaml


def load_saved_config(path: Path) -> RunConfig:
    """The resolved configuration that stands in a run directory, of an earlier version too.

    Raises:
        ConfigError: as `load_config`.
    """
    return parse_config(as_saved(load_yaml(path)), what=str(path))


def as_saved(plain: dict[str, Any]) -> dict[str, Any]:
    """A configuration that names all options it knew, with what those of later did before they were there.

    It is their default, except where a default was changed with the option's arrival.
    """
    section = plain.get("embedding")
    if not isinstance(section, dict):
        return plain
    return {**plain, "embedding": {"restart": [], **section}}
