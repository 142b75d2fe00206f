"""The share of a slow network's time that a step hides, with dense staleness 0 and 1."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from functools import partial

from ctr.batch import Batch
from ctr.bench.link import DelayedLink
from ctr.bench.results import Bound, CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import case_config, given_or_synthetic, sized
from ctr.bench.timing import Samples, interleave, ratio
from ctr.bench.workload import Workload, first_batches
from features.dataset import Dataset

MODEL = "HyFormer, LONGER-style"
REQUESTS = 12
STEPS = 4  # timed together, behind one that is not: only inside a row of steps does one wait for the last
SHARES = (0.0, 0.3, 0.6, 0.9)  # time of the all-reduce over that of a step
HIDDEN, FREE = 0.8, 0.97

COLUMNS = [
    "all-reduce over step, %",
    "all-reduce, ms",
    "step, ms, staleness 0",
    "step, ms, staleness 1",
    "hidden, staleness 0",
    "hidden, staleness 1",
    "not waited for, staleness 0",
    "not waited for, staleness 1",
]

OverlapCase = tuple[int, float]  # staleness, share
Taken = dict[
    OverlapCase, tuple[Samples, Samples]
]  # seconds of a step, and those of them that went by waiting


@dataclass
class Timed:
    """A workload behind its link."""

    workload: Workload
    link: DelayedLink
    batch: Batch

    def step_seconds(self) -> tuple[float, float]:
        """Seconds of a step, and those of them that it waits for the link; means of a few."""
        self.workload.step(self.batch)
        start, waited = time.perf_counter(), self.link.waited
        for _ in range(STEPS):
            self.workload.step(self.batch)
        return (time.perf_counter() - start) / STEPS, (self.link.waited - waited) / STEPS


def run(settings: Settings) -> SuiteResult:
    """Step times for links on which the all-reduce takes from nothing to most of a step."""
    shape = replace(sized(Shape(), settings), requests=3 * REQUESTS)
    dataset = given_or_synthetic(settings, shape, "overlap")
    timed = {staleness: _build(settings, dataset, staleness) for staleness in (0, 1)}
    usual = min(one.step_seconds()[0] for _ in range(6) for one in timed.values())
    size = sum(parameter.nbytes for parameter in timed[0].workload.updates.exchange.parameters)
    samples = _measure(settings, timed, usual / size)
    free = _without_delay(settings, timed)
    note = (
        f"{size / 1e6:.1f} MB of dense gradients, buckets of "
        f"{timed[0].workload.config.distributed.bucket_mb:g} MiB, one process; a link that sums nothing and "
        "passes one bucket after the other. Hidden: 1 − (step − step without delay) / all-reduce, which the "
        "machine's own noise is in; not waited for: 1 − time stood still / all-reduce, which it is not. With "
        "staleness 0 buckets overlap with the rest of their own backward alone."
    )
    table = ResultTable("A slow network behind the dense gradients", COLUMNS, _rows(samples, usual), note)
    targets = _targets(samples, usual, free)
    return SuiteResult("overlap", "Communication behind computation", [table], targets=targets)


def _rows(samples: Taken, usual: float) -> list[list[CellValue]]:
    rows: list[list[CellValue]] = []
    for share in SHARES:
        milliseconds = [1000 * samples[s, share][0].median for s in (0, 1)]
        found = [
            of(samples, s, share, usual) if share else None
            for of in (_hidden, _not_waited_for)
            for s in (0, 1)
        ]
        rows.append([100 * share, 1000 * share * usual, *milliseconds, *found])
    return rows


def _targets(samples: Taken, usual: float, free: float) -> list[Bound]:
    what = "speed with staleness 1 over staleness 0 on a network that takes no time"
    found = [Bound(what, free, FREE, "at least")]
    for share in SHARES[1:]:
        what = f"share of the all-reduce hidden with staleness 1, where it takes {share:.0%} of a step"
        found.append(Bound(what, _hidden(samples, 1, share, usual), HIDDEN, "at least"))
        what = f"share of it that nobody waits for with staleness 1, where it takes {share:.0%} of a step"
        found.append(Bound(what, _not_waited_for(samples, 1, share, usual), HIDDEN, "at least"))
    return found


def _without_delay(settings: Settings, timed: dict[int, Timed]) -> float:
    """Speed with staleness 1 over that with 0, by processor time of single steps in turn.

    Nothing is waited for, and a small difference is looked for.
    """
    for one in timed.values():
        one.link.seconds_per_byte = 0.0
    jobs = {str(s): partial(one.workload.step, one.batch) for s, one in timed.items()}
    taken = interleave(jobs, rounds=5 * settings.rounds, budget=2 * settings.budget, clock=time.process_time)
    return ratio(taken["0"], taken["1"])


def _hidden(samples: Taken, staleness: int, share: float, usual: float) -> float:
    """The share of the delay that does not lengthen the step; median over the rounds."""
    pairs = zip(samples[staleness, share][0].seconds, samples[staleness, 0.0][0].seconds, strict=True)
    return statistics.median(1 - (slow - fast) / (share * usual) for slow, fast in pairs)


def _not_waited_for(samples: Taken, staleness: int, share: float, usual: float) -> float:
    """The share of the delay in which the step does not wait; median over the rounds."""
    return 1 - samples[staleness, share][1].median / (share * usual)


def _build(settings: Settings, dataset: Dataset, staleness: int) -> Timed:
    extra = [f"optimizer.dense_staleness={staleness}"]
    config = case_config(settings, dataset, MODEL, requests=REQUESTS, extra=extra)
    link = DelayedLink(seconds_per_byte=0.0)
    workload = Workload.build(config, dataset.manifest, reduce=link)
    (batch,) = first_batches(dataset, config, 1)
    for _ in range(2):
        workload.step(batch)
    return Timed(workload, link, batch)


def _measure(settings: Settings, timed: dict[int, Timed], full: float) -> Taken:
    """All cases in turn, round after round; `full` seconds per byte make the all-reduce as long as a step."""
    taken: dict[OverlapCase, list[tuple[float, float]]] = {(s, share): [] for share in SHARES for s in timed}
    for number in range(settings.rounds):
        settings.say(f"overlap: round {number + 1} of {settings.rounds}")
        for (staleness, share), seconds in taken.items():
            timed[staleness].link.seconds_per_byte = share * full
            seconds.append(timed[staleness].step_seconds())
    return {
        case: (Samples(tuple(step for step, _ in both)), Samples(tuple(waited for _, waited in both)))
        for case, both in taken.items()
    }
