"""The files of a data set are those that were written: hashed once, remembered while nobody writes to them.

Hashing takes a second per 1 to 3 GB. So the digest of a file is kept beside its size, times, inode and device
in the user's cache: a series of commands on one data set pays once. Who changes a byte changes the time of
the change, which no program sets, and the file is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from features.durable import TMP_PREFIX, rename
from features.errors import DataError
from features.names import under
from features.store.manifest import sha256_of

enabled = True  # `--no-verify` switches it off for a process
_PATIENCE = 1.0  # seconds before progress is shown
_WORTH = 2**25  # bytes from which a verification is remembered; less is hashed in a moment
_verified: set[tuple[Path, str]] = set()  # directories and digests of this process
_log = logging.getLogger(__name__)


def verify_files(root: Path, files: Mapping[str, str], *, digest: str) -> None:
    """Compare every file of a data set with its hash in the manifest; once per process and data set.

    Args:
        root: the dataset directory.
        files: relative path → sha256.
        digest: of the manifest.

    Raises:
        DataError: naming the files that are not what was written.
    """
    root = root.resolve()
    if not enabled or (root, digest) in _verified:
        return
    paths = {name: under(root, *name.split("/")) for name in files}
    remembered = _remembered(root)
    marks = {name: _mark(path) for name, path in paths.items()}
    known = {name: remembered[name][1] for name in files if remembered.get(name, (None,))[0] == marks[name]}
    fresh = _hash({name: path for name, path in paths.items() if known.get(name) != files[name]}, root)
    if wrong := sorted(name for name, found in fresh.items() if found != files[name]):
        first = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"{root / first}{more} has changed since it was written: sha256 must be {files[first]}, is "
            f"{fresh[first]}; run ctr prepare again"
        )
    if fresh and sum(mark[0] for mark in marks.values()) >= _WORTH:
        _remember(root, {name: (marks[name], files[name]) for name in files})
    _verified.add((root, digest))


def remember_written(root: Path, files: Mapping[str, str]) -> None:
    """Keep what verifying would find of a data set that was written just now, and hashed as it was written.

    Args:
        root: the dataset directory.
        files: relative path → sha256.
    """
    root = root.resolve()
    marks = {name: _mark(under(root, *name.split("/"))) for name in files}
    if sum(mark[0] for mark in marks.values()) >= _WORTH:
        _remember(root, {name: (marks[name], files[name]) for name in files})


def _hash(paths: Mapping[str, Path], root: Path) -> dict[str, str]:
    """name → sha256, in parallel; progress is logged when it takes longer than a moment."""
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    total, done, shown = sum(sizes.values()), 0, time.monotonic()
    found: dict[str, str] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        jobs = {threads.submit(sha256_of, paths[n]): n for n in sorted(paths, key=lambda n: -sizes[n])}
        for job in as_completed(jobs):
            name = jobs[job]
            found[name] = job.result()
            done += sizes[name]
            if time.monotonic() - shown > _PATIENCE:
                shown = time.monotonic()
                _log.info("verifying %s: %.1f of %.1f GB", root, done / 1e9, total / 1e9)
    return found


def _mark(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _memory_of(root: Path) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "ctr-verified" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"


def _remembered(root: Path) -> dict[str, tuple[list[int], str]]:
    """What was verified before; nothing where that cannot be read, or somebody else could have written it."""
    path = _memory_of(root)
    try:
        found = json.loads(path.read_bytes()) if _is_own(path) and _is_own(path.parent) else {}
        return {str(name): (list(mark), str(digest)) for name, (mark, digest) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_own(path: Path) -> bool:
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _remember(root: Path, verified: Mapping[str, tuple[list[int], str]]) -> None:
    path = _memory_of(root)
    with suppress(OSError):  # without a cache every process verifies for itself
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in path.parent.glob(f"{TMP_PREFIX}*-{path.name}"):  # of a kill; a job beside loses nothing
            left.unlink(missing_ok=True)
        temporary = path.with_name(f"{TMP_PREFIX}{os.getpid()}-{path.name}")
        try:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(verified))
            rename(temporary, path, point="verified")
        finally:
            temporary.unlink(missing_ok=True)
