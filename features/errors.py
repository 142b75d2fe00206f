"""The errors a user can cause, each with the exit code its command ends with."""

from __future__ import annotations


class CtrError(Exception):
    """Base of every error that is reported to the user without a traceback.

    The message says what must hold, what came, and what to do.
    """

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What a library says, without its query plan."""
    return str(error).strip().split("\n", 1)[0][:200]


class ConfigError(CtrError):
    """A wrong spec, configuration or command line (exit code 2)."""

    exit_code = 2


class DataError(CtrError):
    """Unreadable, inconsistent or leaking data (exit code 3)."""

    exit_code = 3


class RetryableError(CtrError):
    """The job may succeed when it is started again: I/O, full disk, network, preemption (exit code 75)."""

    exit_code = 75
