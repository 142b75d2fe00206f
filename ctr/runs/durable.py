"""Files that are either whole or absent, whenever the job or the machine stops."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

TMP_PREFIX = ".tmp-"  # whatever bears it is unfinished: never read, swept when a run directory is opened


def fsync_path(path: Path) -> None:
    """Force a file or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and force it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in place of `path` at one moment: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f"{TMP_PREFIX}{path.name}")
    try:
        write_file(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def sweep(directory: Path) -> list[Path]:
    """Delete what an interrupted job left unfinished in `directory`; the caller holds the run's lock.

    Returns:
        The deleted paths, sorted.
    """
    if not directory.is_dir():
        return []
    leftovers = sorted(path for path in directory.iterdir() if path.name.startswith(TMP_PREFIX))
    for path in leftovers:
        remove(path)
    return leftovers


def remove(path: Path) -> None:
    """Delete a file, or a directory with its content, as far as the disk allows; a link is never followed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def canonical_json(value: Any) -> bytes:
    """Write a value as strict JSON in one way only (no NaN, sorted keys): equal values are equal bytes.

    Example:
        >>> canonical_json({"b": 1, "a": [2.5, None]})
        b'{"a":[2.5,null],"b":1}'
    """
    text = json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()
