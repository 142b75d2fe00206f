"""Fit and encode the parts of a log: the rows of a range of time, the events of each part of the users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.encode.crosses import part_types, with_crosses
from features.encode.encoded import Encoded
from features.encode.layout import KNOWN_USER, event_table, split_tables
from features.encode.scale import FittedDense, Scaler
from features.encode.split import SplitRanges
from features.encode.transform import comparable, encode_other, id_values_of, look_up_table, scale_dense
from features.encode.uses import Use, event_uses, row_uses
from features.partitions.fit import fit_part, fit_targets, fitted_table
from features.partitions.frames import read_frame
from features.partitions.items import item_columns
from features.partitions.job import Preparation
from features.partitions.late import with_weights
from features.partitions.rows import load_rows
from features.partitions.totals import levels_of
from features.partitions.users import FIRST
from features.past.ages import with_ages
from features.past.pages import page_columns
from features.read.clock import CLOCK
from features.read.files import table_root
from features.read.log import Log
from features.read.origin import Origin
from features.spec import DenseFeature, IdFeature
from features.store.manifest import SPLITS
from features.store.write import write_arrow


def fit_rows(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the training rows of one range of time are fitted with."""
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    log, ranges = _rows(work, job, part)
    fit_targets(out, job.spec, log.rows.slice(0, ranges.valid_start))
    found = fit_part(out, job.spec, row_uses(job.spec, log, ranges.valid_start))
    return found | {"crosses": part_types(log.rows, job.spec.crosses)}


def fit_events(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the training events of one partition of the users are fitted with."""
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    found: dict[str, Any] = {"spans": {}, "types": {}, "dense": {}}
    for name in job.spec.domains:
        log = _events(work, job, part, name)
        own = fit_part(out, job.spec, event_uses(job.spec, name, log, job.facts["split"]["fit_before"]))
        found = {kind: found[kind] | own[kind] for kind in found}
    return found


def encode_rows(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Encode the rows of one range: of each split `<split>-requests.arrow`, `<split>-impressions.arrow`.

    Returns:
        infos of the splits, descriptions of the columns, how many numbers were not finite, and what was
        counted of ages.
    """
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    log, ranges = _rows(work, job, part)
    encoded = Encoded(job.spec, {domain: {} for domain in (None, *job.spec.domains)})
    _encode(work, job, row_uses(job.spec, log, ranges.valid_start), encoded)
    infos = {}
    for name in SPLITS:
        tables = split_tables(name, log, ranges, encoded, first_row=job.facts["row_bases"][part])
        write_arrow(out / f"{name}-requests.arrow", tables.requests)
        write_arrow(out / f"{name}-impressions.arrow", tables.impressions)
        infos[name] = tables.info.model_dump(mode="json")
    write_arrow(out / "origin.arrow", log.origin.table(_root(job)))
    return {"splits": infos, "ages": log.counters, **_described(encoded)}


def encode_events(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Encode the events of one partition of the users: `<domain>.arrow`, a stretch of the event store."""
    job, part = Preparation.of(arguments["job"]), arguments["part"]
    encoded = Encoded(job.spec, {domain: {} for domain in (None, *job.spec.domains)})
    infos = {}
    for name in job.spec.domains:
        log = _events(work, job, part, name)
        _encode(work, job, event_uses(job.spec, name, log, job.facts["split"]["fit_before"]), encoded)
        table, info = event_table(name, log, encoded)
        write_arrow(out / f"{name}.arrow", table, batch_rows=None)
        infos[name] = info.model_dump(mode="json")
        encoded.columns[name].clear()
    return {"domains": infos, **_described(encoded)}


def _rows(work: Path, job: Preparation, part: int) -> tuple[Log, SplitRanges]:
    """The rows of a range with all that is computed and was counted, and which belong to which split."""
    counters: dict[str, int] = {}
    frame = load_rows(work, job, part, levels=len(levels_of(job.spec)))
    frame = with_crosses(with_ages(frame, job.spec.ages, counters), job.spec.crosses)
    for name, page in job.spec.pages.items():
        frame = frame.hstack(page_columns(frame, name, page, position=job.spec.impressions.position))
    base, split = job.facts["row_bases"][part], job.facts["split"]
    before = pl.lit(True) if split["fit_before"] is None else pl.col(FIRST) < split["fit_before"]
    frame = with_weights(work, job, frame).with_columns(
        pl.col("__request") + job.facts["request_bases"][part],
        ((pl.col(FIRST) < pl.col(CLOCK)) & before).alias(KNOWN_USER),
    )
    valid, test = (min(max(split[s] - base, 0), frame.height) for s in ("valid_start", "test_start"))
    log = replace(_log(job, frame, {}), origin=_origin(work, job, part), counters=counters)
    return log, SplitRanges(valid, test, frame.height, split["fit_before"])


def _root(job: Preparation) -> Path:
    """What the files of the log are named from."""
    return table_root(job.raw_spec.source, job.spec.impressions.table, job.base)


def _origin(work: Path, job: Preparation, part: int) -> Origin:
    files = [(row, name) for row, name in job.facts["files"]]
    return Origin.of(read_frame(work / "rows" / f"{part:05}" / "origin.arrow"), files)


def _events(work: Path, job: Preparation, part: int, name: str) -> Log:
    """The events of one domain in a partition of the users."""
    frame = read_frame(work / "users" / f"{part:05}" / f"events-{name}.arrow")
    frame = frame.with_columns(pl.col("__user") + job.facts["bases"][part]["users"])
    return _log(job, pl.DataFrame(), {name: item_columns(work, job.spec, frame, domain=name)})


def _log(job: Preparation, rows: pl.DataFrame, events: dict[str, pl.DataFrame]) -> Log:
    none, nowhere = pl.Series(dtype=pl.Int64), Origin(np.empty(0, dtype=np.int64), None, [])
    return Log(rows, events, none, none, nowhere, job.ticks(), {})


def _encode(work: Path, job: Preparation, uses: list[Use], encoded: Encoded) -> None:
    """Apply what was fitted to some uses."""
    fitted = job.facts["fitted"]
    for name, table in job.spec.tables.items():
        own = [u for u in uses if isinstance(u.feature, IdFeature) and u.feature.table == name]
        if own:
            as_text = fitted["types"].get(name) == "String"
            values = comparable([id_values_of(use) for use in own], table, own, as_text=as_text)
            look_up_table(name, fitted_table(work, table, fitted["tables"].get(name)), own, values, encoded)
    for use in uses:
        if isinstance(use.feature, DenseFeature):
            state = fitted["dense"][use.key]
            scale_dense(use, FittedDense({c: Scaler.of(s) for c, s in state}), encoded)
        elif not isinstance(use.feature, IdFeature):
            encode_other(use, encoded)


def _described(encoded: Encoded) -> dict[str, Any]:
    return {
        "described": {key: column.model_dump(mode="json") for key, column in encoded.described.items()},
        "implicit": {name: info.model_dump(mode="json") for name, info in encoded.implicit.items()},
        "counters": encoded.counters,
    }
