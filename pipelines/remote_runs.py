"""Runs in an object store: the commands work in a copy on this machine, whose changes are uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from features.remote.url import remote
from features.remote.working_copy import working_copy

_LOCKS = frozenset({"lock", "results.lock"})


@contextmanager
def runs_here(*places: str | Path | None) -> Iterator[None]:
    """Within the block those of the runs that are remote are on this machine, where `here` finds them.

    Raises:
        RetryableError: the store cannot be reached, or another process here works in such a run.
        DataError: a run has changed both there and here.
    """
    with ExitStack() as stack:
        for url in dict.fromkeys(remote(place) for place in places if place is not None):
            if url is not None:
                stack.enter_context(working_copy(url, ignored=_LOCKS, order=_upload_order))
        yield


def _upload_order(name: str) -> tuple[bool, bool, str]:
    """Tensors, then what says that they are whole, then the journal that speaks of it."""
    return name == "journal.jsonl", name.endswith(".json"), name
