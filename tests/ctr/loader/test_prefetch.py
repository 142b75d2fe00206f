"""ctr.loader.prefetch: order, exceptions, clean ends, no hang."""

from __future__ import annotations

import re
import threading
import time

import pytest

from ctr.errors import RetryableError
from ctr.loader.prefetch import in_order


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ahead", [1, 7])
def test_results_come_in_order(workers: int, ahead: int) -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.002 * (i % 3 == 0))
        return i * i

    found = list(in_order(slow_first, range(20), workers=workers, ahead=ahead, patience=60))
    assert found == [i * i for i in range(20)]


def test_no_more_than_ahead_are_made() -> None:
    made = []
    results = in_order(lambda i: made.append(i), range(100), workers=1, ahead=3, patience=60)
    next(results)
    while len(made) < 4:
        time.sleep(0.001)
    time.sleep(0.01)
    assert made == [0, 1, 2, 3]
    results.close()  # type: ignore[attr-defined]


def test_no_more_than_ahead_are_made_while_the_first_is_waited_for() -> None:
    """Also where there are threads for more."""
    started, release = list[int](), threading.Event()

    def make(i: int) -> None:
        started.append(i)
        release.wait()

    results = in_order(make, range(100), workers=9, ahead=3, patience=60)
    caller = threading.Thread(target=lambda: next(results))
    caller.start()
    while len(started) < 3:
        time.sleep(0.001)
    time.sleep(0.02)
    found = sorted(started)
    release.set()
    caller.join()
    assert found == [0, 1, 2]
    results.close()  # type: ignore[attr-defined]


def test_an_exception_comes_in_its_place_and_ends_the_threads() -> None:
    def fail_at_3(i: int) -> int:
        if i == 3:
            raise TimeoutError("mine")
        return i

    before = threading.active_count()
    results = in_order(fail_at_3, range(9), workers=2, ahead=4, patience=60)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError, match="mine"):
        next(results)
    assert threading.active_count() == before


@pytest.mark.fault(30)
def test_a_hanging_worker_does_not_hang_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which thread hangs, and in what."""
    monkeypatch.setattr("ctr.loader.prefetch._JOIN_SECONDS", 0.01)
    release = threading.Event()
    results = in_order(
        lambda i: i or release.wait(),
        range(3),
        workers=2,
        ahead=2,
        patience=0.05,
        name="loader",
        describe=lambda i: f"making batch {i} from train/",
    )
    with pytest.raises(RetryableError) as caught:
        next(results)
    assert re.fullmatch(
        r"a batch must be made within 0.05 s, but thread loader-[01] is making batch 0 from train/: the disk "
        "or network file system may hang or fail; check it, then start the job again",
        str(caught.value),
    )
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith("loader"))
    release.set()


@pytest.mark.fault(30)
def test_a_thread_that_exits_is_no_end_of_the_data() -> None:
    """sys.exit(0) in a thread would end the training as if all had gone well."""

    def leave(i: int) -> int:
        if i == 1:
            raise SystemExit(0)
        return i

    results = in_order(
        leave, range(3), workers=1, ahead=1, patience=60, name="loader", describe="at {}".format
    )
    assert next(results) == 0
    with pytest.raises(RetryableError, match=r"thread loader-0 died at 1: SystemExit\(0\)") as caught:
        next(results)
    assert caught.value.exit_code == 75


@pytest.mark.fault(30)
def test_a_thread_that_is_gone_is_noticed_before_the_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in waits, not in seconds: the patience is more than a year."""
    waits: list[float] = []

    def wait(futures: list[object], timeout: float) -> None:
        waits.append(timeout)
        assert len(waits) < 3, "it waits for a thread that is gone"

    monkeypatch.setattr("ctr.loader.prefetch.wait", wait)
    monkeypatch.setattr("ctr.loader.prefetch._work", lambda *_: None)
    with pytest.raises(RetryableError, match="no thread is at work"):
        next(in_order(str, range(3), workers=1, ahead=1, patience=4e7))
    assert all(timeout <= 1.0 for timeout in waits)
