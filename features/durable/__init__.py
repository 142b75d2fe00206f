"""Files and directories that are either whole or absent, whenever the job or the machine stops.

What is being written bears a temporary name; `rename` gives it its own when every byte is on the disk, and
`exchange` puts a directory in the place of another. They are the only renames of the project, with a fault
point before and after (`features.durable.faults`).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from features.durable.faults import fault_point

# Nothing can be written to such a place, whatever the disk: the user names another. All else may be mended.
WRONG_PLACE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP})
_HERE, _EXCHANGE = -100, 2  # of renameat2(2): AT_FDCWD, RENAME_EXCHANGE
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


def exchange(one: Path, other: Path, *, point: str) -> bool:
    """Let two paths on one file system change places at one moment; `point` is that of `rename`.

    Returns:
        False, and nothing has happened, where the file system cannot do it (on Linux most can).
    """
    fault_point(f"{point}.before_rename")
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    for parent in {one.parent, other.parent}:
        fsync_path(parent)
    fault_point(f"{point}.after_rename")
    return True


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
