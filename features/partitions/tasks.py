"""Stages of tasks: pure functions from files to files, run by any `concurrent.futures.Executor`.

A task fills a directory of its own, which bears a temporary name until its bytes are on the disk. What a
finished task was made of is kept beside its result as a hash, so that a second call does not run it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import features
from features.durable import TMP_PREFIX, WRONG_PLACE, fsync_path, rename, sweep, write_file
from features.errors import ConfigError, DataError

Function = Callable[
    [Path, Path, dict[str, Any]], dict[str, Any]
]  # work, the task's directory, arguments → result
Reads = Callable[[int], Sequence[str]]
OnProgress = Callable[[str], None]
_DONE = "done.json"
_PATIENCE = 2.0  # seconds between two lines of progress


@dataclass
class Stages:
    """The stages of one job, one after the other.

    Attributes:
        work: the job's directory, which all workers see.
        executor: who runs the tasks; None: this process.
        digest: of what the job is about; a stage adds what it was asked and what it found.
        tell: told how far a stage is, with the time that is left of it.
    """

    work: Path
    executor: Executor | None
    digest: str
    tell: OnProgress

    def run(
        self,
        name: str,
        function: Function,
        arguments: Sequence[dict[str, Any]],
        *,
        after: str | None = None,
        reads: Reads | None = None,
    ) -> list[dict[str, Any]]:
        """Run a task for each of the arguments, but for those that are done; their results in order.

        Args:
            name: of the stage.
            function: importable by name, what a worker calls.
            arguments: plain data, one for each task.
            after: digest of what the tasks read, if it is not all that was done before.
            reads: of a task's number the patterns of files below `work` that it is the last to read; they are
                deleted when it is finished.
        """
        keys = [_key(after or self.digest, name, index, a) for index, a in enumerate(arguments)]
        folders = [self.work / name / f"{index:05}" for index in range(len(arguments))]
        sweep(self.work / name)
        results = [_finished(folder, key) for folder, key in zip(folders, keys, strict=True)]
        waiting = [index for index, result in enumerate(results) if result is None]
        reads = reads or (lambda _: ())
        for index in set(range(len(results))) - set(waiting):
            self.forget(*reads(index))  # the job was stopped before it came to this
        told, started = time.monotonic(), time.monotonic()
        for count, (index, result) in enumerate(
            self._results(function, arguments, folders, keys, waiting), 1
        ):
            results[index] = result
            self.forget(*reads(index))
            if time.monotonic() - told > _PATIENCE and count < len(waiting):
                told = time.monotonic()
                left = (told - started) / count * (len(waiting) - count)
                self.tell(f"  {name}: {count} of {len(waiting)} tasks, about {left:,.0f} s left")
        self.digest = _digest([self.digest, keys])
        return [result for result in results if result is not None]

    def forget(self, *patterns: str) -> None:
        """Delete files below `work` that nothing reads any more; that their tasks are done stays known."""
        for pattern in patterns:
            for path in self.work.glob(pattern):
                if path.name != _DONE:
                    path.unlink(missing_ok=True)

    def _results(
        self,
        function: Function,
        arguments: Sequence[dict[str, Any]],
        folders: list[Path],
        keys: list[str],
        waiting: list[int],
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        calls = {i: (function, self.work, folders[i], keys[i], arguments[i], i) for i in waiting}
        if self.executor is None:
            yield from ((i, _perform(*call)) for i, call in calls.items())
            return
        futures: dict[Future[dict[str, Any]], int] = {
            self.executor.submit(_perform, *call): i for i, call in calls.items()
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, BrokenExecutor):
                raise ChildProcessError(
                    "a worker process ended: killed, or out of memory; the same command goes on where it "
                    "was; with fewer --workers or less --memory the tasks are smaller"
                ) from None
            raise


@contextmanager
def work_directory(work: Path, digest: str) -> Iterator[None]:
    """The directory of a job, for this process alone; what lies there of another job goes first.

    Raises:
        ConfigError: nothing can be there, such as below a file.
        DataError: another process works in it.
        OSError: the disk is full, read-only, or fails.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        if error.errno not in WRONG_PLACE:
            raise
        raise ConfigError(f"{work} cannot be written: {error.strerror}; choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{work} is in use by another ctr prepare; wait for it, or choose another --out"
            ) from None
        told = work / "job"
        if not told.is_file() or told.read_text() != digest:
            for path in work.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            told.write_text(digest)
        yield


@cache
def code_digest() -> str:
    """sha256 of the program's source that makes the files: other code is another job."""
    root = Path(features.__file__).parent
    return _digest(
        [
            [str(p.relative_to(root)), hashlib.sha256(p.read_bytes()).hexdigest()]
            for p in sorted(root.rglob("*.py"))
        ]
    )


def plain_json(value: Any) -> bytes:
    """Plain data as JSON in its own order: that of a spec's features decides that of columns."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def digest_of(value: Any) -> str:
    """sha256 of plain data."""
    return _digest(value)


def _perform(
    function: Function, work: Path, folder: Path, key: str, arguments: dict[str, Any], index: int
) -> dict[str, Any]:
    """One task, in whichever process: its directory is whole or absent."""
    if (found := _finished(folder, key)) is not None:  # a scheduler may run a task twice
        return found
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_name(f"{TMP_PREFIX}{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    result: dict[str, Any] = json.loads(plain_json(function(work, partial, arguments)))
    for path in partial.iterdir():
        fsync_path(path)
    write_file(partial / _DONE, plain_json({"key": key, "result": result}))
    try:
        rename(partial, folder, point=f"task.{folder.parent.name}", index=index)
    except OSError:
        found = _finished(folder, key)  # somebody else was first
        if found is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
        return found
    return result


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The result of a task that was done with the same key."""
    try:
        found = json.loads((folder / _DONE).read_bytes())
    except (OSError, ValueError):
        return None
    return found["result"] if found.get("key") == key else None


def _key(digest: str, name: str, index: int, arguments: dict[str, Any]) -> str:
    return _digest([digest, name, index, arguments])


def _digest(value: Any) -> str:
    return hashlib.sha256(plain_json(value)).hexdigest()
