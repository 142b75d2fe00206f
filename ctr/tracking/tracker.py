"""The one place a job reports to, and the command that sends what was left unsent."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ctr.errors import RetryableError
from ctr.runs.directory import RunDir
from ctr.runs.journal import Row, read_from, read_rows
from ctr.tracking.address import tracking_uri, without_password
from ctr.tracking.replica import Replica
from ctr.tracking.rows import params
from ctr.tracking.store import StoreError
from ctr.tracking.system import SystemSampler
from ctr.tracking.tracked_run import code_commit, keep_run, known_run
from features.errors import CtrError

MAX_WAIT = 60.0  # seconds between two tries while MLflow is away
# Seconds that the end of a session waits for MLflow; whoever sent a signal waits for the job.
PATIENCE = {"FINISHED": 30.0, "FAILED": 30.0, "KILLED": 5.0}
_log = logging.getLogger(__name__)


class Tracker:
    """Writes rows to the journal and lets MLflow follow.

    A session starts with `begin`, or with `resume_at` for training, and ends with `close`. As a context
    manager it ends as FINISHED, as KILLED on KeyboardInterrupt or an exit with 130 or 143, as FAILED on any
    other exception.

    Args:
        run: the open run directory.
        uri: ``auto`` (SQLite beside the runs), any MLflow tracking URI, or None for the journal only.
        experiment: MLflow's name for a group of runs.
        config: the resolved config; becomes MLflow parameters.
        dataset: ``name``, ``sha256`` (of the manifest), ``source``, and any counts.
        tags: further MLflow tags.
        flush_seconds: how often the thread looks for new rows.
        system_seconds: how often memory and CPU are sampled; 0 = never.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        uri: str | None = "auto",
        experiment: str = "ctr",
        config: Mapping[str, Any] | None = None,
        dataset: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        flush_seconds: float = 5.0,
        system_seconds: float = 10.0,
    ) -> None:
        self._run = run
        self._about = {
            "params": params(config or {}),
            "dataset": dict(dataset or {}),
            "tags": dict(tags or {}),
        }
        self._flush_seconds = flush_seconds
        self._step = 0
        self._open = False
        self._closing = Event()
        self._warned = False
        self._sampler = SystemSampler(run.journal, seconds=system_seconds) if system_seconds else None
        self._replica, self._thread = None, None
        if target := tracking_uri(run.path, uri):
            tracked = keep_run(run, experiment=experiment, uri=uri or "none")
            self._replica = Replica(run, target, tracked)
            self._thread = Thread(target=self._follow, args=(self._replica,), name="ctr-mlflow", daemon=True)

    @property
    def run_id(self) -> str:
        """MLflow's ID of the run; empty while MLflow has not answered, or is not used."""
        return self._replica.run_id if self._replica else ""

    def resume_at(self, step: int) -> None:
        """Begin a session of training behind `step` finished steps: the rows of later steps are dropped.

        Args:
            step: of the restored checkpoint; 0 for a fresh start.
        """
        self._run.journal.truncate_after(step if step > 0 else -1)
        self.begin(step)

    def begin(self, step: int) -> None:
        """Begin a session at `step` that keeps all rows, such as an evaluation; returns at once."""
        if not read_from(self._run.journal_file, 0, limit=1)[0]:
            self._run.journal.write("run", 0, **self._about)
        wall = {"event": "start", "pid": os.getpid(), "host": socket.gethostname(), "commit": code_commit()}
        self._run.journal.write("session", step, wall=wall)
        self._step = step
        self._open = True
        if self._sampler:
            self._sampler.start(step)
        if self._thread:
            self._thread.start()

    def log(
        self, kind: str, step: int, values: Mapping[str, Any], *, wall: Mapping[str, Any] | None = None
    ) -> Row:
        """Write one row to the journal (see `Journal.write`); MLflow shows its numbers as ``kind/name``."""
        self._step = step
        if self._sampler:
            self._sampler.step = step
        return self._run.journal.write(kind, step, wall=wall, **values)

    def artifact(self, path: Path) -> None:
        """Have a file or directory of the run directory copied to MLflow, under its relative path."""
        relative = path.resolve().relative_to(self._run.path.resolve())
        self._run.journal.write("artifact", self._step, path=relative.as_posix())

    def model(self, checkpoint: Path, *, dataset: Path, opener: str) -> None:
        """Have a checkpoint copied to MLflow as a model (`ctr.tracking.pyfunc`).

        Args:
            checkpoint: directory of a step in the run directory.
            dataset: where the data set lies.
            opener: `module:function` that opens both.
        """
        path = checkpoint.resolve().relative_to(self._run.path.resolve()).as_posix()
        wall = {"dataset": str(dataset.resolve())}
        self._run.journal.write("model", self._step, path=path, opener=opener, wall=wall)

    def flush(self) -> None:
        """Force the journal to the disk; call it before a checkpoint is saved. Does not wait for MLflow."""
        self._run.journal.sync()

    def close(self, status: str = "FINISHED", *, timeout: float | None = None) -> bool:
        """End the session; safe to call twice.

        Args:
            status: FINISHED, FAILED or KILLED.
            timeout: seconds to wait at most for the rest to reach MLflow; None: those of `PATIENCE`.

        Returns:
            True if MLflow has everything (or is not used).
        """
        if not self._open:
            return True
        self._open = False
        if self._sampler:
            self._sampler.stop()
        try:
            self._run.journal.write("session", self._step, wall={"event": "end", "status": status})
            self._run.journal.sync()
        finally:
            self._closing.set()
        return self._await_replica(PATIENCE[status] if timeout is None else timeout)

    def _await_replica(self, timeout: float) -> bool:
        if self._thread is None or self._replica is None:
            return True
        self._thread.join(timeout)
        done = not self._thread.is_alive() and self._replica.is_complete()
        if not done:
            _log.warning("MLflow does not have all of %s; send the rest with: ctr sync", self._run.path)
        return done

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        interrupted = isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) in (130, 143)
        self.close("FINISHED" if error is None else "KILLED" if interrupted else "FAILED")

    def _follow(self, replica: Replica) -> None:
        failures = 0
        while True:
            closing = self._closing.is_set()
            try:
                replica.pump()
                failures = 0
            except Exception as error:  # whatever MLflow raises, training goes on
                failures += 1
                self._warn(replica, error)
            if closing:
                return
            self._closing.wait(min(self._flush_seconds * 2 ** min(failures, 10), MAX_WAIT))

    def _warn(self, replica: Replica, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "MLflow at %s cannot be used now (%s); training goes on and %s keeps every metric",
                without_password(replica.uri),
                _short(error),
                self._run.journal_file,
            )


def sync(
    path: Path | str,
    uri: str | None = None,
    *,
    experiment: str = "ctr",
    tags: Mapping[str, str] | None = None,
) -> int:
    """Send to MLflow whatever of a run's journal is not there yet; doing it again changes nothing.

    A run whose last session has no end has crashed, since nobody holds its lock: it is marked FAILED.

    Args:
        path: the run directory.
        uri: as for `Tracker`; None = where the run reports to, else the SQLite file beside the runs.
        experiment: of a run that has reported nowhere yet.
        tags: further MLflow tags.

    Returns:
        How many metric values were new to MLflow.

    Raises:
        LockedError: the run is still going on.
        ConfigError: the journal names files outside the run.
        RetryableError: MLflow cannot be reached, or refuses.
    """
    with RunDir.open(path, create=False) as run:
        known = known_run(run)
        wanted = uri or (known.uri if known else "auto")
        target = tracking_uri(run.path, wanted) or tracking_uri(run.path, "auto") or ""
        tracked = known or keep_run(run, experiment=experiment, uri=wanted)
        replica = Replica(run, target, tracked)
        try:
            replica.pump()
            replica.tag(tags or {})
            sessions = [row["wall"] for row in read_rows(run.journal_file) if row["kind"] == "session"]
            if sessions and sessions[-1]["event"] == "start":
                replica.terminate("FAILED")
        except CtrError:
            raise  # it says itself what to do
        except Exception as error:
            # A connection that fails is an OSError; whatever else is raised comes from a store that is there.
            away = isinstance(error, OSError)
            raise RetryableError(
                f"MLflow at {without_password(target)} must take the rows of {path}, got {_short(error)}; "
                f"{'start it' if away else 'correct what it refuses'}, or name another with --uri, and run "
                "again"
            ) from error
        return replica.sent


def _short(error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
