"""Raw tables → rows, events and users by partition: checked, labelled and on the one clock of the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from features.partitions.clocks import with_clock
from features.partitions.frames import Writers
from features.partitions.job import KEY, Preparation
from features.partitions.lists import move_lists
from features.partitions.survey import Unsteady
from features.read.clock import CLOCK, time_bounds
from features.read.columns import dense_columns, made_columns
from features.read.ids import key_values
from features.read.listed import Lists
from features.read.lists import as_wide, widths_of
from features.read.locate import FILE, ROW, table_name
from features.read.log import read_events, read_rows
from features.read.missing import without_nan
from features.read.moments import moment_forms, moment_names

_TEXT = (pl.Categorical, pl.Enum)


def ingest(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Move a share of a table to the partitions of its users, or, with an `order`, to ranges of time.

    Returns:
        counters, the first and last row of each file, and the rows of each part.
    """
    job, domain = Preparation.of(arguments["job"]), arguments["domain"]
    role, bounds = job.role(domain), time_bounds(job.spec.time_range)
    spec = _without_where(job, domain)
    counters: dict[str, int] = {}
    files: dict[str, list[int]] = {}
    what = f"{table_name(spec.source, role.table)}, user column {role.user!r}"
    with Writers(out) as writers:
        for batch in job.batches(domain, arguments["offset"], arguments["length"]):
            tables, own = {role.table: batch.lazy()}, dict[str, int]()
            lists: dict[str, Lists] = {}
            if domain is None:
                frame, lists = read_rows(spec, tables, own)
            else:
                frame = read_events(spec, domain, tables, own)
            _add(counters, own)
            if domain is None:
                _note_files(frame, files)
            frame = as_wide(with_clock(frame, job, domain, bounds), job.facts["widths"].get(domain or "", {}))
            frame = _as_stored(frame, _types(job, domain, batch))
            frame = frame.with_columns(job.user_key(frame[role.user], what=what))
            frame = move_lists(writers, job, frame, lists)
            frame = frame.drop(FILE, *(() if domain is None else (ROW, "__line")), strict=False)
            writers.split("rows", frame, _part(job, frame), job.parts)
    return {"counters": counters, "files": [[name, *span] for name, span in files.items()]}


def ingest_users(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Move a share of the users' table to the partitions of its keys, as it is.

    Returns:
        the lengths of its vectors, and the forms of the moments that ages read.
    """
    job = Preparation.of(arguments["job"])
    entity = job.spec.user
    assert entity is not None
    table = job.tables()[entity.table]
    schema = table.collect_schema()
    dense = dense_columns(job.spec.features.values(), "user")
    widths: dict[str, list[int]] = {c: [] for c in sorted(dense) if isinstance(schema[c], pl.List)}
    forms: dict[str, set[str]] = {name: set() for name in moment_names(job.spec, "user")}
    with Writers(out) as writers:
        for batch in table.slice(arguments["offset"], arguments["length"]).collect_batches(
            engine="streaming"
        ):
            keys = key_values(batch[entity.key], what=f"table {entity.table!r}, column {entity.key!r}")
            # What is no key of the log's type meets none; where it lies does not matter.
            known = keys.cast(getattr(pl, job.facts["users"]["type"]), strict=False)
            part = job.user_part(
                known.fill_null(strategy="min") if known.null_count() < len(known) else known
            )
            writers.split("users", _plain(batch), part, job.parts)
            for column, lengths in widths.items():
                lengths += widths_of(batch[column])
                lengths[:] = [min(lengths), max(lengths)] if lengths else []
            told = batch.with_columns(without_nan(batch.schema, forms.keys()))
            for column, form in moment_forms(told, job.spec, "user").items():
                forms[column].add(form)
    return {"widths": widths, "forms": {name: sorted(found) for name, found in forms.items()}}


def check_moments(found: Sequence[dict[str, list[str]]], *, what: str) -> None:
    """The moments of a column have one form in all shares, by which each share tells them alike.

    Raises:
        Unsteady: several.
    """
    for column in found[0] if found else ():
        forms = sorted({form for share in found for form in share[column]})
        if len(forms) > 1:
            raise Unsteady(f"{what}, column {column!r}: times are of several units or forms, {forms}")


def _part(job: Preparation, frame: pl.DataFrame) -> Any:
    if job.spec.order:
        return job.time_part(frame[CLOCK] // job.facts["clock"]["per_second"])
    return job.user_part(frame[KEY])


def _without_where(job: Preparation, domain: str | None) -> Any:
    """The spec for batches that hold no other rows."""
    if domain is None:
        shown = job.spec.impressions.model_copy(update={"where": {}})
        return job.spec.model_copy(update={"impressions": shown})
    own = job.spec.domains[domain].model_copy(update={"where": {}})
    return job.spec.model_copy(update={"domains": {**job.spec.domains, domain: own}})


def _types(job: Preparation, domain: str | None, batch: pl.DataFrame) -> dict[str, pl.DataType]:
    """Column → type in the table; of what is made of packed rows, that of any batch."""
    shown, packed = job.spec.impressions, job.spec.impressions.explode
    if domain is not None or packed is None:
        return dict(batch.schema)
    inner = getattr(batch.schema[packed.column], "inner", None) or pl.Int64()
    made = dict.fromkeys(made_columns(shown), pl.Int64()) | {shown.item: inner}
    return dict(batch.schema) | made


def _as_stored(frame: pl.DataFrame, types: dict[str, pl.DataType]) -> pl.DataFrame:
    """Integers in the types of the table: batch by batch they were made as narrow as their values allow."""
    wide = [c for c in frame.columns if c in types and frame[c].dtype.is_integer()]
    return _plain(frame.with_columns(pl.col(c).cast(types[c]) for c in wide if types[c].is_integer()))


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Categories as the texts that they stand for."""
    return frame.with_columns(
        pl.col(c).cast(pl.String) for c, t in frame.schema.items() if isinstance(t, _TEXT)
    )


def _note_files(frame: pl.DataFrame, files: dict[str, list[int]]) -> None:
    if FILE not in frame.columns or not frame.height:
        return
    spans = frame.group_by(FILE).agg(pl.col(ROW).min().alias("first"), pl.col(ROW).max().alias("last"))
    for name, first, last in spans.iter_rows():
        span = files.setdefault(name, [first, last])
        span[:] = [min(span[0], first), max(span[1], last)]


def _add(counters: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        counters[name] = counters.get(name, 0) + count
