"""`ctr prepare`: from a spec to a written dataset directory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.dataset import ORIGIN, SPLITS, DomainInfo, Manifest, SplitInfo
from features.encode.encoded import Encoded
from features.encode.fitted import write_fitted
from features.encode.late import with_late_weights
from features.encode.layout import event_table, split_tables
from features.encode.published import compare_published
from features.encode.split import SplitRanges, split_rows
from features.encode.stages import encode_log
from features.encode.targets import fitted_tasks
from features.lineage.going_on import FirstDay, NextDay, Standalone, one_part
from features.lineage.parent import Parent
from features.memory.limit import memory_limit
from features.memory.sizes import shown
from features.partitions.in_parts import in_parts
from features.partitions.run import Prepared
from features.partitions.sizes import PROCESS_BYTES, counts_of, disk_bytes, parts_for
from features.partitions.store import take
from features.partitions.tasks import OnProgress
from features.partitions.whole import why_whole
from features.partitions.workers import Resources
from features.read.check import check_types
from features.read.clock import CLOCK, TIME, time_bounds
from features.read.files import table_root
from features.read.log import Log, Tables
from features.read.needed import needed_columns
from features.read.problems import Problems
from features.read.scan import noting_left_out
from features.read.targets import sampling_of, task_infos
from features.remote.url import remote
from features.safe_yaml import dump_yaml
from features.sources import WITH_OPTIONS
from features.sources.of_spec import open_spec
from features.sources.on_disk import pinned_versions
from features.spec import Spec
from features.store.manifest import moved_on, versions_of
from features.store.remote_dataset import remote_versions, uploaded
from features.store.verify import remember_written
from features.store.write import hash_files, new_dataset, write_arrow, write_manifest, write_parquet


def prepare(
    spec: Spec,
    out: Path,
    *,
    base: Path,
    overwrite: bool = False,
    progress: OnProgress | None = None,
    resources: Resources | None = None,
    after: Path | None = None,
    keep_state: bool = False,
) -> Manifest:
    """Prepare a dataset directory; it appears complete or not at all.

    Args:
        spec: what to prepare.
        out: the directory to make, here or in an object store, to which it is uploaded when it is whole.
        base: what `spec.source.path` is relative to.
        overwrite: replace a dataset that is there.
        progress: told the name of each step as it begins.
        resources: what it may use; the data set does not depend on it.
        after: a data set that this one goes on from, prepared with its state: `source` is the new day.
        keep_state: write what a later `after` goes on from; implied by `after`.

    Raises:
        ConfigError: the spec does not fit the tables.
        DataError: the tables do not hold what the spec needs, or `out` is in the way.
    """
    tell = progress or (lambda step: None)
    going_on = NextDay(Parent(after, spec)) if after else FirstDay() if keep_state else Standalone()
    resources = resources or Resources()
    if (place := remote(out)) is None:
        old = versions_of(out)
        manifest = _prepare_here(spec, out, base, resources, going_on, tell, overwrite=overwrite, before=old)
        remember_written(out, manifest.every_file())
        return manifest
    old = remote_versions(place)
    with uploaded(place, overwrite=overwrite) as local:
        manifest = _prepare_here(spec, local, base, resources, going_on, tell, overwrite=True, before=old)
        tell(f"uploading to {place}")
    return manifest


def _prepare_here(
    spec: Spec,
    out: Path,
    base: Path,
    resources: Resources,
    going_on: Standalone,
    tell: OnProgress,
    *,
    overwrite: bool,
    before: dict[str, int],
) -> Manifest:
    """Prepare a directory of this machine; `before`: the versions of tables in the one it replaces."""
    with ExitStack() as work, new_dataset(out, overwrite=overwrite) as root:
        tell("reading the raw tables")
        counters: dict[str, int] = {}
        with noting_left_out() as left_out:
            full, tables = open_spec(spec, base, counters)
        for line in moved_on(before, pinned_versions(full.source)):
            tell(line)
        alone = type(going_on) is Standalone
        parts = _parts(full, tables, resources, tell) if alone else one_part(full, tables, resources)
        if parts == 1:
            manifest = _prepare_whole(root, spec, full, tables, counters, going_on, base=base, tell=tell)
        else:
            # What the tasks left goes when the directory has its name: a failure before it costs nothing.
            parted = in_parts(
                spec,
                full,
                tables,
                out,
                base=base,
                parts=parts,
                left_out=left_out,
                resources=resources,
                tell=tell,
            )
            prepared = work.enter_context(parted)
            for name, (path, _) in prepared.files.items():
                take(path, root / name)
            prepared.counters = counters | prepared.counters
            manifest = _finish(root, spec, full, prepared)
        compare_published(spec, manifest.splits, tell)
        return manifest


def _parts(full: Spec, tables: Tables, resources: Resources, tell: OnProgress) -> int:
    """How many partitions: one if all fits into the memory, or if the spec allows no more."""
    if resources == Resources() and not _tells_its_rows(full):
        return 1
    counts = counts_of(full, tables)
    # What is left is beside this process, which has started already; --memory counts it in.
    room = resources.memory or memory_limit().left + PROCESS_BYTES
    workers = resources.workers if resources.dask is None else 1
    parts = resources.partitions or parts_for(counts, room, workers=workers)
    if parts > 1 and (reason := why_whole(full)) is not None:
        tell(f"in one partition, all in memory: {reason}")
        return 1
    if parts > 1:
        tell(f"{parts} partitions; temporary files beside --out: up to {shown(disk_bytes(counts))}")
    return parts


def _prepare_whole(
    root: Path,
    spec: Spec,
    full: Spec,
    tables: Tables,
    counters: dict[str, int],
    going_on: Standalone,
    *,
    base: Path,
    tell: OnProgress,
) -> Manifest:
    """In memory, all at once."""
    log = going_on.read(full, tables)
    log.counters = counters | log.counters
    tell("counting and encoding")
    ranges = split_rows(log.rows[CLOCK].to_numpy(), log.rows[TIME].to_numpy(), spec.split)
    going_on.mark_known_users(log, ranges)
    log.rows = with_late_weights(log.rows, full.impressions, ranges.valid_start, log.scale)
    domains: dict[str, DomainInfo] = {}

    def write_domain(name: str, encoded: Encoded) -> None:
        domains[name] = _write_events(root, name, log, encoded)

    tasks = fitted_tasks(task_infos(full.impressions), log.rows.slice(0, ranges.valid_start))
    encoded = encode_log(
        full, log, ranges, finished=write_domain, fitting=going_on.fitting, count=going_on.count
    )
    tell("writing")
    splits = _write_splits(root, log, ranges, encoded)
    write_arrow(root / ORIGIN, log.origin.table(table_root(full.source, full.impressions.table, base)))
    going_on.write(root)
    keys = (log.users, log.items)
    prepared = Prepared({}, encoded, splits, domains, *keys, log.ticks, log.counters, going_on.lineage, tasks)
    return _finish(root, spec, full, prepared)


def _tells_its_rows(spec: Spec) -> bool:
    """Whether the files say how many rows they have: to count those of texts is to read them."""
    parquet = all(table.format != "csv" for table in spec.source.tables.values())
    return spec.source.kind in ("files", "simulator") and parquet


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


def _finish(root: Path, spec: Spec, full: Spec, prepared: Prepared) -> Manifest:
    """Write every other file, the manifest last."""
    encoded, known = prepared.encoded, {name: sha256 for name, (_, sha256) in prepared.files.items()}
    write_fitted(root, encoded.tables, encoded.fitted)
    _write_keys(root, prepared)
    (root / "spec.yaml").write_text(dump_yaml(spec.model_dump(mode="json")))
    files = hash_files(root, known)
    origin = {ORIGIN: files.pop(ORIGIN)}
    ticks = prepared.ticks
    manifest = Manifest(
        name=spec.name,
        spec_sha256=spec.digest(),
        users=len(prepared.users),
        items=len(prepared.items),
        tick=ticks[None] if len(set(ticks.values())) > 1 else None,
        features=encoded.features,
        tables=encoded.table_infos,
        domains={name: prepared.domains[name] for name in spec.domains},
        tokens=spec.tokens,
        tasks=prepared.tasks,
        sampling=sampling_of(spec.impressions),
        slices=list(spec.slices),
        splits=prepared.splits,
        counters=prepared.counters | encoded.counters,
        files=files,
        origin=origin,
        lineage=prepared.lineage,
        table_versions=pinned_versions(full.source),
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


def _write_keys(root: Path, prepared: Prepared) -> None:
    """Write the raw keys of the user and item codes."""
    for name, keys in (("users", prepared.users), ("items", prepared.items)):
        book = {"code": np.arange(len(keys)), "key": keys.to_arrow()}
        write_parquet(root / "keys" / f"{name}.parquet", pa.table(book))
