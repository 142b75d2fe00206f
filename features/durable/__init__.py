"""Files and directories that are either whole or absent, whenever the job or the machine stops.

What is being written bears a temporary name; `rename` gives it its own when every byte is on the disk. It is
the only rename of the project, with a fault point before and after it (`features.durable.faults`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from features.durable.faults import fault_point

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


def rename(source: Path, target: Path, *, point: str, index: int | None = None) -> None:
    """Give what is finished its name at one moment, and force the name to the disk.

    Args:
        source: a file whose bytes are on the disk, or a directory of such files.
        target: its name, on the same file system; a file there is replaced, a directory must be empty.
        point: faults can be injected at ``<point>.before_rename`` and ``<point>.after_rename``.
        index: which pass through these points it is, such as the step.
    """
    fault_point(f"{point}.before_rename", index)
    source.replace(target)
    fsync_path(target.parent)
    fault_point(f"{point}.after_rename", index)


@contextmanager
def replacing(path: Path, *, point: str) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path` when the block ends, or vanishes if it raises.

    A reader sees the old content or the new, never a part. `point` is that of `rename`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt", point="example") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    temporary = path.with_name(f"{TMP_PREFIX}{path.name}")
    try:
        yield temporary
        fsync_path(temporary)
        rename(temporary, path, point=point)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, *, point: str = "file") -> None:
    """Put `data` in place of `path`, as `replacing` does."""
    with replacing(path, point=point) as temporary:
        temporary.write_bytes(data)


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
