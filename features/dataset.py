"""A prepared data set on disk: its manifest, and how it is read without copying.

    DIR/
      manifest.json                what is below; counts, time ranges, hashes (written last)
      spec.yaml                    the resolved spec
      fitted/                      vocabularies (<table>.parquet), boundaries and scalers (scalers.json)
      state/                       what the next day goes on from, with --state (features/lineage/state.py)
      keys/                        users.parquet and items.parquet: the raw key of every dense code
      origin.arrow                 where the row of each row_id stood in the raw impressions table
      <split>/requests.arrow       one row per request, in time order
      <split>/impressions.arrow    one row per shown item; rows of a request are contiguous
      events/<domain>.arrow        events sorted by (user, clock), OLDEST FIRST; one record batch

origin.arrow: log_row (number in the table, from 0, its files one after the other), log_file (path from the
source's path on) and, of text files, log_line (from 1); row i is that of row_id i. The digest leaves it out.
A domain whose events came as lists has no times: `time` is null.
requests.arrow: request_id, user_id (dense codes), time (s), clock, num_rows, known_user, start.<domain>,
end.<domain> (pointers into the event store: the events strictly before the request, at most the last
max_len), request-level features.
impressions.arrow: row_id, label, item_id (dense code), candidate-level features, slice.<name>; with several
labels, or one that is not known in every row, `target.<task>` (null where it is not known), and
`target_weight.<task>` of tasks with weights; `keep_rate` where rows bring the rate of their sampling.
Feature columns: `id.<feature>` of the smallest of uint8, uint16 and int32 that holds its table's rows, or
large_list of it when several values; `weight.<feature>` large_list<float32>; `dense.<feature>`
fixed_size_list<float32>[dim]. Event columns: user_id, time, clock and the same three prefixes for side info;
`known.<field>` is the clock at which a field is known, where that is later: a request of a smaller or equal
clock sees it as missing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.names import under
from features.remote.url import remote
from features.store.columns import Column, IdValues, dense_values, flat, id_values, read_arrow
from features.store.manifest import (
    MANIFEST,
    ORIGIN,
    SPLITS,
    DomainInfo,
    Manifest,
    SplitInfo,
    TableInfo,
    read_manifest,
    sha256_of,
)
from features.store.remote_dataset import dataset_copy
from features.store.tasks import (
    KEEP_RATE,
    TARGET,
    TARGET_WEIGHT,
    TargetScale,
    TaskInfo,
    chain_of,
    is_plain,
)
from features.store.verify import verify_files

__all__ = [
    "KEEP_RATE",
    "MANIFEST",
    "ORIGIN",
    "SPLITS",
    "TARGET",
    "TARGET_WEIGHT",
    "Column",
    "Dataset",
    "DomainInfo",
    "EventStore",
    "IdValues",
    "Manifest",
    "SplitData",
    "SplitInfo",
    "TableInfo",
    "TargetScale",
    "TaskInfo",
    "chain_of",
    "dense_values",
    "id_values",
    "is_plain",
    "read_arrow",
    "read_manifest",
    "sha256_of",
]


UNKNOWN_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class EventStore:
    """All events of a domain, sorted by (user, clock); zero-copy views of the memory-mapped file."""

    info: DomainInfo
    time: np.ndarray  # int64 seconds; UNKNOWN_TIME throughout where events have no times
    clock: np.ndarray  # int64
    user_id: np.ndarray  # int64
    ids: dict[str, IdValues]
    dense: dict[str, np.ndarray]  # float32 (events, dim)
    known: dict[str, np.ndarray] = field(default_factory=dict)  # int64 clocks of fields known later


@dataclass(frozen=True)
class SplitData:
    """Requests and impressions of one split as memory-mapped Arrow tables."""

    info: SplitInfo
    requests: pa.Table
    impressions: pa.Table

    @cached_property
    def row_offsets(self) -> np.ndarray:
        """int64 (requests + 1,): the rows of request i are row_offsets[i] … row_offsets[i + 1] − 1."""
        counts = self.requests["num_rows"].to_numpy()
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


class Dataset:
    """A verified, opened dataset directory.

    Args:
        root: the directory that `ctr prepare` wrote, here or in an object store (fetched once).
        verify: compare every file with its hash (`features.store.verify`: once per process, and once for all
            of them as long as nobody writes to the files); False where another process has done it.

    Raises:
        DataError: not a dataset, another format, a file missing or changed.
    """

    def __init__(self, root: Path | str, *, verify: bool = True) -> None:
        place = remote(root)
        self.root = Path(root) if place is None else dataset_copy(place)
        self.place = str(place or root)
        self.manifest = read_manifest(self.root)
        for name in self.manifest.every_file():
            path = under(self.root, *name.split("/"))
            if not path.is_file():
                raise DataError(f"{path} is listed in the manifest but missing; run ctr prepare again")
        if verify:
            verify_files(self.root, self.manifest.every_file(), digest=self.manifest.digest())

    # Of a view that `read_as` made: ID table → int32 (rows,), the row that stands for each row of the files.
    row_maps: Mapping[str, np.ndarray] = MappingProxyType({})

    def descends_from(self, digest: str) -> bool:
        """Whether it was prepared after the data set of that digest, or after one that was.

        Then the first values of its vocabularies are those of that data set, but for retired ones, and its
        scales are the same.
        """
        lineage = self.manifest.lineage
        return lineage is not None and digest in lineage.ancestors

    def read_as(self, tables: Mapping[str, TableInfo], row_maps: Mapping[str, np.ndarray]) -> Dataset:
        """The same files for a model whose tables number other values: whoever reads IDs maps them.

        Args:
            tables: the model's, by name; those that are the same may be left out.
            row_maps: table → row of the model for each row of the files, int32.
        """
        view = copy.copy(self)
        view.manifest = self.manifest.model_copy(update={"tables": {**self.manifest.tables, **tables}})
        view.row_maps = dict(row_maps)
        return view

    def without(self, patterns: Sequence[str]) -> Dataset:
        """The same files read through `Manifest.without`."""
        return self.seen_as(self.manifest.without(patterns))

    def seen_as(self, manifest: Manifest) -> Dataset:
        """The same files read through a narrower manifest: fewer features, fields of events or tasks."""
        view = copy.copy(self)
        view.manifest = manifest
        return view

    def split(self, name: str) -> SplitData:
        """The requests and impressions of `train`, `valid` or `test`."""
        if name not in self.manifest.splits:
            raise DataError(f"split must be one of {sorted(self.manifest.splits)}, got {name!r}")
        folder = under(self.root, name)
        return SplitData(
            self.manifest.splits[name],
            read_arrow(folder / "requests.arrow"),
            read_arrow(folder / "impressions.arrow"),
        )

    def keys(self, what: Literal["users", "items"]) -> pa.Array | None:
        """The raw key of every code, as it was read, integers or text; None where the directory has none."""
        path = under(self.root, "keys", f"{what}.parquet")
        if not path.is_file():
            return None
        return pq.read_table(path, columns=["code", "key"]).sort_by("code")["key"].combine_chunks()

    def origin(self) -> pa.Table | None:
        """Where rows stood in the log, row i that of row_id i, memory-mapped; None where it was not kept."""
        return read_arrow(self.root / ORIGIN) if ORIGIN in self.manifest.origin else None

    def events(self, domain: str) -> EventStore:
        """The event store of one domain."""
        info = self.manifest.domains[domain]
        table = read_arrow(under(self.root, "events", f"{domain}.arrow"))
        ids = {c.name: id_values(table, c) for c in info.side if c.kind != "dense"}
        dense = {c.name: dense_values(table, c) for c in info.side if c.kind == "dense"}
        clock, user_id = (flat(table[name]).to_numpy() for name in ("clock", "user_id"))
        time = flat(table["time"]).to_numpy() if info.timed else np.full(len(clock), UNKNOWN_TIME)
        known = {c.name: flat(table[f"known.{c.name}"]).to_numpy() for c in info.side if c.known_later}
        return EventStore(info, time, clock, user_id, ids, dense, known)
