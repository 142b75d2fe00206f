"""Domains that come as lists of the impressions: each line's list goes to the partition of its user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from features.partitions.frames import Writers, read_frames
from features.partitions.items import item_codes
from features.partitions.job import KEY, Preparation
from features.read.explode import packed_lists
from features.read.listed import Direction, Lists, check_direction, store_lists
from features.read.locate import ROW, table_name
from features.spec import Domain, Spec

LIST = "__list."


def listed_domains(spec: Spec) -> dict[str, Domain]:
    """The domains whose events have no times."""
    return {name: domain for name, domain in spec.domains.items() if domain.from_list is not None}


def move_lists(
    writers: Writers, job: Preparation, rows: pl.DataFrame, lists: dict[str, Lists]
) -> pl.DataFrame:
    """Write the lists of a batch, once a line, and leave the rows without them.

    Args:
        writers: of the task.
        job: the preparation.
        rows: with `__row`, the key of the user, and `__list.DOMAIN`.
        lists: of `take_lists`.
    """
    lines = rows.unique(ROW, keep="first", maintain_order=True) if lists else rows
    for name, own in lists.items():
        values = own.values.to_series()
        values = values if values.dtype.is_numeric() else values.cast(pl.String)
        every = pl.Series(pa.LargeListArray.from_arrays(pa.array(own.offsets), values.to_arrow()))
        both = pl.DataFrame([lines[ROW], every.gather(lines[LIST + name]).alias("list")])
        writers.split(f"lists-{name}", both, job.user_part(lines[KEY]), job.parts)
    return rows.drop(LIST + name for name in lists)


def with_lists(
    work: Path, job: Preparation, part: int, rows: pl.DataFrame, counters: dict[str, int]
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame], dict[str, dict[str, Any]]]:
    """Store the lists of a partition's users.

    Args:
        rows: of these users, with their requests, in order.
        counters: gets how the lists follow one another.

    Returns:
        The rows with pointers; of each domain its events, and which way its lists grow.
    """
    stored, directions = {}, {}
    shares = [i for i, s in enumerate(job.facts["shares"]) if s["domain"] is None]
    for name, domain in listed_domains(job.spec).items():
        lines = read_frames(work / "ingest" / f"{i:05}" / f"lists-{name}-{part}.arrow" for i in shares)
        number = lines[ROW].search_sorted(rows[ROW]).cast(pl.Int64)
        column = lines["list"]
        offsets = np.concatenate([[0], np.cumsum(column.list.len().to_numpy(), dtype=np.int64)])
        values = column.filter(column.list.len() > 0).explode().alias(str(domain.item)).to_frame()
        rows = rows.with_columns(number.alias(LIST + name))
        coded = item_codes(work, job, values, name)
        lists = Lists(values, offsets)
        rows, stored[name], found = store_lists(rows, name, lists, coded, counters)
        directions[name] = vars(found)
    return rows, stored, directions


def check_directions(spec: Spec, found: list[dict[str, dict[str, Any]]]) -> None:
    """Refuse lists that grow at the other end than is declared, by what all partitions found."""
    for name in listed_domains(spec):
        own = [Direction(**f[name]) for f in found]
        changed, agree, other = (sum(getattr(d, n) for d in own) for n in ("changed", "agree", "other"))
        check_direction(Direction(changed, agree, other, None), spec, name)


def items_of_lists(job: Preparation, frame: pl.DataFrame) -> dict[str, pl.Series]:
    """The items in the lists of some lines, by what their column is called in messages."""
    found = {}
    for domain in listed_domains(job.spec).values():
        assert domain.from_list is not None
        what = table_name(job.spec.source, job.spec.impressions.table)
        lists = packed_lists(frame, domain.from_list, what=what)
        found[f"{what}, item column {domain.item!r}"] = lists.explode().drop_nulls().unique()
    return found
