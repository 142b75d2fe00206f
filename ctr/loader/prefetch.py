"""Results made ahead in background threads and yielded in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from ctr.errors import RetryableError

Item = TypeVar("Item")
Result = TypeVar("Result")

_JOIN_SECONDS = 5.0  # that a thread may take to finish its item after the caller has stopped
_LOOK_SECONDS = 1.0  # between two looks whether the threads are alive

_RETRY = "the disk or network file system may hang or fail; check it, then start the job again"

_Jobs = SimpleQueue["tuple[Future[Result], Item] | None"]


def in_order(
    make: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int,
    patience: float,
    name: str = "worker",
    describe: Callable[[Item], str] = str,
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
        describe: an item for messages: what is made, and from which files.

    Raises:
        RetryableError: no result within `patience`, or a thread died; the threads are left behind and end
            with the process.

    Example:
        >>> list(in_order(lambda x: x * x, range(4), workers=2, ahead=2, patience=60))
        [0, 1, 4, 9]
    """
    jobs: _Jobs = SimpleQueue()
    doing: dict[str, str] = {}  # thread → what it is making
    # Daemons: a thread stuck in a dead file system must not keep the process alive.
    threads = [
        threading.Thread(target=_work, args=(jobs, make, doing, describe), name=f"{name}-{i}", daemon=True)
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
            result = _result(waiting.popleft(), patience, threads, doing)
            submit(1)  # it is made while the caller works with this result
            yield result
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_JOIN_SECONDS)


def _work(
    jobs: _Jobs, make: Callable[[Item], Result], doing: dict[str, str], describe: Callable[[Item], str]
) -> None:
    thread = threading.current_thread().name
    while (job := jobs.get()) is not None:
        future, item = job
        if not future.set_running_or_notify_cancel():
            continue
        doing[thread] = "at its first line"
        try:
            doing[thread] = describe(item)
            future.set_result(make(item))
        except Exception as error:
            error.add_note(f"in thread {thread}, {doing[thread]}")
            future.set_exception(error)
        except BaseException as error:  # such as SystemExit, which must not end the job as if all were done
            future.set_exception(RetryableError(f"thread {thread} died {doing[thread]}: {error!r}; {_RETRY}"))
        del doing[thread]


def _result(
    future: Future[Result], patience: float, threads: list[threading.Thread], doing: dict[str, str]
) -> Result:
    end = time.monotonic() + patience
    while not future.done() and (left := end - time.monotonic()) > 0 and any(t.is_alive() for t in threads):
        wait([future], timeout=min(left, _LOOK_SECONDS))
    if not future.done():
        stuck = [f"thread {name} is {what}" for name, what in sorted(doing.copy().items())]
        raise RetryableError(
            f"a batch must be made within {patience:g} s, but {'; '.join(stuck) or 'no thread is at work'}: "
            f"{_RETRY}"
        )
    return future.result()
