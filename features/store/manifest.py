"""manifest.json: what a data set holds, with counts, time ranges and the hash of every file."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from features.computed import Strict, is_none
from features.errors import ConfigError, DataError
from features.store.columns import Column
from features.store.tasks import TaskCounts, TaskInfo, is_plain

FORMAT = 1
SPLITS = ("train", "valid", "test")
MANIFEST = "manifest.json"
ORIGIN = "origin.arrow"
_SEAL = "seal"


# Seconds that one logged time stands for; not said where all tables of the log have ticks of one length.
Tick = Annotated[float | None, Field(default=None, exclude_if=is_none)]


class TableInfo(Strict):
    """An ID space: `rows` counts row 0 (missing), the unknown rows and the values."""

    rows: int
    encode: str
    oov_rows: int = 1


class DomainInfo(Strict):
    """One event store."""

    events: int
    max_len: int
    side: list[Column]
    time_range: tuple[int, int] | None
    tick: Tick = None
    # False: the events came as lists, their time is missing, and their clocks only order them.
    timed: bool = Field(default=True, exclude_if=lambda timed: timed)


class SplitInfo(Strict):
    """Counts of one split; times in seconds."""

    requests: int
    impressions: int
    positives: int
    time_range: tuple[int, int] | None
    clock_range: tuple[int, int] | None
    # Where there is more than one plain label.
    tasks: dict[str, TaskCounts] = Field(default={}, exclude_if=lambda tasks: not tasks)


class Grown(Strict):
    """How a list of values has grown by one day: `users`, `items`, or `table <name>`."""

    new: int
    retired: int = 0  # old values whose rows went to new ones
    full: int = 0  # values that found no room


class Lineage(Strict):
    """What a data set goes on from: its first values, scales and counters are those of its ancestors."""

    parent: str  # the directory's name
    ancestors: list[str]  # digests of their manifests, the newest last
    end: int  # seconds: all rows and events of the ancestors lie up to here, its own later
    impressions: int  # of all ancestors together
    grew: dict[str, Grown]

    @property
    def generation(self) -> int:
        """How many data sets came before."""
        return len(self.ancestors)


class Manifest(Strict):
    """Everything a model needs to know of a data set before reading it."""

    format: Literal[1] = 1
    name: str
    spec_sha256: str
    order: Literal["oldest_first"] = "oldest_first"
    users: int
    items: int
    tick: Tick = None
    features: list[Column]
    tables: dict[str, TableInfo]
    domains: dict[str, DomainInfo]
    tokens: dict[str, list[str]]
    # In the order of the spec; the first is binary and known in every row. Left out where it is one `label`.
    tasks: list[TaskInfo] = Field(default=[TaskInfo()], min_length=1, exclude_if=is_plain)
    # The share of rows with label 0 that the log has: one number, or the column `keep_rate` of each row.
    sampling: float | Literal["keep_rate"] | None = Field(default=None, exclude_if=is_none)
    slices: list[str]
    splits: dict[str, SplitInfo]
    counters: dict[str, Any] = Field(default={})  # what was dropped, repaired or merged while preparing
    files: dict[str, str]  # relative path → sha256
    # The same of what tells where rows stood in the log; data sets made before it was kept have none.
    origin: dict[str, str] = Field(default={}, exclude_if=lambda files: not files)
    lineage: Lineage | None = Field(default=None, exclude_if=is_none)  # of `ctr prepare --after`
    # Of the Delta and Iceberg tables that were read: table → number of the version, or ID of the snapshot.
    table_versions: dict[str, int] = Field(default={}, exclude_if=lambda versions: not versions)

    def digest(self) -> str:
        """sha256 over the manifest: identifies the data, since it holds the hash of every file.

        The same rows in another order of the raw tables, or from another version of them, are the same data,
        so `origin` and `table_versions` are left out.
        """
        left_out = {"origin", "table_versions"}
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()

    def every_file(self) -> dict[str, str]:
        """Relative path → sha256 of all files beside the manifest."""
        return self.files | self.origin

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


def read_manifest(root: Path) -> Manifest:
    """Read and check DIR/manifest.json.

    Raises:
        DataError: there is none, it is of another format, or it is not what was written.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{root} must be a dataset directory with a {MANIFEST}; make one with: "
            f"ctr prepare --spec SPEC --out {root}"
        )
    return parse_manifest(path.read_bytes(), what=str(path))


def parse_manifest(text: bytes, *, what: str) -> Manifest:
    """The manifest that a text is.

    Raises:
        DataError: it is of another format, or it is not what was written.
    """
    try:
        found = json.loads(text)
        seal = found.pop(_SEAL, None)  # manifests of earlier versions have none
        manifest = Manifest.model_validate(found)
    except (ValueError, AttributeError, RecursionError) as error:
        why = "\n".join(str(error).splitlines()[:5])[:500]
        raise DataError(
            f"{what} is not a manifest of format {FORMAT}: {why}; run ctr prepare again"
        ) from None
    if seal is not None and seal != manifest.digest():
        raise DataError(f"{what} has changed since it was written; run ctr prepare again")
    return manifest


def versions_of(root: Path) -> dict[str, int]:
    """The versions of tables that a data set was made of; none where there is no data set that tells."""
    try:
        return read_manifest(root).table_versions
    except DataError:
        return {}


def moved_on(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """A line for each table that has another version than before.

    Example:
        >>> moved_on({"clicks": 41, "items": 3}, {"clicks": 44, "items": 3})
        ["table 'clicks' has moved from version 41 to 44"]
    """
    return [
        f"table {name!r} has moved from version {before[name]} to {now[name]}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]


def sealed_json(manifest: Manifest) -> str:
    """The text of manifest.json: what it says, then the digest over all of it."""
    plain = json.loads(manifest.model_dump_json())
    return json.dumps({**plain, _SEAL: manifest.digest()}, indent=1, ensure_ascii=False) + "\n"


def looks_like_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a data set, possibly a damaged one, and not another program's."""
    try:
        return path.is_file() and all(key in path.read_bytes() for key in (b'"spec_sha256"', b'"order"'))
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
