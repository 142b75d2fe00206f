"""Raw tables of an object store as files of this machine: those that a pattern names, in one version each.

The listing decides the copy: the same objects in the same versions are the same copy, and what an older copy
already has is linked, not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.errors import ConfigError, DataError
from features.remote.cache import cache_root, cached, discard
from features.remote.objects import StoredObject, fetch, listed, version_of
from features.remote.shown_places import remember
from features.remote.url import Url

_AT_A_TIME = 8  # objects that are fetched
_INDEX, _FILES = "index.json", "files"
_GLOB = frozenset("*?[")
Choose = Callable[[Path], Sequence[Path]]


def fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first wildcard.

    Example:
        >>> fixed_part("logs/day=*/part-?.parquet"), fixed_part("logs/clicks.parquet")
        ('logs', 'logs/clicks.parquet')
    """
    parts = pattern.split("/")
    wild = next((i for i, part in enumerate(parts) if _GLOB & set(part)), len(parts))
    return "/".join(p for p in parts[:wild] if p not in ("", "."))


def table_copy(root: Url, pattern: str, choose: Choose, *, what: str) -> Path:
    """A directory of this machine with the files below `root` that are chosen, under their relative paths.

    Args:
        root: what the pattern is relative to.
        pattern: an object, a folder or a glob; only what lies below its fixed part is listed.
        choose: picks files from a directory with the names of all objects that were listed.
        what: the table, for messages.

    Raises:
        DataError: nothing is there.
        ConfigError, RetryableError: no permission, no network, or objects that change meanwhile.
    """
    base = root.joined(fixed_part(pattern))
    found = [_below(o, fixed_part(pattern), base) for o in listed(base)]
    if not found:
        raise DataError(f"{what}: nothing lies at {base}; correct the path in the spec")
    with _names(found) as names:
        try:
            chosen = {path.relative_to(names).as_posix() for path in choose(names)}
        except DataError as error:
            raise DataError(str(error).replace(str(names), str(root))) from None
    objects = [o for o in found if o.name in chosen]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        versions = list(threads.map(lambda o: version_of(root.joined(o.name)), objects))
    index = {o.name: [v, o.size, o.changed] for o, v in zip(objects, versions, strict=True)}
    name = hashlib.sha256(json.dumps([str(root), index]).encode()).hexdigest()[:32]
    total = sum(o.size for o in objects)
    told = f"{what} ({root})"

    def copied() -> Path:
        return cached("tables", name, total, lambda out: _fill(out, root, index), what=told)

    copy = copied()
    if not all(_intact(copy / _FILES / o.name, o) for o in objects):
        discard(copy)
        copy = copied()
    remember(copy / _FILES, root)
    return copy / _FILES


def _intact(path: Path, wanted: StoredObject) -> bool:
    """Whether nobody has written to a file since it was fetched; its time is that of the object."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == wanted.size and wanted.changed in (0, found.st_mtime_ns)


def _below(found: StoredObject, prefix: str, base: Url) -> StoredObject:
    """The same object, named from the root of the table on."""
    name = "/".join(p for p in (prefix, found.name) if p)
    if not name:
        raise ConfigError(
            f"{base} must be a folder of objects, but is one object; name the folder it lies in"
        )
    return StoredObject(name, found.size, found.changed)


@contextmanager
def _names(objects: Sequence[StoredObject]) -> Iterator[Path]:
    """A directory of empty files with the names of the objects."""
    with tempfile.TemporaryDirectory(prefix="ctr-names-") as folder:
        for found in objects:
            path = Path(folder, found.name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except (FileExistsError, NotADirectoryError):
                raise ConfigError(
                    f"an object must not lie below another one, as {found.name!r:.200} does; rename one"
                ) from None
        yield Path(folder)


def _fill(out: Path, root: Url, index: dict[str, Any]) -> None:
    """Fetch or link all objects, and write what they are."""
    known = _known(root)

    def one(name: str) -> None:
        version, size, changed = index[name]
        target = out / _FILES / name
        older = known.get((name, json.dumps(index[name])))
        there = older is not None and _intact(older, StoredObject(name, int(size), int(changed)))
        if older is None or not there or not _linked(older, target):
            fetch(root.joined(name), target, version=version, changed=int(changed))

    for folder in {(out / _FILES / name).parent for name in index}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        for _ in threads.map(one, index):
            pass
    (out / _INDEX).write_text(json.dumps({"url": str(root), "objects": index}))


def _known(root: Url) -> dict[tuple[str, str], Path]:
    """(name, version) → file of older copies of the same place."""
    found: dict[tuple[str, str], Path] = {}
    for path in (cache_root() / "tables").glob(f"*/{_INDEX}"):
        try:
            index = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if index["url"] == str(root):
            files = path.parent / _FILES
            found |= {(name, json.dumps(told)): files / name for name, told in index["objects"].items()}
    return found


def _linked(older: Path, target: Path) -> bool:
    """Whether a file of an older copy, unchanged since, could be linked."""
    try:
        os.link(older, target)
    except OSError:
        return False
    return True
