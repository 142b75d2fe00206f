"""Who a run is to MLflow, and from which code it comes."""

from __future__ import annotations

import json
import subprocess
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from ctr.runs.directory import RunDir
from features.durable import canonical_json, replace_file


@dataclass(frozen=True)
class TrackedRun:
    """A random ID that stays with the run directory, the run's name, and where it reports to."""

    uid: str
    name: str
    experiment: str
    uri: str


def known_run(run: RunDir) -> TrackedRun | None:
    """What ``tracking.json`` says; None if it is absent, damaged, or came here with a copy of another run."""
    try:
        found = TrackedRun(**json.loads(run.tracking_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    texts = all(isinstance(value, str) for value in asdict(found).values())
    return found if texts and found.uid.isalnum() and found.name == run.path.resolve().name else None


def keep_run(run: RunDir, *, experiment: str, uri: str) -> TrackedRun:
    """Who a run that now reports to `uri` is; kept for its next session and for `sync`."""
    known = known_run(run)
    uid = known.uid if known else uuid.uuid4().hex
    tracked = TrackedRun(uid, run.path.resolve().name, experiment, uri)
    if tracked != known:
        replace_file(run.tracking_file, canonical_json(asdict(tracked)))
    return tracked


def code_commit() -> str | None:
    """The Git commit of this code, if it lies in a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
