"""A directory of an object store that is worked in here: fetched before, and what changed goes back.

The index beside the directory says which version of each object a file was, and what the file was like then.
So either side may have changed since; a file that both have changed is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from features.durable import TMP_PREFIX, rename, replace_file
from features.errors import ConfigError, CtrError, DataError, RetryableError
from features.remote.cache import cache_root
from features.remote.objects import delete, fetch, listed, store, version_of
from features.remote.shown_places import remember
from features.remote.url import Url, remote

_AT_A_TIME = 8
_EVERY = 60.0  # seconds between two looks for what is finished, while a block runs
_log = logging.getLogger(__name__)
UploadOrder = Callable[[str], object]
Index = dict[str, list[object]]  # name → [version of the object, size and time of the file]
_open: dict[Url, Path] = {}  # working copies of this process


def here(place: str | Path) -> Path:
    """The directory of this machine that a path means: of a remote one, its working copy.

    Raises:
        ConfigError: a remote path of which this process has no working copy.
    """
    if (url := remote(place)) is None:
        return Path(place)
    if url not in _open:
        raise ConfigError(f"{url} must be on this machine here; copy it, and name the copy (docs/remote.md)")
    return _open[url]


@contextmanager
def working_copy(url: Url, *, ignored: frozenset[str], order: UploadOrder) -> Iterator[Path]:
    """A directory of this machine that has the files of `url`, and whose changes are uploaded.

    What is finished is uploaded every minute while the block runs; the rest when it ends, also by an error.

    Args:
        url: a folder, which may be empty.
        ignored: names of files that stay here, such as locks.
        order: of uploads, by their names: what completes a thing comes after it.

    Raises:
        RetryableError: another process of this machine works in it, or the store cannot be reached.
        DataError: a file has changed both here and there.
        ConfigError: no permission, no such bucket.
    """
    home = cache_root() / "runs" / hashlib.sha256(str(url).encode()).hexdigest()[:16]
    root = home / (url.name or url.bucket)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RetryableError(f"{url} is in use by another process here; wait for it") from None
        remember(root, url)
        copy = _WorkingCopy(url, root, home / "index.json", ignored, order)
        copy.fetch()
        with copy.uploading():
            _open[url] = root
            try:
                yield root
            finally:
                del _open[url]


class _WorkingCopy:
    def __init__(
        self, url: Url, root: Path, index: Path, ignored: frozenset[str], order: UploadOrder
    ) -> None:
        self.url, self.root, self.ignored, self.order = url, root, ignored, order
        self._index_file = index
        self.index: Index = json.loads(index.read_text()) if index.is_file() else {}

    def fetch(self) -> None:
        """Bring the directory to what the store holds, but for what changed here alone."""
        there = {o.name: o for o in listed(self.url) if o.name and not self._stays(o.name)}
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            versions = dict(
                zip(there, threads.map(lambda n: version_of(self.url.joined(n)), there), strict=True)
            )
        here = self._here()
        changed = {n for n, mark in here.items() if n not in self.index or self.index[n][1:] != mark}
        newer = {n for n, v in versions.items() if n not in self.index or self.index[n][0] != v}
        if both := sorted(changed & newer):
            raise DataError(
                f"{self.url.joined(both[0])} has changed there and in its working copy {self.root}; keep "
                "what you need of the copy and delete it"
            )
        for name in here.keys() - changed - versions.keys():
            (self.root / name).unlink()
            del self.index[name]
        for folder in {(self.root / name).parent for name in newer}:
            folder.mkdir(parents=True, exist_ok=True)

        lock = threading.Lock()

        def one(name: str) -> None:
            path = self.root / name
            partial = path.with_name(f"{TMP_PREFIX}{path.name}")
            fetch(self.url.joined(name), partial, version=versions[name])
            with lock:  # what an interrupted command has fetched counts as fetched
                rename(partial, path, point="remote.fetch")
                self.index[name] = [versions[name], *self._mark(path)]
                self._keep()

        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            for _ in threads.map(one, sorted(newer)):
                pass
        self._keep()

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Upload what is finished now and then, and all of it at the end."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_EVERY):
                try:
                    self.upload()
                except (CtrError, OSError) as error:
                    _log.warning("%s; it is tried again in a minute", error)

        thread = threading.Thread(target=look, name="upload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            try:
                self.upload()
            except CtrError as error:
                error.add_note(
                    f"what was done is in {self.root}; the same command goes on there and uploads it"
                )
                raise

    def upload(self) -> None:
        """Bring to the store what changed here; what is gone here goes there, too."""
        here = self._here()
        changed = [n for n, mark in here.items() if n not in self.index or self.index[n][1:] != mark]
        for name in sorted(changed, key=self.order):  # type: ignore[arg-type]
            place = self.url.joined(name)
            try:
                store(self.root / name, place)
            except FileNotFoundError:
                continue  # a checkpoint that was removed meanwhile
            self.index[name] = [version_of(place), *here[name]]
        for name in sorted(self.index.keys() - self._here().keys()):
            delete(self.url.joined(name))
            del self.index[name]
        self._keep()

    def _keep(self) -> None:
        replace_file(self._index_file, json.dumps(self.index).encode(), point="remote.index")

    def _here(self) -> dict[str, list[object]]:
        """Name → mark of all files that are whole."""
        found = {}
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            try:
                if path.is_file() and not self._stays(name):
                    found[name] = self._mark(path)
            except FileNotFoundError:
                continue
        return found

    def _stays(self, name: str) -> bool:
        parts = name.split("/")
        return parts[-1] in self.ignored or any(part.startswith(TMP_PREFIX) for part in parts)

    @staticmethod
    def _mark(path: Path) -> list[object]:
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
