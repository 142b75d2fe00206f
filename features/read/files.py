"""Which files a table consists of: a file, a directory or a glob, with the columns that their paths hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import escape, glob
from pathlib import Path
from urllib.parse import unquote

from features.errors import DataError
from features.source import Source

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# Tables whose directory holds more files than their present rows.
_VERSIONED = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}
_REMEDY = {"Delta Lake": "set format: delta in the table", "Iceberg": "set format: iceberg in the table"}


@dataclass(frozen=True)
class TableFile:
    """One file of a table.

    Attributes:
        path: where it lies.
        partitions: columns that its path gives, as in `day=2024-03-01/part-0.parquet`; None is missing.
    """

    path: Path
    partitions: dict[str, str | None] = field(default_factory=dict)


def table_root(source: Source, name: str, base: Path) -> Path:
    """What the path of a table is relative to.

    Args:
        source: of the tables.
        name: of the table; the readers of other kinds of sources know theirs themselves.
        base: the directory that `source.path` is relative to.
    """
    raw = source.tables.get(name)
    return base / (source.path if raw is None or raw.root is None else raw.root)


def find_files(root: Path, pattern: str, *, what: str) -> list[TableFile]:
    """The files of a table in the order of their paths.

    Files and directories whose names begin with `_` or `.` are left out unless the pattern names them: Spark
    and others write their marks there.

    Args:
        root: what the pattern is relative to.
        pattern: a file, a directory with all that lies in it, or a glob.
        what: the table, for the error message.

    Raises:
        DataError: there is no such file, or the directory belongs to a table format that keeps old versions.
    """
    literal = root / pattern
    found = (
        [literal] if literal.exists() else [root / p for p in glob(pattern, root_dir=root, recursive=True)]
    )
    files = {p for p in found if p.is_file()}
    files = files or {f for d in found if d.is_dir() for f in d.rglob("*") if f.is_file()}
    named = set(Path(pattern).parts)
    kept = sorted(p for p in files if not _is_hidden(p.relative_to(root).parts, named))
    _refuse_versioned(root, kept, what)
    if not kept:
        raise DataError(f"{what}: no file matches {pattern!r} in {root}; correct path in the spec")
    return [TableFile(p, dict(_partitions(p.relative_to(root).parts[:-1]))) for p in kept]


def with_told(
    files: list[TableFile], told: dict[str, dict[str, str | int]], *, root: Path, what: str
) -> list[TableFile]:
    """The files with the columns that the spec tells of each by its name.

    Args:
        files: of the table.
        told: column → name of the file, or the end of its path, which may be a glob → value.
        root: the directory in which the files lie.
        what: the table, for the error message.

    Raises:
        DataError: a file of which a column is not told, or told twice; a name, not a glob, of no file.
    """
    _refuse_absent(files, told, root, what)
    found = []
    for file in files:
        own: dict[str, str | None] = {}
        for column, values in told.items():
            fits = [str(value) for pattern, value in values.items() if file.path.match(pattern)]
            if len(fits) != 1:
                raise DataError(
                    f"{what}: by_file must tell {column!r} of every file once, but {file.path} is "
                    f"{'none' if not fits else 'several'} of {sorted(values)}; name the file there, or leave "
                    "it out of path"
                )
            own[column] = fits[0]
        found.append(TableFile(file.path, {**file.partitions, **own}))
    return found


def _refuse_absent(
    files: list[TableFile], told: dict[str, dict[str, str | int]], root: Path, what: str
) -> None:
    """A part whose file was forgotten, packed or put elsewhere is no empty part."""
    names = dict.fromkeys(name for values in told.values() for name in values)
    absent = [n for n in names if escape(n) == n and not any(file.path.match(n) for file in files)]
    if not absent:
        return
    near = [p for n in absent for folder in ("", "*/") for p in sorted(root.glob(f"{folder}{Path(n).name}*"))]
    there = f"; there is {', '.join(p.relative_to(root).as_posix() for p in near[:3])}" if near else ""
    raise DataError(
        f"{what}: by_file names {absent}, but path finds only "
        f"{[f.path.relative_to(root).as_posix() for f in files[:5]]} in {root}{there}; put each there, "
        "unpacked and by that name, or delete its name; a file that may be missing is named by a glob, as in "
        "v*.csv"
    )


def _is_hidden(parts: tuple[str, ...], named: set[str]) -> bool:
    return any(p.startswith(("_", ".")) and p not in named and "=" not in p and p != ".." for p in parts)


def _partitions(folders: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    for folder in folders:
        name, equals, value = folder.partition("=")
        if equals and name:
            yield name, None if value == _NO_VALUE else unquote(value)


def _refuse_versioned(root: Path, files: list[Path], what: str) -> None:
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(root)}
    for folder in sorted(folders):
        for mark, kind in _VERSIONED.items():
            if (folder / mark).exists():
                raise DataError(
                    f"{what}: {folder} is a table of {kind}, whose files also hold rows of older versions; "
                    f"{_REMEDY.get(kind, 'export its present version as plain Parquet')}"
                )
