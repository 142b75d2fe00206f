"""Data sets in an object store: fetched whole to be read, uploaded whole with the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from features.durable import remove
from features.errors import ConfigError, CtrError, DataError, RetryableError
from features.remote.cache import cache_root, cached
from features.remote.objects import StoredObject, delete, fetch, listed, read_small, store
from features.remote.shown_places import remember
from features.remote.url import Url
from features.store.manifest import MANIFEST, parse_manifest

_AT_A_TIME = 8  # objects that are fetched or stored
_MOST = 2**28  # bytes of a manifest
_UPLOADING = ".ctr-uploading"  # lies there while an upload is under way, or was ended in its midst


def dataset_copy(url: Url) -> Path:
    """A directory of this machine with the files of a data set, each of them what the manifest says.

    Raises:
        DataError: no data set is there, or one of which a file is missing or another one.
        ConfigError: no such bucket, no permission, or no room in the cache.
        RetryableError: the store cannot be reached, or the data set is being replaced.
    """
    sizes = {o.name: o.size for o in listed(url)}
    if MANIFEST not in sizes:
        raise _none_there(url, sizes)
    text = read_small(url.joined(MANIFEST), most=_MOST)
    manifest = parse_manifest(text, what=str(url.joined(MANIFEST)))
    files = manifest.every_file()
    if missing := sorted(set(files) - set(sizes)):
        raise DataError(
            f"{url.joined(missing[0])} is listed in the manifest but missing; run ctr prepare again"
        )

    def fill(out: Path) -> None:
        _fetch_all(url, out, files, text)
        (out / MANIFEST).write_bytes(text)

    total = sum(sizes[name] for name in files) + len(text)
    copy = cached("datasets", hashlib.sha256(text).hexdigest()[:32], total, fill, what=f"data set {url}")
    remember(copy, url)
    return copy


def _none_there(url: Url, names: dict[str, int]) -> CtrError:
    if _UPLOADING in names:
        return RetryableError(
            f"{url} is being uploaded, or its upload was interrupted; wait, or run that ctr prepare again"
        )
    return DataError(
        f"{url} must be a data set with a {MANIFEST}; make one with: ctr prepare --spec SPEC --out {url}"
    )


def _fetch_all(url: Url, out: Path, files: dict[str, str], manifest: bytes) -> None:
    def one(name: str) -> str | None:
        path = out.joinpath(*name.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return None if fetch(url.joined(name), path, version=None) == files[name] else name

    try:
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            wrong = [name for name in threads.map(one, files) if name is not None]
    except DataError:  # a file that is gone by now
        wrong = ["a file"]
    if not wrong:
        return
    if (
        MANIFEST not in {o.name for o in listed(url)}
        or read_small(url.joined(MANIFEST), most=_MOST) != manifest
    ):
        raise RetryableError(f"{url} was replaced while it was read; run the same command again")
    raise DataError(
        f"{url}: {wrong[0]} is not what the manifest says (sha256); run ctr prepare again, with --overwrite"
    )


@contextmanager
def uploaded(url: Url, *, overwrite: bool) -> Iterator[Path]:
    """A directory of this machine that is uploaded as a data set when the block ends.

    Until then the store is not touched, but asked whether the place is free and the credentials serve.

    Args:
        url: where the data set is to be.
        overwrite: replace a data set that is there; readers find none while it is replaced.

    Raises:
        ConfigError: files are there that are no data set; no permission; no such bucket.
        DataError: a data set is there, and it is not to be replaced.
        RetryableError: the store cannot be reached.
    """
    _check_free(url, overwrite=overwrite)
    name = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    local = cache_root() / "uploads" / name / (url.name or url.bucket)
    yield local
    try:
        _upload(local, url)
    except CtrError as error:
        error.add_note(f"the data set is whole in {local}, which the same command makes again and uploads")
        raise
    remove(local.parent)


def _check_free(url: Url, *, overwrite: bool) -> None:
    if not url.key:
        raise ConfigError(f"--out must name a folder in the bucket, got {url}; add one")
    names = {o.name for o in listed(url)}
    if "" in names:
        raise ConfigError(f"{url} must be a new folder, but an object is there; choose another --out")
    if names and not names & {MANIFEST, _UPLOADING}:
        raise ConfigError(
            f"{url} holds objects that are no data set, and is left alone; choose another --out"
        )
    if MANIFEST in names and not overwrite:
        raise DataError(
            f"{url} already holds a dataset; choose another --out, or replace it with --overwrite"
        )
    mark = url.joined(_UPLOADING)
    if MANIFEST not in names:
        _put(mark, b"")  # proves that it may be written, before anything is prepared


def _upload(local: Path, url: Url) -> None:
    files = {p.relative_to(local).as_posix(): p for p in sorted(local.rglob("*")) if p.is_file()}
    manifest = files.pop(MANIFEST)
    _put(url.joined(_UPLOADING), b"")
    delete(url.joined(MANIFEST))  # whoever opens the data set now is told to wait
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        for _ in threads.map(lambda name: store(files[name], url.joined(name)), files):
            pass
    left = {o.name: o for o in listed(url)}
    _check_sizes(files, left, url)
    for name in left.keys() - files.keys() - {_UPLOADING}:
        delete(url.joined(name))  # of the data set that was there
    store(manifest, url.joined(MANIFEST))
    delete(url.joined(_UPLOADING))


def _check_sizes(files: dict[str, Path], there: dict[str, StoredObject], url: Url) -> None:
    for name, path in files.items():
        size = path.stat().st_size
        if (found := there.get(name)) is None or found.size != size:
            raise RetryableError(f"{url.joined(name)} did not arrive whole; run the same command again")


def _put(url: Url, data: bytes) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        store(Path(file.name), url)


def remote_versions(url: Url) -> dict[str, int]:
    """The versions of tables that a data set was made of; none where there is no data set that tells."""
    if MANIFEST not in {o.name for o in listed(url)}:
        return {}
    place = url.joined(MANIFEST)
    return parse_manifest(read_small(place, most=_MOST), what=str(place)).table_versions
