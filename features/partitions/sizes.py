"""How many partitions a log needs so that a task fits into the memory that it may take."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from features.errors import ConfigError
from features.memory.sizes import shown
from features.read.explode import packed_lists
from features.read.log import Tables
from features.spec import Spec

# Measured on the simulated log (docs/scale.md): what a prepare takes while it holds all of them.
ROW_BYTES, EVENT_BYTES = 400, 100
PROCESS_BYTES = 300 * 10**6  # the interpreter with Polars and Arrow, and what a task reads at a time
DISK_FACTOR = 1.25  # temporary files and data set, by the bytes of `whole_bytes`
MOST = 1024
_LINES = 2**14


def counts_of(spec: Spec, tables: Tables) -> dict[str, int]:
    """Rows of the impressions ("") and of every domain, as far as their files tell."""
    roles = {"": spec.impressions.table, **{name: d.table for name, d in spec.domains.items()}}
    lengths = {
        table: int(tables[table].select(pl.len()).collect(engine="streaming").item())
        for table in dict.fromkeys(roles.values())
    }
    counts = {role: lengths[table] for role, table in roles.items()}
    packed = spec.impressions.explode
    if packed is not None:  # as many rows as the first lines let expect
        head = tables[spec.impressions.table].select(packed.column).head(_LINES).collect().drop_nulls()
        lists = packed_lists(head, packed, what=f"table {spec.impressions.table!r}")
        counts[""] = counts[""] * max(int(lists.list.len().sum()), len(lists)) // max(len(lists), 1)
    return counts


def parts_for(counts: Mapping[str, int], memory: int, *, workers: int) -> int:
    """The number of partitions.

    Args:
        counts: of `counts_of`.
        memory: bytes that all workers may take together.
        workers: how many tasks run at a time.

    Raises:
        ConfigError: the memory does not hold the workers themselves.

    Example:
        >>> parts_for({"": 7_000_000, "view": 17_000_000}, 10**9, workers=1)
        13
    """
    total = whole_bytes(counts)
    if workers == 1 and total + PROCESS_BYTES <= memory:
        return 1
    share = memory // workers - PROCESS_BYTES
    if share <= 0:
        raise ConfigError(
            f"--memory must leave every worker more than {shown(PROCESS_BYTES)}, got {shown(memory)} for "
            f"{workers}; raise it, or lower --workers"
        )
    if (parts := -(-total * 2 // share)) > MOST:
        raise ConfigError(
            f"--memory {shown(memory)} would take {parts:,} partitions of this log, and at most {MOST:,} are "
            f"made; give each worker at least {shown(PROCESS_BYTES + 2 * total / MOST)}"
        )
    return max(2 if workers > 1 else 1, int(parts))


def whole_bytes(counts: Mapping[str, int]) -> int:
    """Bytes of memory of a log that is prepared in one partition, beside the process itself."""
    events = sum(count for role, count in counts.items() if role)
    return ROW_BYTES * counts[""] + EVENT_BYTES * events


def disk_bytes(counts: Mapping[str, int]) -> int:
    """Bytes of temporary files, at most."""
    return int(DISK_FACTOR * whole_bytes(counts))
