"""Errors that say that memory could not be had, in the words of each library."""

from __future__ import annotations

from features.errors import CtrError
from features.memory.limit import limit_reached

_SAID = (
    "can't allocate memory",  # torch
    "CUDA out of memory",
    "malloc of size",  # Arrow
    "bad_alloc",
    "Cannot allocate memory",  # the system: mapped files, libraries, new processes
    "can't start new thread",
    "failed to map segment",  # of a library
)


def is_shortage(error: BaseException) -> bool:
    """Whether Python, torch, Arrow, Polars or the system could not get memory.

    A panic, and what nobody expected, is one if the address space was nearly used up.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(said in text for said in _SAID):
        return True
    panicked = type(error).__name__ == "PanicException" or "Panic" in text or "panicked" in text
    return (panicked or not isinstance(error, CtrError)) and limit_reached()


def told_by(error: BaseException) -> str:
    """The line of an error's text that tells of memory, or else its first, of 300 characters at most."""
    lines = str(error).strip().splitlines() or ["no message"]
    return next((line for line in lines if any(said in line for said in _SAID)), lines[0])[:300]
