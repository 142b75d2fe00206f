"""The tables of a source as files of this machine: what is remote is fetched, an open version is pinned.

This is the one place where paths of raw tables are resolved. What comes out of it names local files and
versions only, so that all readers and the tasks of a partitioned `ctr prepare` see the same files to the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from features.read.files import find_files, table_root
from features.read.lake import LakeFormat, files_of, lake_format
from features.read.problems import Problems
from features.remote.tables import table_copy
from features.remote.url import Url, remote
from features.source import RawTable, Source


def on_disk(source: Source, base: Path, needed: Iterable[str]) -> Source:
    """The same source with the needed tables on this machine.

    Args:
        source: as the spec has it.
        base: what its local paths are relative to.
        needed: names of tables.

    Raises:
        ConfigError, DataError, RetryableError: what is not there, not permitted, or cannot be reached now.
    """
    place = remote(source.path)
    if source.kind != "files":
        if place is None:
            return source
        whole = table_copy(place, ".", _every_file, what=f"source {source.kind!r}")
        return source.model_copy(update={"path": str(whole)})
    tables, problems = dict(source.tables), Problems()
    for name in sorted(set(needed) & set(tables)):
        with problems.collect():
            tables[name] = _on_disk(source, name, base)
    problems.raise_all()
    return source.model_copy(update={"tables": tables})


def pinned_versions(source: Source) -> dict[str, int]:
    """The versions of those tables that have some."""
    return {name: raw.version for name, raw in source.tables.items() if raw.version is not None}


def _on_disk(source: Source, name: str, base: Path) -> RawTable:
    raw, what = source.tables[name], f"table {name!r}"
    lake, place = lake_format(raw), _place(source, raw)
    if place is not None:
        copy = _copy(*place, raw.version, lake, what)
        raw = raw.model_copy(update={"root": str(copy), "path": place[1]})
        source = source.model_copy(update={"tables": {**source.tables, name: raw}})
    if lake is None:
        return raw
    pinned, _ = files_of(raw, table_root(source, name, base), what=what)
    return raw.model_copy(update={"version": pinned.version})


def _place(source: Source, raw: RawTable) -> tuple[Url, str] | None:
    """Where a remote table lies: a root, and what the path is from there on; None on this machine."""
    if (own := remote(raw.path)) is not None:
        return Url(own.scheme, own.bucket, ""), own.key
    root = remote(source.path if raw.root is None else raw.root)
    return None if root is None else (root, raw.path)


def _copy(root: Url, pattern: str, version: int | None, lake: LakeFormat | None, what: str) -> Path:
    """A directory with the files of a table, under their paths from the root on."""
    if lake is None:

        def found(names: Path) -> list[Path]:
            return [file.path for file in find_files(names, pattern, what=what)]

        return table_copy(root, pattern, found, what=what)
    # First the log, which says what else there is to be fetched.
    log = table_copy(root, f"{pattern}/{lake.LOG}", _every_file, what=what)
    files = {f.path.relative_to(log) for f in lake.files_of_version(log / pattern, version, what=what).files}

    def chosen(names: Path) -> list[Path]:
        of_log = set(_every_file(names / pattern / lake.LOG))
        return [p for p in _every_file(names) if p in of_log or p.relative_to(names) in files]

    return table_copy(root, pattern, chosen, what=what)


def _every_file(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
