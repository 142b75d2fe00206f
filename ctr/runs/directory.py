"""The directory of one run: one job trains it at a time, others may evaluate it meanwhile.

runs/<name>/
  config.yaml   spec.yaml (of the data set)   journal.jsonl   lock   tracking.json
  checkpoints/step-N/
  predictions/<split>.parquet   report/   results.lock

`lock` is for whoever writes journal and checkpoints, `results.lock` for predictions and report. Readers need
neither.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ctr.errors import LockedError, RetryableError
from ctr.runs.journal import Journal
from ctr.runs.lock import Lock
from features.durable import TMP_PREFIX, WRONG_PLACE, sweep, write_file
from features.durable.own import check_free, claim
from features.errors import ConfigError, CtrError
from features.remote.working_copy import here

_log = logging.getLogger(__name__)
_MOST_OF_A_ROW = 2**24  # bytes; the first row holds the configuration
_EMPTY_RUN = {
    "journal.jsonl",
    "lock",
    "results.lock",
    "log.txt",
    "checkpoints",
    "predictions",
    "report",
    f"{TMP_PREFIX}probe",
}


class RunDir:
    """The paths of a run, its locks and its journal.

    Made by `open` or `open_results`, ended by `close` or ``with``; without them it only names paths.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.spec = path / "spec.yaml"
        self.journal_file = path / "journal.jsonl"
        self.tracking_file = path / "tracking.json"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.report = path / "report"
        self._locks: list[Lock] = []

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True, results: bool = False) -> RunDir:
        """Make the directory if needed, lock it, prove that it can be written, sweep what a killed job left.

        Args:
            path: the directory ``runs/<name>``; the name is already checked.
            create: False for commands that need an existing run.
            results: lock predictions and report too, to write them.

        Raises:
            ConfigError: the directory cannot be written, or does not exist and `create` is False.
            LockedError: another job holds it.
            RetryableError: the disk is full or fails.
        """
        run = cls(here(path))
        if not create:
            run._check_exists()
        try:
            cls.claim(run.path)
            run._make()
            for name in ("lock", "results.lock")[: 1 + results]:
                run._acquire(name)
            run._probe()
            run._sweep(run.path, run.checkpoints)
            if results:
                run._sweep(*run._results)
            else:
                run._sweep_results_if_free()
            run.journal = Journal(run.journal_file)
        except BaseException as error:
            run.close()
            if isinstance(error, OSError):
                raise _unwritable(run.path, error) from error
            raise
        return run

    @classmethod
    def open_results(cls, path: str | Path) -> RunDir:
        """Lock predictions and report of an existing run, which another job may be training.

        Raises:
            ConfigError: there is no such run, or its directory cannot be written.
            LockedError: another job writes predictions or a report.
            RetryableError: the disk is full or fails.
        """
        run = cls(here(path))
        run._check_exists()
        cls.check_free(run.path)
        try:
            run._make()
            run._acquire("results.lock")
            run._sweep(*run._results)
        except OSError as error:
            run.close()
            raise _unwritable(run.path, error) from error
        return run

    def record(self) -> bool:
        """Lock the journal too, to write into it; False, with a warning, if a job holds it to train the run.

        Raises:
            RetryableError: the disk is full or fails.
        """
        try:
            self._acquire("lock")
        except LockedError:
            _log.warning(
                "%s is being trained: its journal and MLflow do not hear of these figures, its report does; "
                "evaluate again when the training has ended",
                self.path,
            )
            return False
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.journal = Journal(self.journal_file)
        return True

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

    def _acquire(self, name: str) -> None:
        self._locks.append(Lock(self.path / name, str(self.path)))

    def _check_exists(self) -> None:
        if not self.journal_file.is_file():
            raise ConfigError(
                f"{self.path} must be the directory of a run, but has no {self.journal_file.name}; check the "
                "name"
            )

    @property
    def _results(self) -> tuple[Path, Path]:
        return self.predictions, self.report

    def _sweep_results_if_free(self) -> None:
        """What another job is writing at this moment bears the names of leftovers: it is left alone."""
        try:
            lock = Lock(self.path / "results.lock", str(self.path))
        except LockedError:
            return
        try:
            self._sweep(*self._results)
        finally:
            lock.close()

    def _sweep(self, *directories: Path) -> None:
        for leftover in (found for directory in directories for found in sweep(directory)):
            _log.info("removed %s, which an interrupted job left unfinished", leftover)

    def close(self) -> None:
        """Close the journal and free the locks; safe to call twice."""
        if hasattr(self, "journal"):
            self.journal.close()
        while self._locks:
            self._locks.pop().close()

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


def _unwritable(path: Path, error: OSError) -> CtrError:
    text = f"the run directory {path} must be writable, got {error}; "
    if error.errno in WRONG_PLACE:
        return ConfigError(text + "choose another place")
    return RetryableError(text + "free space or mend the disk, then run the command again")
