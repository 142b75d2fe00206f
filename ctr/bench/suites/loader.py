"""The loader alone, against what the fastest model consumes."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from ctr.bench.results import Bound, CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import build_all, given_or_synthetic, sized
from ctr.bench.timing import TimedCall, interleave
from ctr.bench.workload import endless, first_batches, models, training_batches
from ctr.config import RunConfig
from features.dataset import Dataset

FACTOR = 5.0


def run(settings: Settings) -> SuiteResult:
    """Rows/s of the loader with one and two threads, and of every model on batches at hand."""
    rows = settings.rows_per_request[0]
    shape = replace(sized(Shape(), settings), requests=5 * settings.requests, rows_per_request=rows)
    dataset = given_or_synthetic(settings, shape, f"train-{rows}")
    workloads = build_all(settings, dataset, list(models()), requests=settings.requests)
    config = workloads[next(iter(workloads))].config
    (batch,) = first_batches(dataset, config, 1)
    loading = _loading(settings, dataset, config)
    jobs: dict[str, TimedCall] = {name: partial(workload.step, batch) for name, workload in workloads.items()}
    settings.say("loader: models on a batch at hand")
    taken = interleave(jobs, rounds=settings.rounds, budget=settings.budget)
    speeds = {name: samples.per_second(batch.num_rows) for name, samples in taken.items()}
    fastest = max(speeds, key=lambda name: speeds[name])
    cells: list[list[CellValue]] = [[name, speed] for name, speed in (loading | speeds).items()]
    table = ResultTable("Rows/s of the loader alone, and of the models", ["what", "rows/s"], cells)
    times = loading["loader, 1 thread"] / speeds[fastest]
    target = Bound(f"loader over the fastest model ({fastest})", times, FACTOR, "at least")
    return SuiteResult("loader", "The loader alone", [table], [], [target])


def _loading(settings: Settings, dataset: Dataset, config: RunConfig) -> dict[str, float]:
    """Rows/s of batches made and thrown away."""
    speeds: dict[str, float] = {}
    for workers in (1, 2):
        settings.say(f"loader: {workers} threads")
        loader = config.loader.model_copy(update={"workers": workers})
        rows: list[int] = []
        with ExitStack() as stack:
            source = endless(training_batches(dataset, config.model_copy(update={"loader": loader})))
            batches = stack.enter_context(closing(source))
            # Batches wait ready in the queue at first: as many again are made in a measured round.
            several = 4 * loader.prefetch

            def take(number: int = several) -> None:
                rows.append(sum(next(batches).num_rows for _ in range(number)))  # noqa: B023

            taken = interleave({"loader": take}, rounds=settings.rounds, warmup=2, budget=settings.budget / 4)
        speeds[f"loader, {workers} thread{'s' * (workers > 1)}"] = taken["loader"].per_second(
            sum(rows) / len(rows)
        )
    return speeds
