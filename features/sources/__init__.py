"""Readers of known log formats: each makes the raw tables that a spec names.

movielens   100k, 1M and latest-small, as their owner packs them and as Parquet
trivago     sessions of the RecSys Challenge 2019
simulator   the directory that `ctr simulate` writes

Logs of one's own need no reader: `kind: files` (features/scan.py) opens Parquet and CSV by name.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import polars as pl

from features.errors import ConfigError
from features.spec import Source

# A module is imported when a spec names it; it has read(root) -> tables.
READERS = {
    "movielens": "features.sources.movielens",
    "trivago": "features.sources.trivago",
    "simulator": "features.sources.simulator",
}


def read_source(source: Source, *, base: Path) -> dict[str, pl.LazyFrame]:
    """Make the raw tables of a source.

    Args:
        source: its kind is a name in `READERS`.
        base: the directory that `source.path` is relative to.

    Returns:
        Table name → lazy frame.

    Raises:
        ConfigError: an unknown kind, or options or tables that the reader does not take.
        DataError: files that are missing, unreadable or lack a column.
    """
    if source.kind not in READERS:
        raise ConfigError(
            f"source.kind must be one of {['files', *READERS]}, got {source.kind!r}; correct the spec"
        )
    if source.options or source.tables:
        raise ConfigError(
            f"source {source.kind!r} takes no options and no tables, "
            f"got {[*source.options, *source.tables]}; delete them, or use kind: files"
        )
    return importlib.import_module(READERS[source.kind]).read(base / source.path)
