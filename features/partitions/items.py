"""The items of the log: their codes, and the columns of the item table that rows and events get."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import polars as pl

from features.partitions.frames import read_frame, write_frame
from features.partitions.job import Preparation
from features.read.codes import code_of
from features.read.columns import event_reads, impression_reads, origin
from features.read.entities import join_entity, read_entity
from features.read.ids import key_values
from features.read.log import narrow, read_names
from features.read.moments import moment_columns
from features.spec import Spec


def write_items(work: Path, job: Preparation, keys: pl.Series, counters: dict[str, int]) -> None:
    """Keep the keys of the items, and those rows of the item table that occur in the log."""
    write_frame(work / "items.arrow", keys.to_frame())
    spec = job.spec
    if spec.item is None:
        return
    reads = [
        *impression_reads(spec),
        *(r for n, d in spec.domains.items() if d.item for r in event_reads(spec, n)),
    ]
    names = read_names(reads, "item")
    side = read_entity(spec, "item", names, counters, keys=keys, tables=job.tables())
    write_frame(work / "side.arrow", narrow(side))


def item_codes(work: Path, job: Preparation, frame: pl.DataFrame, domain: str | None) -> pl.DataFrame:
    """With the code of each row's item, −1 where there is none."""
    role = job.role(domain)
    if role.item is None:
        return frame.with_columns(pl.lit(-1, dtype=pl.Int64).alias("__item"))
    keys = key_values(frame[role.item], what=f"table {role.table!r}, item column {role.item!r}")
    return frame.with_columns(pl.Series("__item", code_of(keys, _keys(work))))


def item_columns(
    work: Path,
    spec: Spec,
    frame: pl.DataFrame,
    *,
    domain: str | None = None,
    matches_only: bool = False,
    counters: dict[str, int] | None = None,
) -> pl.DataFrame:
    """Join the `item.*` columns that are read, and to rows the moments that ages read.

    Args:
        work: of the job.
        spec: without patterns.
        frame: rows, or events of a domain, with `__item`.
        domain: of the events.
        matches_only: those alone that matches read of the impressions.
        counters: gets how many rows have an unknown item.
    """
    if spec.item is None or (domain is not None and spec.domains[domain].item is None):
        return frame
    names = read_names(impression_reads(spec) if domain is None else event_reads(spec, domain), "item")
    if matches_only:
        wanted = [origin(m.candidate) for m in spec.matches.values()]
        names = list(dict.fromkeys(name for kind, name in wanted if kind == "item"))
    moments = moment_columns(spec, "item") if domain is None and not matches_only else []
    if not (names or moments) and counters is None:
        return frame
    side = _side(work).select("__item", *(f"item.{name}" for name in names), *moments)
    what = "impressions" if domain is None else f"events.{domain}"
    return join_entity(frame, side, "item", {} if counters is None else counters, keys=_keys(work), what=what)


def _keys(work: Path) -> pl.Series:
    return _frame(work / "items.arrow", (work / "items.arrow").stat().st_mtime_ns)["key"]


def _side(work: Path) -> pl.DataFrame:
    return _frame(work / "side.arrow", (work / "side.arrow").stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _frame(path: Path, modified: int) -> pl.DataFrame:
    return read_frame(path)
