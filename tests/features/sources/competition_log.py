"""A tiny competition-format log: users, events, sessions, lists of either order and with caps, some files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.spec import parse_spec

SCHEMA: dict[str, Any] = {
    "user_int": [[1, 5, 1], [15, 9, 3]],
    "item_int": [[83, 6, 1]],
    "user_dense": [[61, 2]],
    "seq": {
        "seq_a": {"prefix": "domain_a_seq", "ts_fid": 39, "features": [[39, 1000], [40, 6], [41, 300]]},
        "seq_b": {"prefix": "domain_b_seq", "ts_fid": 67, "features": [[67, 1000], [75, 6]]},
    },
}
SPEC: dict[str, Any] = {
    "name": "competition",
    "source": {"kind": "competition", "options": {"order": "newest_first"}},
    "time_unit": "s",
    "time_range": "any",  # its rows begin at 0
    "impressions": {
        "table": "impressions",
        "user": "user_id",
        "item": "item_id",
        "time": "timestamp",
        "label": {"column": "label_type", "equals": 2},
        "context": ["user_int_feats_1", "user_int_feats_15", "user_dense_feats_61"],
        "dedup": "allow",
    },
    "tables": {"coarse": {}, "kind": {}, "tags": {}, "shop": {}},
    "features": {
        "kind": {"column": "user_int_feats_1", "table": "kind"},
        "tags": {"column": "user_int_feats_15", "table": "tags"},
        "scores": {"columns": ["user_dense_feats_61"]},
        "coarse": {"column": "item_int_feats_83", "table": "coarse"},
    },
    "domains": {
        "seq_a": {
            "table": "seq_a",
            "user": "user_id",
            "time": "domain_a_seq_39",
            "side": {
                "coarse": {"column": "domain_a_seq_40", "table": "coarse"},
                "shop": {"column": "domain_a_seq_41", "table": "shop"},
            },
        },
        "seq_b": {
            "table": "seq_b",
            "user": "user_id",
            "time": "domain_b_seq_67",
            "side": {"coarse": {"column": "domain_b_seq_75", "table": "coarse"}},
        },
    },
    "tokens": {"user": ["kind", "tags", "scores"], "item": ["coarse"]},
    "split": {"valid": 0.2, "test": 0.2},
}
COLUMNS = {
    "impressions": ["user_id", "timestamp"],
    "seq_a": ["domain_a_seq_39", "domain_a_seq_40", "domain_a_seq_41"],
    "seq_b": ["domain_b_seq_67", "domain_b_seq_75"],
}
NEEDED = {table: dict.fromkeys(columns, "the test") for table, columns in COLUMNS.items()}


@dataclass
class Rows:
    """Rows as columns of Python values, changed by the tests before they are written."""

    columns: dict[str, list[Any]] = field(default_factory=dict)

    def write(self, root: Path, *, files: int = 2, schema: dict[str, Any] = SCHEMA) -> Path:
        """Write the rows into `root` as several Parquet files with a schema.json."""
        root.mkdir(parents=True, exist_ok=True)
        (root / "schema.json").write_text(json.dumps(schema))
        table = pa.table({n: pa.array(v, type=_type(n)) for n, v in self.columns.items()})
        step = -(-max(table.num_rows, 1) // files)
        for i in range(files):
            pq.write_table(table.slice(i * step, step), root / f"part-{i}.parquet", row_group_size=3)
        return root


def make_rows(
    seed: int, *, newest_first: bool = True, cap: dict[str, int] | None = None, span: int = 60, users: int = 4
) -> Rows:
    """Random rows in time order; `span` seconds: the smaller, the more events share one."""
    random = np.random.default_rng(seed)
    events = {d: [_events(random, c, span) for _ in range(users)] for d, c in SCHEMA["seq"].items()}
    asked = []
    for user in range(users):
        for time in random.integers(0, span, random.integers(1, 4)):
            asked += [(int(time), user)] * int(random.integers(1, 4))
    asked.sort()
    columns: dict[str, list[Any]] = {"user_id": [100 + 7 * u for _, u in asked], "timestamp": []}
    columns["timestamp"] = [t for t, _ in asked]
    columns["item_id"] = random.integers(0, 50, len(asked)).tolist()
    columns["label_type"] = random.integers(1, 3, len(asked)).tolist()
    columns["user_int_feats_1"] = [1 + u for _, u in asked]
    columns["user_int_feats_15"] = [[1, 2, 3][: u % 4] or None for _, u in asked]
    columns["user_dense_feats_61"] = [[0.5 * u, -1.0][: 1 + u % 2] for _, u in asked]
    columns["item_int_feats_83"] = random.integers(1, 6, len(asked)).tolist()
    for domain, config in SCHEMA["seq"].items():
        names = [f"{config['prefix']}_{fid}" for fid, _ in config["features"]]
        given = [_given(events[domain][u], t, newest_first, (cap or {}).get(domain)) for t, u in asked]
        for j, name in enumerate(names):
            columns[name] = [[event[j] for event in events_of] for events_of in given]
    return Rows(columns)


def make_spec(root: Path, *, order: str = "newest_first", cap: dict[str, int] | None = None) -> Any:
    """The spec of a log in `root`."""
    options = {"order": order, **({"cap": cap} if cap else {})}
    return parse_spec({**SPEC, "source": {"kind": "competition", "path": str(root), "options": options}})


def _events(random: np.random.Generator, config: dict[str, Any], span: int) -> list[tuple[int, ...]]:
    """The events of one user, oldest first: seconds, then a value for every other column."""
    count = int(random.integers(0, 12))
    times = np.sort(random.integers(0, span, count)).tolist()
    return [(t, *(int(random.integers(0, size)) for _, size in config["features"][1:])) for t in times]


def _given(
    events: list[tuple[int, ...]], time: int, newest_first: bool, cap: int | None
) -> list[tuple[int, ...]]:
    before = [e for e in events if e[0] < time]
    before = before[max(len(before) - cap, 0) :] if cap is not None else before
    return before[::-1] if newest_first else before


def _type(name: str) -> pa.DataType:
    if "_seq_" in name or name == "user_int_feats_15":
        return pa.list_(pa.int64())
    return pa.list_(pa.float32()) if "dense" in name else pa.int64()
