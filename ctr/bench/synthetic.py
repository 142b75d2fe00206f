"""A data set on disk in a given shape, so that the real loader makes the batches; format: features/dataset.

Every request has a user and a history of its own. Labels follow no feature: what is measured is time, not
quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from ctr.bench.shape import DomainShape, Shape
from features.dataset import MANIFEST, Column, Dataset, DomainInfo, Manifest, SplitInfo, TableInfo, sha256_of

START = 1_000_000_000  # seconds; requests are a minute apart, events before them
POSITIVE = 0.2  # share of clicks


def write_dataset(root: Path, shape: Shape, *, seed: int = 1) -> Dataset:
    """Write a training split of `shape` below an empty directory, and open it."""
    random = np.random.default_rng(seed)
    time = START + 60 * np.arange(shape.requests)
    columns = {"request_id": np.arange(shape.requests), "user_id": np.arange(shape.requests)}
    columns |= {"time": time, "clock": time, "known_user": np.ones(shape.requests, dtype=bool)}
    columns["num_rows"] = np.full(shape.requests, shape.rows_per_request)
    for name, domain in shape.domains.items():
        ends = _write_events(root / "events" / f"{name}.arrow", name, domain, shape, time, random)
        columns |= {f"start.{name}": ends[:-1], f"end.{name}": ends[1:]}
    columns |= _values(request_columns(shape), shape, shape.requests, random)
    rows = shape.requests * shape.rows_per_request
    label = (random.random(rows) < POSITIVE).astype(np.float32)
    shown = {"row_id": np.arange(rows), "label": label, "item_id": random.integers(0, 1000, rows)}
    shown |= _values(candidate_columns(shape), shape, rows, random)
    _write(root / "train" / "requests.arrow", columns)
    _write(root / "train" / "impressions.arrow", shown)
    manifest = _manifest(root, shape, positives=int(label.sum()))
    (root / MANIFEST).write_text(manifest.model_dump_json())
    return Dataset(root)


def request_columns(shape: Shape) -> list[Column]:
    """Features of the user."""
    ids = [_id(f"user_{i}", "request") for i in range(len(shape.request_ids))]
    return ids + [
        Column(name=f"dense_{i}", level="request", kind="dense", dim=dim)
        for i, dim in enumerate(shape.request_dense)
    ]


def candidate_columns(shape: Shape) -> list[Column]:
    """Features of the item."""
    names = [f"item_{i}" for i in range(len(shape.candidate_ids))]
    return [_id(name, "candidate", shape.shared.get(name)) for name in names]


def side_columns(name: str, domain: DomainShape) -> list[Column]:
    """Side information of a domain."""
    return [_id(f"{name}_{i}", "event") for i in range(len(domain.tables))]


def token_groups(shape: Shape) -> dict[str, list[str]]:
    """All but two of the groups hold features of the user, side by side; the last two those of the item."""
    user, item = ([c.name for c in columns] for columns in (request_columns(shape), candidate_columns(shape)))
    groups = np.array_split(np.array(user), shape.tokens - 2) + np.array_split(np.array(item), 2)
    return {f"group_{i}": group.tolist() for i, group in enumerate(groups)}


def table_rows(shape: Shape) -> dict[str, int]:
    """Rows of every table; each column has one of its own, but for those that share an event's."""
    tables = {f"user_{i}": rows for i, rows in enumerate(shape.request_ids)}
    tables |= {
        f"item_{i}": rows for i, rows in enumerate(shape.candidate_ids) if f"item_{i}" not in shape.shared
    }
    for name, domain in shape.domains.items():
        tables |= {f"{name}_{i}": rows for i, rows in enumerate(domain.tables)}
    return tables


def _id(name: str, level: Any, table: str | None = None) -> Column:
    return Column(name=name, level=level, kind="id", table=table or name)


def _values(columns: list[Column], shape: Shape, count: int, random: np.random.Generator) -> dict[str, Any]:
    """Skewed IDs and normal numbers."""
    rows = table_rows(shape)
    values: dict[str, Any] = {}
    for column in columns:
        if column.table is not None:
            drawn = random.random(count, dtype=np.float32) ** shape.skew
            values[f"id.{column.name}"] = (drawn * (rows[column.table] - 1)).astype(np.int32)
        else:
            flat = random.standard_normal(count * column.dim, dtype=np.float32)
            values[f"dense.{column.name}"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), column.dim)
    return values


def _write_events(
    path: Path, name: str, domain: DomainShape, shape: Shape, time: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Write the events of all requests, oldest first; returns where each request's begin, and the end."""
    shortest = max(0, round(domain.length * (2 * shape.fill - 1)))
    lengths = random.integers(shortest, domain.length + 1, shape.requests)
    if shape.fill < 1:
        lengths[0] = domain.length  # so that the longest is met whatever was drawn
    ends = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(shape.requests), lengths)
    before = 90 * (ends[owner + 1] - np.arange(ends[-1]))
    columns = {"user_id": owner, "time": time[owner] - before, "clock": time[owner] - before}
    _write(path, columns | _values(side_columns(name, domain), shape, len(owner), random))
    return ends


def _write(path: Path, columns: dict[str, Any]) -> None:
    table = pa.table(columns).combine_chunks()
    path.parent.mkdir(parents=True, exist_ok=True)
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _manifest(root: Path, shape: Shape, *, positives: int) -> Manifest:
    split = SplitInfo(
        requests=shape.requests,
        impressions=shape.requests * shape.rows_per_request,
        positives=positives,
        time_range=None,
        clock_range=None,
    )
    domains = {
        name: DomainInfo(events=0, max_len=domain.length, side=side_columns(name, domain), time_range=None)
        for name, domain in shape.domains.items()
    }
    return Manifest(
        name="synthetic",
        spec_sha256="0" * 64,
        users=shape.requests,
        items=1000,
        features=request_columns(shape) + candidate_columns(shape),
        tables={name: TableInfo(rows=rows, encode="vocabulary") for name, rows in table_rows(shape).items()},
        domains=domains,
        tokens=token_groups(shape),
        slices=[],
        splits={"train": split},
        files={str(p.relative_to(root)): sha256_of(p) for p in sorted(root.rglob("*.arrow"))},
    )
