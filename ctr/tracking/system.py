"""Memory and processor use of this job, written to the journal every few seconds."""

from __future__ import annotations

from threading import Event, Thread

import psutil

from ctr.errors import RetryableError
from ctr.runs.journal import Journal


class SystemSampler:
    """A thread that writes a ``system`` row every `seconds`: RSS in MiB, CPU in % of one core, threads."""

    def __init__(self, journal: Journal, *, seconds: float) -> None:
        self.step = 0
        self._journal = journal
        self._seconds = seconds
        self._stop = Event()
        self._thread = Thread(target=self._run, name="ctr-system", daemon=True)

    def start(self, step: int) -> None:
        """Begin to sample; `step` may then be set at any time."""
        self.step = step
        self._thread.start()

    def stop(self) -> None:
        """End; returns when no row can be written any more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        process = psutil.Process()
        process.cpu_percent()  # the first call only starts its clock
        while not self._stop.wait(self._seconds):
            wall = {
                "rss_mib": round(process.memory_info().rss / 2**20, 1),
                "cpu_percent": process.cpu_percent(),
                "threads": process.num_threads(),
            }
            try:
                self._journal.write("system", self.step, wall=wall)
            except RetryableError:
                return  # the training loop meets the same disk and reports it
