"""The raw tables of a spec, opened."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.read.explode import refuse_taken_names
from features.read.needed import expand_patterns, needed_columns
from features.read.problems import Problems
from features.read.roles import table_roles
from features.sources import open_tables
from features.sources.on_disk import on_disk
from features.spec import Spec


def open_spec(
    spec: Spec, base: Path, counters: dict[str, int], *, dry: bool = False
) -> tuple[Spec, dict[str, pl.LazyFrame]]:
    """The spec without patterns and with its tables on this machine, and these tables.

    Args:
        spec: as written.
        base: what `spec.source.path` is relative to.
        counters: gets what is left out while opening.
        dry: read the beginning of every file alone.
    """
    problems = Problems()
    needed = needed_columns(spec, problems)
    if not dry:
        problems.raise_all()
    tables: dict[str, pl.LazyFrame] = {}
    with problems.collect():  # the tables are asked too, so that all that is wrong is told at once
        spec = spec.model_copy(update={"source": on_disk(spec.source, base, needed)})
        tables = open_tables(
            spec.source, base=base, needed=needed, roles=table_roles(spec), counters=counters, dry=dry
        )
    problems.raise_all()
    columns = {name: _columns(table) for name, table in tables.items()}
    refuse_taken_names(spec, columns[spec.impressions.table])
    return expand_patterns(spec, columns), tables


def _columns(table: pl.LazyFrame) -> list[str]:
    """The raw columns of a table, without the reserved ones."""
    return [c for c in table.collect_schema().names() if not c.startswith("__")]
