"""Results made ahead in background threads and yielded in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from ctr.errors import RetryableError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Seconds that a thread may take to finish its item after the caller has stopped.
_JOIN_SECONDS = 5.0

_Jobs = SimpleQueue["tuple[Future[Result], Item] | None"]


def in_order(
    make: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int,
    patience: float,
    name: str = "worker",
) -> Iterator[Result]:
    """Yield make(item) for every item in order, made by threads while the caller is busy.

    An exception of `make` is raised here as it is, in place of its result. When the caller stops early, or an
    exception ends the iteration, the threads end as well.

    Args:
        make: called in the threads, for several items at a time.
        items: what to make.
        workers: number of threads.
        ahead: at most so many results are being made or wait, besides the one that the caller has.
        patience: seconds to wait for one result.
        name: of the threads.

    Raises:
        RetryableError: no result within `patience`; the threads are left behind and end with the process.

    Example:
        >>> list(in_order(lambda x: x * x, range(4), workers=2, ahead=2, patience=60))
        [0, 1, 4, 9]
    """
    jobs: _Jobs = SimpleQueue()
    # Daemons: a thread stuck in a dead file system must not keep the process alive.
    threads = [
        threading.Thread(target=_work, args=(jobs, make), name=f"{name}-{i}", daemon=True)
        for i in range(workers)
    ]
    for thread in threads:
        thread.start()
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)

    def submit(count: int) -> None:
        for item in islice(rest, count):
            waiting.append(Future())
            jobs.put((waiting[-1], item))

    try:
        submit(ahead)
        while waiting:
            result = _result(waiting.popleft(), patience, name)
            submit(1)  # it is made while the caller works with this result
            yield result
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_JOIN_SECONDS)


def _work(jobs: _Jobs, make: Callable[[Item], Result]) -> None:
    while (job := jobs.get()) is not None:
        future, item = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(make(item))
        except BaseException as error:
            future.set_exception(error)


def _result(future: Future[Result], patience: float, name: str) -> Result:
    wait([future], timeout=patience)
    if not future.done():
        raise RetryableError(
            f"{name} threads must make a batch within {patience:g} s, got none; the disk or network file "
            "system may hang: check it, then start the job again"
        )
    return future.result()
