"""`ctr prepare`: from a spec to a written dataset directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.dataset import ORIGIN, SPLITS, DomainInfo, Manifest, SplitInfo
from features.encode.encoded import Encoded
from features.encode.fitted import write_fitted
from features.encode.layout import event_table, split_tables
from features.encode.split import SplitRanges, split_rows
from features.encode.stages import encode_log
from features.read.check import check_types
from features.read.clock import CLOCK, TIME, time_bounds
from features.read.explode import refuse_taken_names
from features.read.log import Log, read_log
from features.read.needed import expand_patterns, needed_columns
from features.read.problems import Problems
from features.read.roles import table_roles
from features.safe_yaml import dump_yaml
from features.sources import WITH_OPTIONS, open_tables
from features.spec import Spec
from features.store.write import hash_files, new_dataset, write_arrow, write_manifest, write_parquet

OnProgress = Callable[[str], None]


def prepare(
    spec: Spec, out: Path, *, base: Path, overwrite: bool = False, progress: OnProgress | None = None
) -> Manifest:
    """Prepare a dataset directory; it appears complete or not at all.

    Args:
        spec: what to prepare.
        out: the directory to make.
        base: what `spec.source.path` is relative to.
        overwrite: replace a dataset that is there.
        progress: told the name of each step as it begins.

    Raises:
        ConfigError: the spec does not fit the tables.
        DataError: the tables do not hold what the spec needs, or `out` is in the way.
    """
    tell = progress or (lambda step: None)
    with new_dataset(out, overwrite=overwrite) as root:
        tell("reading the raw tables")
        counters: dict[str, int] = {}
        full, tables = open_spec(spec, base, counters)
        log = read_log(full, tables)
        log.counters = counters | log.counters
        tell("counting and encoding")
        ranges = split_rows(log.rows[CLOCK].to_numpy(), log.rows[TIME].to_numpy(), spec.split)
        domains: dict[str, DomainInfo] = {}

        def write_domain(name: str, encoded: Encoded) -> None:
            domains[name] = _write_events(root, name, log, encoded)

        encoded = encode_log(full, log, ranges, finished=write_domain)
        tell("writing")
        return _write(root, spec, log, ranges, encoded, domains, base=base)


def check(spec: Spec, *, base: Path) -> None:
    """Find what is wrong with a spec and its files without reading more than their beginnings.

    Raises:
        ConfigError: the spec does not fit the tables.
        DataError: the tables do not hold what the spec needs; all that is found is told at once.
    """
    problems = Problems()
    with problems.collect():
        time_bounds(spec.time_range)
    with problems.collect():
        if all(isinstance(share, float) and share < 1 for share in (spec.split.valid, spec.split.test)):
            split_rows(np.arange(1000), np.arange(1000), spec.split)
    with problems.collect():
        unread = spec.source.kind in WITH_OPTIONS or not (base / spec.source.path).exists()
        if unread and spec.source.kind != "files":
            needed_columns(spec)  # a reader that reads everything at once, or nothing to be read
        else:
            check_types(*open_spec(spec, base, {}, dry=True))
    problems.raise_all()


def open_spec(
    spec: Spec, base: Path, counters: dict[str, int], *, dry: bool = False
) -> tuple[Spec, dict[str, pl.LazyFrame]]:
    """The spec without patterns, and its raw tables."""
    problems = Problems()
    needed = needed_columns(spec, problems)
    if not dry:
        problems.raise_all()
    tables: dict[str, pl.LazyFrame] = {}
    with problems.collect():  # the tables are asked too, so that all that is wrong is told at once
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


def _write(
    root: Path,
    spec: Spec,
    log: Log,
    ranges: SplitRanges,
    encoded: Encoded,
    domains: dict[str, DomainInfo],
    *,
    base: Path,
) -> Manifest:
    """Write every other file, the manifest last."""
    splits = _write_splits(root, log, ranges, encoded)
    write_fitted(root, encoded.tables, encoded.fitted)
    _write_keys(root, log)
    (root / "spec.yaml").write_text(dump_yaml(spec.model_dump(mode="json")))
    write_arrow(root / ORIGIN, log.origin.table(base / spec.source.path))
    files = hash_files(root)
    origin = {ORIGIN: files.pop(ORIGIN)}
    manifest = Manifest(
        name=spec.name,
        spec_sha256=spec.digest(),
        users=len(log.users),
        items=len(log.items),
        tick=log.ticks[None] if log.ticks_differ else None,
        features=encoded.features,
        tables=encoded.table_infos,
        domains={name: domains[name] for name in spec.domains},
        tokens=spec.tokens,
        slices=list(spec.slices),
        splits=splits,
        counters=log.counters | encoded.counters,
        files=files,
        origin=origin,
    )
    write_manifest(root, manifest)
    return manifest


def _write_splits(root: Path, log: Log, ranges: SplitRanges, encoded: Encoded) -> dict[str, SplitInfo]:
    infos = {}
    for name in SPLITS:
        part = split_tables(name, log, ranges, encoded)
        write_arrow(root / name / "requests.arrow", part.requests)
        write_arrow(root / name / "impressions.arrow", part.impressions)
        infos[name] = part.info
    return infos


def _write_events(root: Path, name: str, log: Log, encoded: Encoded) -> DomainInfo:
    """Write the event store of a domain, and let its columns go."""
    table, info = event_table(name, log, encoded)
    # One record batch: a history is then one slice, without a copy.
    write_arrow(root / "events" / f"{name}.arrow", table, batch_rows=None)
    encoded.columns[name].clear()
    return info


def _write_keys(root: Path, log: Log) -> None:
    """Write the raw keys of the user and item codes."""
    for name, keys in (("users", log.users), ("items", log.items)):
        book = {"code": np.arange(len(keys)), "key": keys.to_arrow()}
        write_parquet(root / "keys" / f"{name}.parquet", pa.table(book))
