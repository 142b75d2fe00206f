"""The logs of several days as one log, by links: what a data set of all of them is prepared from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from features.errors import ConfigError
from features.partitions.store import take
from features.source import RawTable
from features.sources.simulator import FILES
from features.spec import Spec


def together(spec: Spec, days: Sequence[Path], out: Path) -> Spec:
    """Put the files of several days below one another, and say where.

    Tables of users and items are those of the last day; of all other tables the files of every day count.

    Args:
        spec: of each day.
        days: their directories, each a source of the spec, oldest first.
        out: a directory that is made anew.

    Returns:
        The spec of all days.

    Raises:
        ConfigError: a source whose files are not known by name.
    """
    tables = _tables(spec)
    entities = {entity.table for entity in (spec.user, spec.item) if entity is not None}
    shutil.rmtree(out, ignore_errors=True)
    for name, raw in tables.items():
        used = [days[-1]] if name in entities else days
        for day in used:
            for file in sorted(path for path in day.rglob("*") if path.is_file()):
                relative = file.relative_to(day)
                if fnmatch(relative.as_posix(), raw.path) or raw.path in map(str, relative.parents):
                    take(file, out / _place(relative, raw.path, day, alone=name in entities))
    source = spec.source.model_copy(update={"path": str(out.absolute())})
    return spec.model_copy(update={"source": source})


def _tables(spec: Spec) -> dict[str, RawTable]:
    if spec.source.kind == "files":
        return spec.source.tables
    if spec.source.kind == "simulator":
        return {name: RawTable(path=path) for name, path in FILES.items()}
    raise ConfigError(
        f"days of source.kind {spec.source.kind!r} cannot be put together; use kind: files, or leave out "
        "scratch"
    )


def _place(relative: Path, pattern: str, day: Path, *, alone: bool) -> Path:
    """Where a file of a day goes: a table that is one file becomes a directory of that name."""
    if alone:
        return relative
    if relative.as_posix() == pattern:
        return relative / f"{day.name}{relative.suffix}"
    return relative.with_name(f"{day.name}-{relative.name}")
