"""What the other ranks of a job have in place of a tracker: one job, one journal, one MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class SilentTracker:
    """Takes what `Tracker` takes and keeps none of it."""

    def resume_at(self, step: int) -> None:
        """See `Tracker.resume_at`."""

    def log(
        self, kind: str, step: int, values: Mapping[str, Any], *, wall: Mapping[str, Any] | None = None
    ) -> None:
        """See `Tracker.log`."""

    def artifact(self, path: Path) -> None:
        """See `Tracker.artifact`."""

    def flush(self) -> None:
        """See `Tracker.flush`."""

    def close(self, status: str = "FINISHED", *, timeout: float | None = None) -> bool:
        """See `Tracker.close`."""
        return True

    def __enter__(self) -> SilentTracker:
        return self

    def __exit__(self, *_: object) -> None: ...
