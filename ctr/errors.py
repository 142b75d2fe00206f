"""The errors of a run, each with the exit code its command ends with."""

from __future__ import annotations

from features.errors import CtrError, RetryableError

__all__ = ["CheckpointError", "LockedError", "NonFiniteError", "RetryableError"]


class NonFiniteError(CtrError):
    """A loss, logit or gradient is NaN or infinite (exit code 4)."""

    exit_code = 4


class CheckpointError(CtrError):
    """No checkpoint that can be used, or one of another model (exit code 5)."""

    exit_code = 5


class LockedError(CtrError):
    """Another job holds the run directory (exit code 6)."""

    exit_code = 6
