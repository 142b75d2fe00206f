"""The rows of one range of time, in order: requests numbered, and their computed columns piece by piece.

A range holds whole requests, since all rows of a clock are in one. Columns are kept in files of their own,
each written by the stage that computes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.errors import DataError
from features.partitions.carry import of_share
from features.partitions.frames import read_frame, write_frame
from features.partitions.items import item_columns
from features.partitions.job import Preparation
from features.partitions.totals import HASH, write_totals
from features.partitions.users import UNKNOWN
from features.past.keys import hashes
from features.past.matches import close_share
from features.past.past import mean_or_half
from features.read.clock import CLOCK, TIME
from features.read.columns import input_reads
from features.read.explode import PLACE, of_line
from features.read.ids import common_keys, key_values
from features.read.locate import LINE, ROW
from features.read.log import narrow, only_read
from features.read.requests import number_requests


def rows(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Bring the rows of a range together from all users, in their order.

    Returns:
        rows, requests, positives and counters; `rows.arrow` has the columns that are there so far.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    counters: dict[str, int] = {}
    # No name for the unsorted rows: they go as soon as there is a sorted copy.
    frame, counters["impressions.duplicates"] = number_requests(
        _of_all_users(work, job, part), of_line(job.spec.impressions)
    )
    if UNKNOWN in frame.columns and (unknown := int(frame[UNKNOWN].sum())):
        counters["impressions.unknown_user"] = unknown
    if job.spec.item is not None:
        item_columns(work, job.spec, frame.select("__item"), counters=counters)
    frame = _with_shares(work, job, part, frame)
    for column in (CLOCK, TIME):
        frame[column].to_numpy().astype("<i8").tofile(out / f"{column}.bin")
    origin = [c for c in (ROW, LINE) if c in frame.columns]
    write_frame(out / "origin.arrow", frame.select(origin))
    _write_request_ids(out, job, frame)
    frame = only_read(frame, input_reads(job.spec)).drop(*origin, UNKNOWN, PLACE, strict=False)
    write_frame(out / "rows.arrow", narrow(frame))
    totals = write_totals(work, out, job, 0, part, item_columns(work, job.spec, frame))
    requests = int(frame["__request"].max()) + 1 if frame.height else 0  # type: ignore[arg-type]
    return {"rows": frame.height, "requests": requests, "counters": counters, "totals": totals}


def load_rows(work: Path, job: Preparation, part: int, *, levels: int) -> pl.DataFrame:
    """The rows of a range with the item table's columns and those of the counters below a level."""
    parts = [read_frame(work / "rows" / f"{part:05}" / "rows.arrow")]
    parts += [read_frame(work / f"count-{level}" / f"{part:05}" / "columns.arrow") for level in range(levels)]
    frame = item_columns(work, job.spec, parts[0])
    return pl.concat([frame, *parts[1:]], how="horizontal")


def check_requests(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse a request ID that occurs in several ranges of time, by a share of the hashes of all."""
    frames = [
        of_share(
            read_frame(work / "rows" / f"{part:05}" / "requests.arrow"),
            arguments["share"],
            arguments["shares"],
        )
        for part in range(arguments["parts"])
    ]
    ids = pl.concat(common_keys([frame["id"] for frame in frames]))
    return {"twice": ids.filter(ids.is_duplicated()).unique().sort().head(5).to_list()}


def _of_all_users(work: Path, job: Preparation, part: int) -> pl.DataFrame:
    """The rows of a range, one partition of the users after the other."""
    parts = [_of_users(work, job, users, part) for users in range(job.parts)]
    return pl.concat(parts, how="vertical_relaxed", rechunk=True)  # integers are as wide as each part needs


def _of_users(work: Path, job: Preparation, users: int, part: int) -> pl.DataFrame:
    """The rows of one partition of the users in this range, with codes and pointers of the whole log."""
    frame = read_frame(work / "users" / f"{users:05}" / f"rows-{part}.arrow")
    base = job.facts["bases"][users]
    pointers = [
        # As of the whole log: an empty list lies nowhere, an empty history where it would be.
        pl.when(pl.lit(domain.from_list is None) | (pl.col(f"__start.{name}") < pl.col(f"__end.{name}")))
        .then(pl.col(f"__{bound}.{name}") + base["events"][name])
        .otherwise(pl.col(f"__{bound}.{name}"))
        .alias(f"__{bound}.{name}")
        for name, domain in job.spec.domains.items()
        for bound in ("start", "end")
    ]
    return frame.with_columns(pl.col("__user") + base["users"], *pointers)


def _with_shares(work: Path, job: Preparation, part: int, frame: pl.DataFrame) -> pl.DataFrame:
    """Close the positive shares of matches with the share of outcome 1 among all earlier events."""
    for name, match in job.spec.matches.items():
        if "positive_share" in match.outputs:
            frame = close_share(frame, name, _running(work, job, part, match.domain, frame))
    return frame


def _running(work: Path, job: Preparation, part: int, domain: str, frame: pl.DataFrame) -> np.ndarray:
    paths = [work / "users" / f"{p:05}" / f"outcomes-{domain}-{part}.arrow" for p in range(job.parts)]
    own = pl.concat([read_frame(p) for p in paths]).sort(CLOCK)
    known, positive = job.facts["running"][domain][part]
    at = np.searchsorted(own[CLOCK].to_numpy(), frame[CLOCK].to_numpy())
    sums = [np.concatenate([[0], np.cumsum(own[c].to_numpy())])[at] for c in ("known", "positive")]
    return mean_or_half(sums[1] + positive, sums[0] + known)


def _write_request_ids(out: Path, job: Preparation, frame: pl.DataFrame) -> None:
    """The request IDs by their hashes: one that occurs in two ranges has two times."""
    column = job.spec.impressions.request
    if column is None:
        return
    ids = key_values(frame[column], what=f"request {column!r}").unique().drop_nulls().alias("id").to_frame()
    hashed = ids.with_columns(pl.Series(HASH, hashes(ids["id"]), dtype=pl.UInt64))
    write_frame(out / "requests.arrow", hashed.sort(HASH))


def refuse_requests(job: Preparation, ids: list[int | str]) -> None:
    """Say that some request IDs have several times or users."""
    shown = job.spec.impressions
    raise DataError(
        f"table {shown.table!r}: the rows of a request must have one time (and order) and one user, but "
        f"several have some of {shown.request!r}, such as {ids[:5]}; correct them, or delete "
        "impressions.request"
    )
