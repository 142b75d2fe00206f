"""Workers in parallel: how many at a time, what is tried again, how a signal and a failure end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctr.ablate import schedule
from ctr.ablate.halving import choose
from ctr.ablate.schedule import Job, Pool, last_line
from ctr.ablate.subruns import SubRun
from ctr.ablate.task import Task


@dataclass
class Desk:
    """Workers that take some looks to end, with the codes asked for."""

    codes: dict[str, list[int]]
    looks: int = 2
    at_work: list[str] = field(default_factory=list)
    most: int = 0
    begun: list[str] = field(default_factory=list)
    asked_to_stop: list[str] = field(default_factory=list)

    def launch(self, task: Any) -> Any:
        name = task.config
        self.begun.append(name)
        self.at_work.append(name)
        self.most = max(self.most, len(self.at_work))
        left = iter(range(self.looks))
        codes = self.codes.setdefault(name, [0])
        code = codes.pop(0) if len(codes) > 1 else codes[0]

        def poll() -> int | None:
            if next(left, None) is not None and name not in self.asked_to_stop:
                return None
            if name in self.at_work:
                self.at_work.remove(name)
            return code

        return SimpleNamespace(poll=poll, stop=lambda: self.asked_to_stop.append(name))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(Task, "of", lambda subrun, until: SimpleNamespace(config=subrun.key, until=until))


def jobs(*names: str) -> Sequence[Job]:
    return [Job(SubRun(name, None, None, 1)) for name in names]  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_directories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(SubRun, "path", Path("nowhere"))
    yield


def test_as_many_as_asked_for_at_a_time_in_order() -> None:
    desk = Desk({})
    assert Pool(desk.launch, 2).run(jobs("a", "b", "c", "d", "e"))
    assert (desk.most, desk.begun, desk.at_work) == (2, list("abcde"), [])


@pytest.mark.parametrize("workers", [0, -1])
def test_a_pool_without_workers_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 worker, got {workers}"):
        Pool(Desk({}).launch, workers)


def test_a_busy_directory_is_tried_again_and_a_failure_stops_no_other() -> None:
    desk = Desk({"a": [6, 75, 0], "b": [4]})
    pool = Pool(desk.launch, 1, pause=0)
    assert pool.run(jobs("a", "b", "c"))
    assert desk.begun.count("a") == 3 and desk.begun.count("c") == 1
    assert [(f.subrun.key, f.code) for f in pool.failures] == [("b", 4)]


def test_what_stays_busy_fails_in_the_end() -> None:
    desk = Desk({"a": [6]})
    pool = Pool(desk.launch, 1, pause=0)
    assert pool.run(jobs("a"))
    assert (len(desk.begun), [f.code for f in pool.failures]) == (schedule.TRIES, [6])


def test_a_signal_stops_every_worker_and_starts_no_other() -> None:
    desk = Desk({"a": [143], "b": [143]}, looks=10**6)
    looks = iter(range(10))
    pool = Pool(desk.launch, 2, stopped=lambda: next(looks, None) is None)
    assert not pool.run(jobs("a", "b", "c"))
    assert (desk.asked_to_stop, desk.begun, pool.failures) == (["a", "b"], ["a", "b"], [])


def test_the_last_error_of_a_log_is_what_a_failure_says(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_text("step 1\nerror: the loss is NaN\n  more\n")
    assert last_line(log) == "error: the loss is NaN"


def test_halving_stops_the_worse_half_and_never_all() -> None:
    stopped = choose({"a": 0.5, "b": 0.7, "c": 0.6, "d": 0.4, "e": 0.1}, 0.25)
    assert [(s.variant, s.kept) for s in stopped] == [("d", 0.5), ("e", 0.5)]
    assert choose({"a": 0.5}, 0.5) == [] and choose({}, 0.5) == []
