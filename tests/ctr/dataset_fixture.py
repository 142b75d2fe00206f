"""A small data set on disk, written as features/dataset.py describes it, without `ctr prepare`.

It has everything a loader can meet: request-, candidate- and event-level features, lists with and without
weights, empty lists, dense features, two domains that share a table with the candidate, users without events,
events after a request (not in its history), requests of several rows, and several record batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from features.dataset import (
    MANIFEST,
    Column,
    DomainInfo,
    Manifest,
    SplitInfo,
    TableInfo,
    sha256_of,
)

TABLES = {"user": 60, "item": 200, "brand": 30, "tag": 40}
FEATURES = [
    Column(name="user", level="request", kind="id", table="user"),
    Column(name="interests", level="request", kind="ids", table="tag", weighted=True),
    Column(name="age", level="request", kind="dense", dim=2, fields=["age", "age_missing"]),
    Column(name="item", level="candidate", kind="id", table="item"),
    Column(name="tags", level="candidate", kind="ids", table="tag"),
    Column(name="price", level="candidate", kind="dense", dim=1, fields=["price"]),
]
SIDE = {
    "view": [
        Column(name="item", level="event", kind="id", table="item"),
        Column(name="brand", level="event", kind="id", table="brand"),
        Column(name="tags", level="event", kind="ids", table="tag", weighted=True),
        Column(name="dwell", level="event", kind="dense", dim=3, fields=["a", "b", "c"]),
    ],
    "buy": [Column(name="item", level="event", kind="id", table="item")],
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    users: int = 25
    requests: int = 120  # per split
    rows: int = 4  # at most, per request
    events: int = 15  # per user on average, in `view`; a third of it in `buy`
    max_len: int = 10
    record_batch: int = 37
    time_unit: int = 100  # seconds between events of a user, at most


def write_dataset(root: Path, sizes: Sizes = Sizes(), *, seed: int = 0, domains: bool = True) -> Path:
    """Write the data set and return its root."""
    random = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    stores = {
        domain: _write_events(root, domain, sizes, random, sizes.events // (1 if domain == "view" else 3))
        for domain in (SIDE if domains else {})
    }
    splits = {
        name: _write_split(root, name, sizes, random, stores, first=i)
        for i, name in enumerate(("train", "valid", "test"))
    }
    infos = {
        domain: DomainInfo(events=len(time), max_len=sizes.max_len, side=SIDE[domain], time_range=None)
        for domain, (_, time) in stores.items()
    }
    write_manifest(root, domains=infos, splits=splits)
    return root


def write_manifest(
    root: Path, *, domains: dict[str, DomainInfo], splits: dict[str, SplitInfo], **changes: Any
) -> None:
    """Write the manifest of whatever Arrow files are below `root`."""
    files = {str(path.relative_to(root)): sha256_of(path) for path in sorted(root.rglob("*.arrow"))}
    content = {
        "name": "fixture",
        "spec_sha256": "0" * 64,
        "users": 100,
        "items": 100,
        "features": FEATURES,
        "tables": {name: TableInfo(rows=rows, encode="vocabulary") for name, rows in TABLES.items()},
        "domains": domains,
        "tokens": {"all": [c.name for c in FEATURES]},
        "slices": [],
        "splits": splits,
        "files": files,
    }
    (root / MANIFEST).write_text(Manifest(**{**content, **changes}).model_dump_json())


def _write_events(
    root: Path, domain: str, sizes: Sizes, random: np.random.Generator, per_user: int
) -> tuple[np.ndarray, np.ndarray]:
    """Events by (user, time); user 0 has none. Returns their users and times."""
    counts = random.poisson(per_user, sizes.users) + 1
    counts[0] = 0
    user = np.repeat(np.arange(sizes.users), counts)
    time = np.concatenate([np.sort(random.integers(0, sizes.time_unit * per_user, n)) for n in counts])
    columns = {"user_id": user, "time": time, "clock": time} | _feature_columns(
        SIDE[domain], len(user), random
    )
    write_table(root / "events" / f"{domain}.arrow", columns, record_batch=None)
    return user, time


def _write_split(
    root: Path,
    name: str,
    sizes: Sizes,
    random: np.random.Generator,
    stores: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    first: int,
) -> SplitInfo:
    count = sizes.requests
    span = sizes.time_unit * sizes.events
    time = np.sort(random.integers(0, span, count)) + first * span // 3
    user = random.integers(0, sizes.users, count)
    rows = random.integers(1, sizes.rows + 1, count)
    request_id = first * count + np.arange(count)
    requests = {"request_id": request_id, "user_id": user, "time": time, "clock": time, "num_rows": rows}
    requests["known_user"] = user % 2 == 0
    for domain, (event_user, event_time) in stores.items():
        for i, side in enumerate(_pointers(user, time, event_user, event_time, sizes.max_len)):
            requests[("start.", "end.")[i] + domain] = side
    shown = int(rows.sum())
    impressions: dict[str, Any] = {
        "row_id": first * 1_000_000 + np.arange(shown),
        "label": random.integers(0, 2, shown).astype(np.float32),
        "item_id": random.integers(0, 100, shown),
    }
    levels = {level: [c for c in FEATURES if c.level == level] for level in ("request", "candidate")}
    requests |= _feature_columns(levels["request"], count, random)
    impressions |= _feature_columns(levels["candidate"], shown, random)
    write_table(root / name / "requests.arrow", requests, record_batch=sizes.record_batch)
    write_table(root / name / "impressions.arrow", impressions, record_batch=sizes.record_batch)
    positives = int(impressions["label"].sum())
    return SplitInfo(
        requests=count, impressions=shown, positives=positives, time_range=None, clock_range=None
    )


def _pointers(
    user: np.ndarray, time: np.ndarray, event_user: np.ndarray, event_time: np.ndarray, max_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the events strictly before each request, at most max_len."""
    key = event_user.astype(np.int64) << 32 | event_time
    end = np.searchsorted(key, user << 32 | time, side="left")
    first = np.searchsorted(key, user << 32, side="left")
    return np.maximum(first, end - max_len), end


def _feature_columns(features: list[Column], count: int, random: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for feature in features:
        if feature.kind == "dense":
            values = pa.array(random.normal(size=count * feature.dim).astype(np.float32))
            columns[f"dense.{feature.name}"] = pa.FixedSizeListArray.from_arrays(values, feature.dim)
            continue
        assert feature.table is not None
        lengths = np.ones(count, np.int64) if feature.kind == "id" else random.integers(0, 4, count)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = random.integers(0, TABLES[feature.table], offsets[-1]).astype(np.int32)
        if feature.kind == "id":
            columns[f"id.{feature.name}"] = ids
            continue
        columns[f"id.{feature.name}"] = pa.LargeListArray.from_arrays(offsets, ids)
        if feature.weighted:
            weights = random.random(len(ids)).astype(np.float32)
            columns[f"weight.{feature.name}"] = pa.LargeListArray.from_arrays(offsets, weights)
    return columns


def write_table(path: Path, columns: dict[str, Any], *, record_batch: int | None) -> None:
    """Write columns as an Arrow file of record batches of that many rows (None: one)."""
    table = pa.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=record_batch)
