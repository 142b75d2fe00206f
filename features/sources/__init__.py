"""Readers of known log formats: each makes the raw tables that a spec names.

movielens   100k, 1M and latest-small, as their owner packs them and as Parquet
ml_1mctr    1M with the rows and parts of a published comparison
ebnerd      pages and fixed histories of the RecSys Challenge 2024
trivago     sessions of the RecSys Challenge 2019
simulator   the directory that `ctr simulate` writes
competition rows with ready-made history lists, as Parquet with a schema.json

Logs of one's own need no reader: `kind: files` (features/read/scan.py) opens Parquet and CSV by name.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import polars as pl

from features.errors import ConfigError
from features.read.scan import check_tables, open_files
from features.spec import Needed, Source

# A module is imported when a spec names it; it has read(root) -> tables,
READERS = {
    "movielens": "features.sources.movielens",
    "ml_1mctr": "features.sources.ml_1mctr",
    "trivago": "features.sources.trivago",
    "ebnerd": "features.sources.ebnerd",
    "simulator": "features.sources.simulator",
}
# or read(root, options=…, needed=…) -> tables.
WITH_OPTIONS = {"competition": "features.sources.competition"}


# `features.read.scan.open_files` takes the same: it does this for files.
def open_tables(source: Source, *, base: Path, needed: Needed, **reading: Any) -> dict[str, pl.LazyFrame]:
    """Open the raw tables that are needed, whatever the kind of their source.

    Args:
        source: `files`, or the name of a reader of this folder.
        base: the directory that `source.path` is relative to.
        needed: table → column → who reads it.
        reading: `roles`, `counters` and `dry` of `open_files`; other readers know their columns.

    Raises:
        ConfigError: an unknown source, table or option.
        DataError: a file that is missing, unreadable or different from the others; a missing column.
    """
    if source.kind == "files":
        return open_files(source, base=base, needed=needed, **{"roles": {}, **reading})
    return check_tables(read_source(source, base=base, needed=needed), needed, kind=source.kind)


def read_source(source: Source, *, base: Path, needed: Needed | None = None) -> dict[str, pl.LazyFrame]:
    """Make the raw tables of a source.

    Args:
        source: its kind is a name in `READERS` or `WITH_OPTIONS`.
        base: the directory that `source.path` is relative to.
        needed: table → column → who reads it, for readers that read no more than that.

    Returns:
        Table name → lazy frame.

    Raises:
        ConfigError: an unknown kind, or options or tables that the reader does not take.
        DataError: files that are missing, unreadable or lack a column.
    """
    module = {**READERS, **WITH_OPTIONS}.get(source.kind)
    if module is None:
        known = ["files", *READERS, *WITH_OPTIONS]
        raise ConfigError(f"source.kind must be one of {known}, got {source.kind!r}; correct the spec")
    takes = source.kind in WITH_OPTIONS
    if unused := [*({} if takes else source.options), *source.tables]:
        raise ConfigError(
            f"source {source.kind!r} takes {'' if takes else 'no options and '}no tables, got {unused}; "
            "delete them, or use kind: files"
        )
    reader, root = importlib.import_module(module), base / source.path
    return reader.read(root, options=source.options, needed=needed or {}) if takes else reader.read(root)
