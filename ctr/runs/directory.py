"""The directory of one run, held by one job at a time.

runs/<name>/
  config.yaml   spec.yaml (of the data set)   journal.jsonl   lock   tracking.json
  checkpoints/step-N/   predictions/<split>.parquet   report/
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from ctr.errors import LockedError, RetryableError
from ctr.runs.journal import Journal
from features.durable import TMP_PREFIX, sweep, write_file
from features.durable.own import check_free, claim
from features.errors import ConfigError, CtrError

_log = logging.getLogger(__name__)
_HOPELESS = {
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
_MOST_OF_A_ROW = 2**24  # bytes; the first row holds the configuration
_EMPTY_RUN = {
    "journal.jsonl",
    "lock",
    "log.txt",
    "checkpoints",
    "predictions",
    "report",
    f"{TMP_PREFIX}probe",
}


class RunDir:
    """The paths of a run, its lock and its journal; made by `RunDir.open`, ended by `close` or ``with``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.spec = path / "spec.yaml"
        self.journal_file = path / "journal.jsonl"
        self.tracking_file = path / "tracking.json"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.report = path / "report"
        self.lock_file = path / "lock"
        self._lock: int | None = None

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> RunDir:
        """Make the directory if needed, lock it, prove that it can be written, sweep what a killed job left.

        Args:
            path: the directory ``runs/<name>``; the name is already checked.
            create: False for commands that need an existing run.

        Raises:
            ConfigError: the directory cannot be written, or does not exist and `create` is False.
            LockedError: another job holds it.
            RetryableError: the disk is full or fails.
        """
        run = cls(Path(path))
        if not create and not run.journal_file.is_file():
            raise ConfigError(
                f"{path} must be the directory of a run, but has no {run.journal_file.name}; check the name"
            )
        try:
            cls.claim(run.path)
            run._make()
            run._acquire()
            run._probe()
        except OSError as error:
            run.close()
            raise _unwritable(run.path, error) from error
        try:
            for directory in (run.path, run.checkpoints, run.predictions, run.report):
                for leftover in sweep(directory):
                    _log.info("removed %s, which an interrupted job left unfinished", leftover)
            run.journal = Journal(run.journal_file)
        except BaseException:
            run.close()
            raise
        return run

    @staticmethod
    def check_free(path: Path) -> None:
        """Refuse a directory that holds files which no run made.

        Raises:
            ConfigError: naming it; nothing was touched.
        """
        check_free(path, "run", known=_is_run)

    @staticmethod
    def claim(path: Path) -> None:
        """Make the directory of a run that another process will open.

        Raises:
            ConfigError: files are there that no run made; nothing was touched.
        """
        claim(path, "run", known=_is_run)

    journal: Journal

    def _make(self) -> None:
        for directory in (self.path, self.checkpoints, self.predictions, self.report):
            directory.mkdir(parents=True, exist_ok=True)

    def _probe(self) -> None:
        probe = self.path / f"{TMP_PREFIX}probe"
        try:
            write_file(probe, b"writable")
        finally:
            probe.unlink(missing_ok=True)

    def _acquire(self) -> None:
        # The kernel frees a flock when its holder dies, even by kill -9. The file is never deleted: a second
        # job could lock the deleted one while a third locks its successor.
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(_holder(self.path, self.lock_file)) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)

    def close(self) -> None:
        """Close the journal and free the lock; safe to call twice."""
        if hasattr(self, "journal"):
            self.journal.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_run(path: Path) -> bool:
    """Whether a directory without marker is a run's: its journal begins as one, or nothing is there yet."""
    journal = path / "journal.jsonl"
    try:
        with journal.open("rb") as file:
            first = file.readline(_MOST_OF_A_ROW)
        if first:
            row = json.loads(first)
            return isinstance(row, dict) and {"kind", "step", "wall"} <= row.keys()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError):
        return False
    return {entry.name for entry in path.iterdir()} <= _EMPTY_RUN


def _holder(path: Path, lock_file: Path) -> str:
    try:
        data = json.loads(lock_file.read_text())
        who = f"process {data['pid']} on host {data['host']}, started {data['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "a process that has not yet said which"
    return (
        f"{path} must be used by one job at a time, but {who}, holds it; "
        f"wait for it, stop it, or choose another run name"
    )


def _unwritable(path: Path, error: OSError) -> CtrError:
    text = f"the run directory {path} must be writable, got {error}; "
    if error.errno in _HOPELESS:
        return ConfigError(text + "choose another place")
    return RetryableError(text + "free space or mend the disk, then run the command again")
