"""Copies of what lies in object stores, in one directory of this machine with a limit to its size.

    CTR_CACHE       where; ~/.cache/ctr without it (or below XDG_CACHE_HOME)
    CTR_CACHE_SIZE  the most that all copies may take; 100GB without it

A copy is a directory that is whole or absent, named after the version of what it holds, and never changed.
Those that were used longest ago go when room is needed, but none that a process uses.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from features.durable.directory import new_directory
from features.errors import ConfigError, RetryableError
from features.memory.sizes import parse_size, shown
from features.names import check_name

PLACE, LIMIT = "CTR_CACHE", "CTR_CACHE_SIZE"
_DEFAULT = "100GB"
_used: dict[Path, int] = {}  # copies of this process → descriptors of their locks, open until it ends


def cache_root() -> Path:
    """The directory of all copies."""
    if told := os.environ.get(PLACE):
        return Path(told).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")).absolute() / "ctr"


def cached(kind: str, name: str, size: int, fill: Callable[[Path], None], *, what: str) -> Path:
    """The copy of that name, which stays as long as this process; filled now if it is not there.

    Args:
        kind: a folder of the cache, such as `datasets`.
        name: says the version of what is copied.
        size: bytes that it takes.
        fill: writes it into a new directory.
        what: is copied, for messages.

    Raises:
        ConfigError: it is larger than the cache may be, or the cache cannot be written.
        RetryableError: other copies that processes use leave no room.
        OSError: the disk is full or fails.
    """
    path = cache_root() / check_name(kind, "cache") / check_name(name, "copy")
    if path in _used and path.is_dir():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_name(f".{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} must be writable for copies of what is remote, got {error.strerror}; "
            f"set {PLACE} to another directory"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a process that fetches the same
        if not path.is_dir():
            _make_room(size, what)
            with new_directory(path, point="cache") as partial:
                fill(partial)
        os.utime(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except BaseException:
        os.close(lock)
        raise
    _release(path)
    _used[path] = lock
    return path


def discard(path: Path) -> None:
    """Delete a copy of this process that turned out to be of no use."""
    shutil.rmtree(path, ignore_errors=True)
    _release(path)


def _release(path: Path) -> None:
    if (lock := _used.pop(path, None)) is not None:
        os.close(lock)


def _make_room(size: int, what: str) -> None:
    limit = parse_size(os.environ.get(LIMIT, _DEFAULT), what=LIMIT)
    if size > limit:
        raise ConfigError(
            f"{what} takes {shown(size)} in {cache_root()}, which may hold {shown(limit)}; raise {LIMIT}, "
            f"or set {PLACE} to a larger disk"
        )
    copies = [(lock, lock.with_name(lock.name[1:-5])) for lock in cache_root().glob("*/.*.lock")]
    sizes = {path: _bytes(path) for _, path in copies if path.is_dir()}
    left = limit - size - sum(sizes.values())
    for lock, path in sorted(copies, key=lambda c: c[0].stat().st_mtime):
        if left >= 0:
            return
        if path in sizes and _evict(lock, path):
            left += sizes[path]
    if left < 0:
        raise RetryableError(
            f"{what} takes {shown(size)}, for which copies in {cache_root()} that others use leave no "
            f"room under {LIMIT} ({shown(limit)}); raise it, or run the command again when they have ended"
        )


def _evict(lock: Path, path: Path) -> bool:
    """Delete a copy that nobody uses."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()


def _bytes(root: Path) -> int:
    """Bytes of a copy; a file that several copies share counts as its share of them."""
    stats = [path.stat() for path in root.rglob("*") if path.is_file()]
    return sum(s.st_size // max(s.st_nlink, 1) for s in stats)
