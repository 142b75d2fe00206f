"""Public data sets, fetched from their owner, checked, and unpacked."""

from __future__ import annotations

import hashlib
import logging
import stat
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from features.durable.directory import check_absent, new_directory
from features.errors import ConfigError, DataError

_PIECE = 2**20
_log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds without a byte before giving up


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set.

    Attributes:
        url: where its owner keeps it.
        md5: of the zip, as the owner publishes it; None if it changes from time to time.
        max_bytes: of the zip.
        max_unpacked: of all its files together.
    """

    url: str
    md5: str | None
    max_bytes: int = 50 * 2**20
    max_unpacked: int = 200 * 2**20


ARCHIVES = {
    "ml-100k": Archive(
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"
    ),
    "ml-1m": Archive(
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"
    ),
    "ml-latest-small": Archive("https://files.grouplens.org/datasets/movielens/ml-latest-small.zip", None),
}


def download(name: str, out: Path) -> list[Path]:
    """Fetch a data set and unpack it into a new directory, which appears complete or not at all.

    Args:
        name: one of `ARCHIVES`.
        out: the directory; must not exist, or be empty.

    Returns:
        The files in `out`.

    Raises:
        ConfigError: an unknown name, or `out` is in the way.
        DataError: the archive cannot be fetched, is not the one expected, or is unsafe to unpack.
    """
    if name not in ARCHIVES:
        raise ConfigError(f"the data set must be one of {sorted(ARCHIVES)}, got {name!r}")
    check_absent(out)
    with new_directory(out, point="download") as folder:
        archive, packed = ARCHIVES[name], folder / ".archive.zip"
        _fetch(archive, packed)
        unpack(packed, folder, max_bytes=archive.max_unpacked)
        packed.unlink()
    return sorted(path for path in out.rglob("*") if path.is_file())


def unpack(packed: Path, out: Path, *, max_bytes: int) -> None:
    """Unpack a zip; one folder that holds everything is left out of the paths.

    Args:
        packed: the zip.
        out: directory to make.
        max_bytes: of all files together, counted while they are unpacked: headers may lie.

    Raises:
        DataError: no zip, a damaged one, a path that leads out of `out`, a link, or too many bytes.
    """
    try:
        with zipfile.ZipFile(packed) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            paths = [_safe_path(member, packed) for member in members]
            top = {path.parts[0] for path in paths}
            strip = int(len(top) == 1 and all(len(path.parts) > 1 for path in paths))
            left = max_bytes
            for member, path in zip(members, paths, strict=True):
                target = out.joinpath(*path.parts[strip:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as sink:
                    left -= _copy(source, sink, left, f"{packed.name} unpacked")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{packed.name} must be a zip file, but cannot be unpacked: {error}; fetch it again"
        ) from None


def _safe_path(member: zipfile.ZipInfo, packed: Path) -> PurePosixPath:
    """The member's path, if it stays below the directory and is a plain file."""
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    inside = not path.is_absolute() and ".." not in path.parts and not set(member.filename) & set("\\:\0")
    if is_link or not inside:
        raise DataError(
            f"{packed.name} holds {member.filename!r:.80}, which leads out of its directory; do not use it"
        )
    return path


def _fetch(archive: Archive, target: Path) -> None:
    """Fetch the archive and compare its checksum."""
    try:
        with urllib.request.urlopen(archive.url, timeout=_TIMEOUT) as source, target.open("xb") as sink:
            _copy(source, sink, archive.max_bytes, archive.url)
    except OSError as error:
        raise DataError(
            f"{archive.url} cannot be fetched: {error}; check the network, or unpack a copy of your own"
        ) from None
    with target.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if archive.md5 is None:
        _log.warning(
            "%s changes from time to time, so there is no checksum to compare; its md5 is %s",
            archive.url,
            found,
        )
    elif found != archive.md5:
        raise DataError(
            f"{archive.url} must have md5 {archive.md5}, got {found}: the download is damaged or "
            "the file has changed; try again"
        )


def _copy(source: IO[bytes], sink: IO[bytes], limit: int, what: str) -> int:
    """Copy at most `limit` bytes; returns how many."""
    count = 0
    while piece := source.read(_PIECE):
        count += len(piece)
        if count > limit:
            raise DataError(f"{what} must have at most {limit:,} bytes, but has more; do not use it")
        sink.write(piece)
    return count
