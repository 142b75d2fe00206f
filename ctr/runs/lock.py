"""The lock of a directory: held by one job at a time, freed by the kernel when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from ctr.errors import LockedError


class Lock:
    """A lock that is held from the moment it is made until `close`.

    Args:
        file: which says who holds it. It is never deleted: a second job could lock the deleted one while a
            third locks its successor.
        what: that is used by one job at a time, for the message.

    Raises:
        LockedError: another job holds it; the message says which.
        OSError: the file cannot be written.
    """

    def __init__(self, file: Path, what: str) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _signature(), 0)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(_holder(file, what)) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Free it; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _signature() -> bytes:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode()


def _holder(file: Path, what: str) -> str:
    try:
        data = json.loads(file.read_text())
        who = f"process {data['pid']} on host {data['host']}, started {data['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "a process that has not yet said which"
    return (
        f"{what} must be used by one job at a time, but {who}, holds it; "
        f"wait for it, stop it, or choose another run name"
    )
