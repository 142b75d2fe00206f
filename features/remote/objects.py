"""Objects of a store: listed, read, fetched with proof that they did not change meanwhile, written."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from features.errors import ConfigError, DataError, RetryableError
from features.memory.sizes import shown
from features.remote.faults import reaching
from features.remote.filesystem import filesystem
from features.remote.url import Url, is_plain

_PIECE = 2**22  # bytes that are read at a time
_MARKS = (
    "VersionId",
    "ETag",
    "generation",
    "Content-MD5",
    "Etag",
    "md5Hash",
)  # what tells two versions apart


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes:
        name: its key from the place that was listed on; empty for that place itself.
        size: bytes.
        changed: nanoseconds since 1970, as exact as the store tells.
    """

    name: str
    size: int
    changed: int


def listed(url: Url) -> list[StoredObject]:
    """The objects below a place in the order of their keys, or the object that is there.

    Raises:
        ConfigError: no such bucket, no permission, or keys that cannot be paths of this machine.
        RetryableError: the store cannot be reached.
    """
    with reaching(url):
        store = filesystem(url)
        here = store.get_file_info(url.path) if url.key else None
        if here is not None and here.type == fs.FileType.File:
            return [StoredObject("", here.size, _nanoseconds(here))]
        below = store.get_file_info(fs.FileSelector(url.path, allow_not_found=bool(url.key), recursive=True))
    if not below:
        _check_bucket(url)
    found = []
    for info in below:
        name = info.path.removeprefix(f"{url.path}/")
        if info.type == fs.FileType.File and not name.endswith("/"):
            if not is_plain(name):
                raise ConfigError(
                    f"{url}: keys must be possible as paths here, got {name!r:.80}; rename that object"
                )
            found.append(StoredObject(name, info.size, _nanoseconds(info)))
    return sorted(found, key=lambda o: o.name)


def _check_bucket(url: Url) -> None:
    """Refuse a bucket that is not there; where nobody may ask, it counts as there."""
    with reaching(url):
        try:
            info = filesystem(url).get_file_info(url.bucket)
        except OSError:
            return
        if info.type == fs.FileType.NotFound:
            raise OSError("NO_SUCH_BUCKET")


def version_of(url: Url) -> str:
    """What changes when an object does: its version, its ETag, or its size and time where it has neither.

    Raises:
        DataError: it is not there.
        ConfigError, RetryableError: of `reaching`.
    """
    with reaching(url):
        store = filesystem(url)
        with store.open_input_file(url.path) as file:
            told: dict[str, bytes] = file.metadata() or {}
        if mark := next((told[name] for name in _MARKS if told.get(name)), b""):
            return mark.decode()
        info = store.get_file_info(url.path)
    return f"{info.size}-{_nanoseconds(info)}"


def read_small(url: Url, *, most: int) -> bytes:
    """The bytes of a small object.

    Raises:
        DataError: it is not there, or larger than `most` bytes.
        ConfigError, RetryableError: of `reaching`.
    """
    with reaching(url), filesystem(url).open_input_file(url.path) as file:
        if (size := file.size()) > most:
            raise DataError(f"{url} must be at most {shown(most)}, but is {shown(size)}; it is no such file")
        return bytes(file.read())


def fetch(url: Url, target: Path, *, version: str | None, changed: int = 0) -> str:
    """Copy an object to a new file, proved to be one version of it, and return the sha256 of its bytes.

    Args:
        url: the object.
        target: a new file; its directory is there.
        version: what `version_of` said when it was chosen; None: any, but one.
        changed: the file's time, in nanoseconds; 0: now.

    Raises:
        RetryableError: it is another version by now, or became one while it was read.
        DataError, ConfigError: of `reaching`.
    """
    before = version_of(url)
    if version is not None and before != version:
        raise _has_changed(url)
    with reaching(url), filesystem(url).open_input_stream(url.path) as source, target.open("wb") as sink:
        digest = _copy(source, sink)
    if version_of(url) != before:
        raise _has_changed(url)
    if changed:
        os.utime(target, ns=(changed, changed))
    return digest


def store(source: Path, url: Url) -> None:
    """Copy a file to an object; until it has arrived, readers see what was there before.

    Raises:
        ConfigError, RetryableError: of `reaching`.
    """
    with reaching(url), source.open("rb") as file, filesystem(url).open_output_stream(url.path) as sink:
        _copy(file, sink)


def delete(url: Url) -> None:
    """Delete an object, if it is there."""
    try:
        with reaching(url):
            filesystem(url).delete_file(url.path)
    except DataError:
        pass


def _copy(source: BinaryIO, sink: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := source.read(_PIECE):
        digest.update(piece)
        sink.write(piece)
    return digest.hexdigest()


def _nanoseconds(info: fs.FileInfo) -> int:
    when: datetime | None = info.mtime
    return 0 if when is None else int(info.mtime_ns)


def _has_changed(url: Url) -> RetryableError:
    return RetryableError(
        f"{url} must stay as it is while it is read, but was written in between; run the same command again "
        "when nobody writes there"
    )
