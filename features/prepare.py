"""`ctr prepare`: from a spec to a written dataset directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features.clock import CLOCK, TIME
from features.columns import expand_patterns, needed_columns
from features.counters import counter_columns
from features.dataset import SPLITS, DomainInfo, Manifest, SplitInfo
from features.encode import Vocabulary
from features.history import pointers
from features.log import Log, read_log
from features.matches import match_columns
from features.pages import page_columns
from features.safe_yaml import dump_yaml
from features.scan import open_tables
from features.spec import Spec
from features.split import Parts, split_rows
from features.transform import Encoded, encode_log
from features.write import hash_files, new_directory, write_arrow, write_json, write_manifest, write_parquet

Progress = Callable[[str], None]


def prepare(
    spec: Spec, out: Path, *, base: Path, overwrite: bool = False, progress: Progress | None = None
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
    with new_directory(out, overwrite=overwrite) as root:
        tell("reading the raw tables")
        tables = open_tables(spec.source, base=base, needed=needed_columns(spec))
        full = expand_patterns(spec, {n: _column_names(t) for n, t in tables.items()})
        log = read_log(full, tables)
        tell("counting")
        add_computed(full, log)
        tell("encoding")
        parts = split_rows(log.rows[CLOCK].to_numpy(), log.rows[TIME].to_numpy(), spec.split)
        encoded = encode_log(full, log, parts)
        tell("writing")
        splits = {name: _write_split(root, name, full, log, parts, encoded) for name in SPLITS}
        domains = {name: _write_events(root, name, full, log, encoded) for name in spec.domains}
        _write_fitted(root, log, encoded)
        (root / "spec.yaml").write_text(dump_yaml(spec.model_dump(mode="json")))
        manifest = Manifest(
            name=spec.name,
            spec_sha256=spec.digest(),
            users=len(log.users),
            items=len(log.items),
            features=encoded.described[None],
            tables=encoded.table_infos,
            domains=domains,
            tokens=spec.tokens,
            slices=list(spec.slices),
            splits=splits,
            counters=log.counters | encoded.counters,
            files=hash_files(root),
        )
        write_manifest(root, manifest)
    return manifest


def _column_names(table: pl.LazyFrame) -> list[str]:
    return [c for c in table.collect_schema().names() if not c.startswith("__")]


def add_computed(spec: Spec, log: Log) -> None:
    """Add the columns of counters, matches and pages to the rows."""
    for name, counter in spec.counters.items():
        log.rows = log.rows.hstack(counter_columns(log.rows, name, counter))
    for name, match in spec.matches.items():
        log.rows = log.rows.hstack(match_columns(log.rows, log.events[match.domain], name, match))
    for name, page in spec.pages.items():
        log.rows = log.rows.hstack(page_columns(log.rows, name, page, position=spec.impressions.position))


def _write_split(root: Path, name: str, spec: Spec, log: Log, parts: Parts, encoded: Encoded) -> SplitInfo:
    """Write requests.arrow and impressions.arrow of one part."""
    low, high = parts.range(name)
    rows = log.rows.slice(low, high - low)
    first = _first_rows(rows["__request"].to_numpy())
    requests = _request_keys(rows, first, log, parts)
    for domain, info in spec.domains.items():
        events = log.events[domain]
        requests[f"start.{domain}"], requests[f"end.{domain}"] = pointers(
            events["__user"].to_numpy(),
            events[CLOCK].to_numpy(),
            at_user=requests["user_id"],
            at_clock=requests["clock"],
            max_len=info.max_len,
        )
    impressions = {
        "row_id": np.arange(low, high),
        "label": rows["__label"].to_numpy(),
        "item_id": rows["__item"].to_numpy(),
    }
    impressions |= {f"slice.{n}": _slice_column(rows[c]) for n, c in spec.slices.items()}
    taken = pa.array(low + first)
    candidate = {n: c.slice(low, high - low) for n, c in _level(encoded, "candidate").items()}
    request = {n: c.take(taken) for n, c in _level(encoded, "request").items()}
    write_arrow(root / name / "requests.arrow", pa.table({**requests, **request}))
    write_arrow(root / name / "impressions.arrow", pa.table({**impressions, **candidate}))
    return SplitInfo(
        requests=len(first),
        impressions=rows.height,
        positives=int(rows["__label"].sum()),
        time_range=_range(rows[TIME]),
        clock_range=_range(rows[CLOCK]),
    )


def _write_events(root: Path, name: str, spec: Spec, log: Log, encoded: Encoded) -> DomainInfo:
    """Write the event store of one domain, as one record batch."""
    events = log.events[name]
    columns = {"user_id": "__user", "time": TIME, "clock": CLOCK}
    keys = {column: events[source].to_numpy() for column, source in columns.items()}
    write_arrow(
        root / "events" / f"{name}.arrow", pa.table({**keys, **encoded.columns[name]}), batch_rows=None
    )
    return DomainInfo(
        events=events.height,
        max_len=spec.domains[name].max_len,
        side=encoded.described[name],
        time_range=_range(events[TIME]),
    )


def _write_fitted(root: Path, log: Log, encoded: Encoded) -> None:
    """Write vocabularies, boundaries and scalers, and the raw keys of the user and item codes."""
    for name, table in encoded.tables.items():
        if isinstance(table, Vocabulary):
            ids = np.arange(1 + table.oov_rows, table.info.rows, dtype=np.int32)
            book = {"value": table.values.to_arrow(), "id": ids, "count": table.counts.to_arrow()}
            write_parquet(root / "fitted" / f"{name}.parquet", pa.table(book))
    write_json(root / "fitted" / "scalers.json", encoded.fitted)
    for name, keys in (("users", log.users), ("items", log.items)):
        book = {"code": np.arange(len(keys)), "key": keys.to_arrow()}
        write_parquet(root / "keys" / f"{name}.parquet", pa.table(book))


def _first_rows(request: np.ndarray) -> np.ndarray:
    """The position of each request's first row."""
    return np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]])[: len(request)])


def _request_keys(rows: pl.DataFrame, first: np.ndarray, log: Log, parts: Parts) -> dict[str, np.ndarray]:
    """The key columns of the requests whose first rows are given."""
    head = rows[first]
    train = log.rows.slice(0, parts.valid_start)
    seen = train.group_by("__user").agg(pl.col(CLOCK).min().alias("first"))
    known = head.join(seen, on="__user", how="left", maintain_order="left")["first"] < head[CLOCK]
    columns = {"request_id": "__request", "user_id": "__user", "time": TIME, "clock": CLOCK}
    return {column: head[source].to_numpy() for column, source in columns.items()} | {
        "num_rows": np.diff(first, append=rows.height).astype(np.int64),
        "known_user": known.fill_null(False).to_numpy(),
    }


def _level(encoded: Encoded, level: str) -> dict[str, pa.Array]:
    """The encoded columns of one level, in the order of the spec."""
    every = encoded.columns[None]
    names = [c.name for c in encoded.described[None] if c.level == level]
    return {
        f"{p}.{n}": every[f"{p}.{n}"] for n in names for p in ("id", "weight", "dense") if f"{p}.{n}" in every
    }


def _slice_column(values: pl.Series) -> pa.Array:
    return values.cast(pl.String).fill_null("missing").to_arrow().cast(pa.string())


def _range(values: pl.Series) -> tuple[int, int] | None:
    return (int(values.min()), int(values.max())) if len(values) else None  # type: ignore[arg-type]
