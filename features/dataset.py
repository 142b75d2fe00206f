"""A prepared data set on disk: its manifest, and how it is read without copying.

    DIR/
      manifest.json                what is below; counts, time ranges, hashes (written last)
      spec.yaml                    the resolved spec
      fitted/                      vocabularies (<table>.parquet), boundaries and scalers (scalers.json)
      keys/                        users.parquet and items.parquet: the raw key of every dense code
      <split>/requests.arrow       one row per request, in time order
      <split>/impressions.arrow    one row per shown item; rows of a request are contiguous
      events/<domain>.arrow        events sorted by (user, clock), OLDEST FIRST; one record batch

requests.arrow: request_id, user_id (dense codes), time (s), clock, num_rows, known_user, start.<domain>,
end.<domain> (pointers into the event store: the events strictly before the request, at most the last
max_len), request-level features.
impressions.arrow: row_id, label, item_id (dense code), candidate-level features, slice.<name>.
Feature columns: `id.<feature>` of the smallest of uint8, uint16 and int32 that holds its table's rows, or
large_list of it when several values; `weight.<feature>` large_list<float32>; `dense.<feature>`
fixed_size_list<float32>[dim]. Event columns: user_id, time, clock and the same three prefixes for side info.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from features.errors import ConfigError, DataError
from features.names import under
from features.store.arrow import IdValues, dense_values, flat, id_values, read_arrow

FORMAT = 1
SPLITS = ("train", "valid", "test")
MANIFEST = "manifest.json"


class Plain(BaseModel):
    """Plain data of the manifest; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Plain):
    """One feature or one field of side info."""

    name: str
    level: Literal["request", "candidate", "event"]
    kind: Literal["id", "ids", "dense"]
    table: str | None = None  # id, ids: the embedding table
    weighted: bool = False  # ids: has a weight column
    dim: int = 1  # dense: width, including missing indicators
    fields: list[str] = []  # dense: name of each of the dim values


class TableInfo(Plain):
    """An ID space: `rows` counts row 0 (missing), the unknown rows and the values."""

    rows: int
    encode: str
    oov_rows: int = 1


class DomainInfo(Plain):
    """One event store."""

    events: int
    max_len: int
    side: list[Column]
    time_range: tuple[int, int] | None


class SplitInfo(Plain):
    """Counts of one split; times in seconds."""

    requests: int
    impressions: int
    positives: int
    time_range: tuple[int, int] | None
    clock_range: tuple[int, int] | None


class Manifest(Plain):
    """Everything a model needs to know of a data set before reading it."""

    format: Literal[1] = 1
    name: str
    spec_sha256: str
    order: Literal["oldest_first"] = "oldest_first"
    users: int
    items: int
    features: list[Column]
    tables: dict[str, TableInfo]
    domains: dict[str, DomainInfo]
    tokens: dict[str, list[str]]
    slices: list[str]
    splits: dict[str, SplitInfo]
    counters: dict[str, Any] = {}  # what was dropped, repaired or merged while preparing
    files: dict[str, str]  # relative path → sha256

    def digest(self) -> str:
        """sha256 over the manifest: identifies the data, since it holds the hash of every file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def column(self, name: str) -> Column:
        """The feature of that name."""
        return next(c for c in self.features if c.name == name)

    def without(self, patterns: Sequence[str]) -> Manifest:
        """A view with fewer features: the files stay as they are, what is dropped is not read.

        Args:
            patterns: names, with * and ? for any characters: `feature`, `domain` (a whole sequence) or
                `domain.side` (one field of its events).

        Raises:
            ConfigError: a pattern that names nothing.
        """
        sides = {f"{d}.{c.name}" for d, info in self.domains.items() for c in info.side}
        names = [c.name for c in self.features] + [*self.domains, *sides]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ConfigError(
                    f"drop must name features, domains or domain.side fields of data set {self.name!r}, "
                    f"got {pattern!r}; it has {', '.join(sorted(names)[:30])} …"
                )
        gone = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
        features = [c for c in self.features if c.name not in gone]
        domains = {
            d: info.model_copy(update={"side": [c for c in info.side if f"{d}.{c.name}" not in gone]})
            for d, info in self.domains.items()
            if d not in gone
        }
        used = {c.table for c in features} | {c.table for i in domains.values() for c in i.side}
        tokens = {token: [n for n in members if n not in gone] for token, members in self.tokens.items()}
        return self.model_copy(
            update={
                "features": features,
                "domains": domains,
                "tables": {name: info for name, info in self.tables.items() if name in used},
                "tokens": {token: members for token, members in tokens.items() if members},
            }
        )


@dataclass(frozen=True)
class EventStore:
    """All events of a domain, sorted by (user, clock); zero-copy views of the memory-mapped file."""

    info: DomainInfo
    time: np.ndarray  # int64 seconds
    clock: np.ndarray  # int64
    user_id: np.ndarray  # int64
    ids: dict[str, IdValues]
    dense: dict[str, np.ndarray]  # float32 (events, dim)


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
        root: the directory that `ctr prepare` wrote.
        verify: recompute the hash of every file (about 1.5 GB/s) instead of checking only that it is there.

    Raises:
        DataError: not a dataset, another format, a file missing or (with verify) changed.
    """

    def __init__(self, root: Path | str, *, verify: bool = False) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(self.root)
        for name, digest in self.manifest.files.items():
            path = under(self.root, *name.split("/"))
            if not path.is_file():
                raise DataError(f"{path} is listed in the manifest but missing; run ctr prepare again")
            if verify and (found := sha256_of(path)) != digest:
                raise DataError(
                    f"{path} has changed since it was written: sha256 must be {digest}, is {found}; "
                    "run ctr prepare again"
                )

    def without(self, patterns: Sequence[str]) -> Dataset:
        """The same files read through `Manifest.without`."""
        view = copy.copy(self)
        view.manifest = self.manifest.without(patterns)
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

    def events(self, domain: str) -> EventStore:
        """The event store of one domain."""
        info = self.manifest.domains[domain]
        table = read_arrow(under(self.root, "events") / f"{domain}.arrow")
        ids = {c.name: id_values(table, c) for c in info.side if c.kind != "dense"}
        dense = {c.name: dense_values(table, c) for c in info.side if c.kind == "dense"}
        time, clock, user_id = (flat(table[name]).to_numpy() for name in ("time", "clock", "user_id"))
        return EventStore(info, time, clock, user_id, ids, dense)


def read_manifest(root: Path) -> Manifest:
    """Read and check DIR/manifest.json."""
    path = root / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{root} must be a dataset directory with a {MANIFEST}; make one with: "
            f"ctr prepare --spec SPEC --out {root}"
        )
    try:
        return Manifest.model_validate(json.loads(path.read_text()))
    except (ValidationError, ValueError) as error:
        raise DataError(
            f"{path} is not a manifest of format {FORMAT}: {error}; run ctr prepare again"
        ) from None


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
