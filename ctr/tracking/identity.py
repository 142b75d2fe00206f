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
class Identity:
    """A random ID that stays with the run directory, the run's name, and where it reports to."""

    uid: str
    name: str
    experiment: str
    uri: str


def known_identity(run: RunDir) -> Identity | None:
    """What ``tracking.json`` says; None if it is absent, damaged, or came here with a copy of another run."""
    try:
        found = Identity(**json.loads(run.tracking_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    texts = all(isinstance(value, str) for value in asdict(found).values())
    return found if texts and found.uid.isalnum() and found.name == run.path.resolve().name else None


def keep_identity(run: RunDir, *, experiment: str, uri: str) -> Identity:
    """The identity of a run that now reports to `uri`; kept for its next session and for `sync`."""
    known = known_identity(run)
    uid = known.uid if known else uuid.uuid4().hex
    identity = Identity(uid, run.path.resolve().name, experiment, uri)
    if identity != known:
        replace_file(run.tracking_file, canonical_json(asdict(identity)))
    return identity


def code_commit() -> str | None:
    """The Git commit of this code, if it lies in a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
